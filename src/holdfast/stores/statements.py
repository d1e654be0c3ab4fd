"""The SQL of the SQLite store, as named statements. Each says which race it closes.

Owns the order of columns, which `rows` follows. Never touches a connection.

A statement that writes rows takes a fixed number of them, a power of two; the rows that a turn
lacks are padded with 0, which is the id of nothing, and fall out by predicate. So each kind of
change is one statement a turn: sqlite3 drops and retakes the interpreter lock at every statement,
and each time a busy main thread may keep it for a whole switch interval (`bench/sqlite_convoy.py`
shows the cost).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

T = TypeVar("T")

ROWS_MAX = 256
"""The most rows that one statement writes or reads."""

SPEC = (
    "id function encoding payload payload_digest payload_bytes submitted_ms asked_due_ms queue "
    "tags priority key code python concurrent needs rank"
).split()
HEAD = (
    "version state wanted wish due_ms fence token lease phase owed worker incarnation epoch "
    "claimed_ms"
).split()
ENDING = "started_ms ended_ms reason result_encoding result result_digest result_bytes".split()
REST = (
    "retries losses crashes out_of_memory environment free_returns unheard freed mark crash_mark "
    "saved_number saved_digest avoid avoid_until_ms failure"
).split()

RARE = ["likeness", "meta"]
"""Of `Spec` too, but for few tasks: the plain insert leaves them empty, no update writes them."""

_REST_EMPTY = {"freed": "x''", "saved_digest": "x''", "avoid": "''", "failure": "x''"}
READ = SPEC[:-2] + HEAD + ENDING + REST + RARE
"""The columns of which a task is made again; `needs` and `rank` are derived."""
BLOBS = frozenset(
    "id payload payload_digest code token result result_digest freed saved_digest failure "
    "likeness".split()
)

BEGIN = "BEGIN IMMEDIATE"
"""Takes the write lock at once: a deferred BEGIN could lose it between its read and its write."""


def rows_for(count: int) -> int:
    """Return how many rows the statement for `count` rows takes: the next power of two."""
    return 1 << max(count - 1, 0).bit_length()


def in_chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield as many items at a time as one statement takes."""
    for first in range(0, len(items), ROWS_MAX):
        yield items[first : first + ROWS_MAX]


def _values(columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return "VALUES " + ",".join([row] * rows)


def _insert(table: str, columns: list[str], rows: int, verb: str = "INSERT") -> str:
    chosen = (
        # A unique column takes many NULLs; "" would be taken once.
        f"nullif(column{number}, '')" if name == "key" else f"column{number}"
        for number, name in enumerate(columns, 1)
    )
    return (
        f"{verb} INTO {table} ({','.join(columns)}) SELECT {','.join(chosen)} "
        f"FROM ({_values(len(columns), rows)}) WHERE column1 <> 0"
    )


@cache
def insert_plain(rows: int) -> str:
    """New tasks that have no history and nothing rare, be they claimed already.

    Closes: the same submission twice, and two submissions of one key. The loser is not written;
    the count of written rows tells.
    """
    return _insert("tasks", SPEC + HEAD, rows) + " ON CONFLICT DO NOTHING"


@cache
def insert_full(rows: int) -> str:
    """New tasks with every column. Closes the same race as `insert_plain`."""
    return _insert("tasks", SPEC + HEAD + ENDING + REST + RARE, rows) + " ON CONFLICT DO NOTHING"


def _update(assigned: list[str], constants: list[str], rows: int) -> str:
    bound = ["id", "version", "token", *assigned]
    sets = [f"{name} = v.column{number}" for number, name in enumerate(assigned, 4)]
    sets += [f"{name} = {_REST_EMPTY.get(name, '0')}" for name in constants]
    return (
        f"UPDATE tasks SET {', '.join(sets)} FROM ({_values(len(bound), rows)}) AS v "
        "WHERE tasks.id = v.column1 AND tasks.version = v.column2 AND tasks.state < 3 "
        "AND (v.column3 = 0 OR (tasks.token = v.column3 AND tasks.lease IN (1, 2)))"
    )


@cache
def update_plain(rows: int) -> str:
    """Claims, starts and plain endings: columns of history are set to their empty values.

    All columns of a life are written, so that the row is right whatever it held before. Closes:
    a second writer that was faster (version), a worker that was superseded (token, lease), and
    any write to a terminal task (state).
    """
    return _update(HEAD + ENDING, REST, rows)


@cache
def update_full(rows: int) -> str:
    """Every column of a life. Closes the same races as `update_plain`."""
    return _update(HEAD + ENDING + REST, [], rows)


@cache
def insert_bodies(rows: int) -> str:
    """Large payloads of tasks that were accepted in this transaction."""
    return _insert("bodies", ["id", "data"], rows)


@cache
def replace_results(rows: int) -> str:
    """Large results of tasks whose change was accepted in this transaction."""
    return _insert("results", ["id", "data"], rows, "INSERT OR REPLACE")


@cache
def insert_events(rows: int) -> str:
    """Lines of stories, in the order given."""
    return _insert("events", "task at_ms kind fence worker detail".split(), rows)


@cache
def replace_attempts(rows: int) -> str:
    """Former attempts. A later word on the same one (a late start) replaces the earlier."""
    columns = "task fence token worker incarnation claimed_ms started_ms ended_ms ended".split()
    return _insert("attempts", columns, rows, "INSERT OR REPLACE")


UPSERT_WORKER = """
INSERT INTO workers (identity, name, incarnation, number, epoch, facts, said_ms, outages)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (identity) DO UPDATE SET
    name = excluded.name, incarnation = excluded.incarnation, number = excluded.number,
    epoch = excluded.epoch, facts = excluded.facts, said_ms = excluded.said_ms,
    outages = excluded.outages
WHERE (excluded.incarnation, excluded.number) > (workers.incarnation, workers.number)
"""
"""Closes: a hello that was overtaken by a later one of the same worker."""


@cache
def add_outages(rows: int) -> str:
    """One more outage for each of these workers, counted in the row and not from what was read."""
    where = ",".join("?" * rows)
    return f"UPDATE workers SET outages = outages + 1 WHERE identity IN ({where})"


FORGET_WORKER = "DELETE FROM workers WHERE (identity, incarnation, number) = (?, ?, ?)"
"""Closes: a worker that says hello just when it is forgotten."""

INSERT_CODE = "INSERT INTO code (digest, data) VALUES (?, ?) ON CONFLICT DO NOTHING"
"""Closes: two clients that bring the same function; the bytes are the same by their digest."""

PRUNE = "DELETE FROM tasks WHERE id = ? AND state >= 3"
"""Closes: nothing; what has ended never changes. That it has is seen here all the same."""

PRUNE_REST = tuple(
    f"DELETE FROM {table} WHERE {column} = ?"
    for table, column in (
        ("bodies", "id"),
        ("results", "id"),
        ("attempts", "task"),
        ("events", "task"),
    )
)
INSERT_PRUNED = "INSERT OR REPLACE INTO pruned (id, pruned_ms) VALUES (?, ?)"
FORGET_PRUNED = "DELETE FROM pruned WHERE pruned_ms < ?"

INSERT_FUNCTION = (
    "INSERT INTO functions (id, name, function, code, python, registered_ms) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
"""Closes: a registration that is said twice; it never changes."""

SET_QUEUE = "INSERT OR REPLACE INTO queues (name, paused) VALUES (?, ?)"

SET_TURN = "UPDATE meta SET turn = ?"

# --- Reading -----------------------------------------------------------------------------------


_ELSEWHERE = {
    "payload": "coalesce(payload, (SELECT data FROM bodies WHERE bodies.id = chosen.id))",
    "result": (
        "CASE typeof(result) WHEN 'integer' "
        "THEN (SELECT data FROM results WHERE results.id = chosen.id) ELSE result END"
    ),
}
"""What rests beside the row where it is large: as a value, wherever it is."""


def _packed() -> str:
    columns, blobs = [], []
    for name in READ:
        value = _ELSEWHERE.get(name, name)
        if name in BLOBS:
            blobs.append(value)
            columns.append(f"length({value})")
        else:
            columns.append(value)
    rows = f"json_group_array(json_array({','.join(columns)}))"
    # Concatenation takes blobs as text and back; it changes no byte, and hex would cost ten
    # times as much. `rows.tasks_of` checks the lengths.
    return f"{rows}, CAST(group_concat({'||'.join(blobs)}, '') AS BLOB)"


def packed_tasks(chosen: str) -> str:
    """Return the statement that packs the rows of the query `chosen` into one row.

    Its columns: all values as JSON, with lengths in place of blobs; and all blobs in a row. One
    step and one hand-over of the interpreter lock, however many tasks, and the packing runs
    outside the lock. `chosen` must select `*`, order by itself and have a LIMIT or a condition.
    """
    return f"SELECT {_packed()} FROM ({chosen}) AS chosen"


@cache
def load_tasks(rows: int) -> str:
    """Tasks by id."""
    return packed_tasks(f"SELECT * FROM tasks WHERE id IN ({','.join('?' * rows)})")


@cache
def load_keys(rows: int) -> str:
    """Tasks by key."""
    return packed_tasks(f"SELECT * FROM tasks WHERE key IN ({','.join('?' * rows)})")


@cache
def kept_code(rows: int) -> str:
    """Digests of functions that are here; read in the index alone."""
    return f"SELECT digest FROM code WHERE digest IN ({','.join('?' * rows)})"


@cache
def pruned(rows: int) -> str:
    """Ids of tasks that were removed."""
    return f"SELECT id FROM pruned WHERE id IN ({','.join('?' * rows)})"


RUNNING = packed_tasks(
    f"SELECT * FROM tasks WHERE state = 1 AND id > ? ORDER BY id LIMIT {ROWS_MAX}"
)
READY = packed_tasks(
    "SELECT * FROM tasks WHERE state = 0 AND due_ms = 0 AND needs = ? AND (rank, id) > (?, ?) "
    "ORDER BY rank, id LIMIT ?"
)
CLASSES = """
WITH RECURSIVE each (needs) AS (
    SELECT min(needs) FROM tasks WHERE state = 0 AND due_ms = 0
    UNION ALL
    SELECT (SELECT min(t.needs) FROM tasks t
            WHERE t.state = 0 AND t.due_ms = 0 AND t.needs > each.needs)
    FROM each WHERE each.needs IS NOT NULL
)
SELECT json_group_array(needs) FROM each WHERE needs IS NOT NULL
"""
"""Jumps from class to class in the index: the cost is that of the classes, not of the tasks."""

DUE = packed_tasks(
    "SELECT * FROM tasks WHERE state = 0 AND due_ms > 0 AND (due_ms, id) > (?, ?) AND due_ms <= ? "
    "ORDER BY due_ms, id LIMIT ?"
)
NEXT_DUE = "SELECT coalesce(min(due_ms), 0) FROM tasks WHERE state = 0 AND due_ms > 0"
FACTS = "SELECT store, timeline, turn FROM meta"
WORKERS = (
    "SELECT identity, name, incarnation, number, epoch, facts, said_ms, outages FROM workers "
    "ORDER BY identity"
)


def _ended_last(state: int) -> str:
    # `state >= 2` is what the index says of itself: SQLite does not conclude it.
    return (
        "SELECT function, state, max(started_ms, claimed_ms) AS begun_ms, ended_ms FROM tasks "
        f"WHERE state >= 2 AND state = {state} ORDER BY ended_ms DESC LIMIT ?"
    )


REGISTERED = "SELECT id, name, function, code, python, registered_ms FROM functions WHERE id = ?"
ALL_REGISTERED = (
    "SELECT id, name, function, code, python, registered_ms FROM functions "
    "WHERE (? = '' OR name = ?) AND (? = x'' OR id < ?) ORDER BY id DESC LIMIT ?"
)
QUEUES = "SELECT name, paused FROM queues ORDER BY name"
CODE = "SELECT data FROM code WHERE digest = ?"
COUNTS = """
SELECT 0, count(*) FROM tasks WHERE state = 0 AND due_ms = 0
UNION ALL SELECT 0, count(*) FROM tasks WHERE state = 0 AND due_ms > 0
UNION ALL SELECT 1, count(*) FROM tasks WHERE state = 1
UNION ALL SELECT state, count(*) FROM tasks WHERE state >= 2 GROUP BY state
"""
"""Each branch is a scan of one small index."""

QUEUED_BY_CLASS = (
    "SELECT needs, count(*) FROM tasks WHERE state = 0 AND due_ms = 0 GROUP BY needs ORDER BY needs"
)
FUNCTIONS = f"""
SELECT function, count(*), sum(state = 4) AS failed, avg(ran_ms), max(ran_ms) AS slowest_ms FROM (
    SELECT function, state, iif(begun_ms > 0, max(ended_ms - begun_ms, 0), NULL) AS ran_ms
    FROM ({" UNION ALL ".join(f"SELECT * FROM ({_ended_last(state)})" for state in (3, 4, 5))})
    ORDER BY ended_ms DESC LIMIT ?
) GROUP BY function ORDER BY failed DESC, slowest_ms DESC, function LIMIT ?
"""
"""Walks the index of what ended backward, state by state: the cost is that of the tasks asked for,
not of those that are kept."""
DEPTHS = """
SELECT needs, 0, count(*), min(id) FROM tasks WHERE state = 0 AND due_ms = 0 GROUP BY needs
UNION ALL
SELECT needs, 1, count(*), min(id) FROM tasks WHERE state = 0 AND due_ms > 0 GROUP BY needs
"""
"""The first branch reads one index alone. An id begins with the time of its submission."""

EVENTS = (
    "SELECT task, at_ms, kind, fence, worker, detail FROM events WHERE task = ? ORDER BY number"
)
ATTEMPTS = (
    "SELECT task, fence, token, worker, incarnation, claimed_ms, started_ms, ended_ms, ended "
    "FROM attempts WHERE task = ? ORDER BY fence"
)
