"""Measure what the interpreter lock costs a SQLite writer thread beside a busy event loop.

sqlite3 drops the lock around every step of a statement and must retake it afterwards; a main
thread that computes gives it back only after a switch interval (5 ms). Each way of writing or
reading a turn is timed beside an idle and beside a busy main thread, in one run, so that the
ratios hold on any machine. Run it with the virtual environment's Python; it takes about ten
seconds.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import msgspec

from holdfast.model.ids import IdMint, Token
from holdfast.model.outcome import Encoding, Payload
from holdfast.model.task import Lease, Life, Phase, Spec, State, Task
from holdfast.ports import Changes, Update
from holdfast.stores import connections, migrate, rows, statements, turn

TURN_TASKS = 200
TURNS = 4
CHUNKS = (128, 32, 8, 1)
SWITCH_SECONDS = (0.005, 0.0005)

Way = Callable[[sqlite3.Connection, list[Task]], None]


def inserts(tasks: list[Task]) -> turn.Batch:
    return turn.encode(Changes(turn=1, inserts=tasks)).inserts[0]


def claims(tasks: list[Task]) -> turn.Batch:
    life = Life(
        version=2,
        state=State.RUNNING,
        fence=1,
        token=Token(bytes(16)),
        lease=Lease.HELD,
        phase=Phase.ASSIGNED,
        worker="worker-1",
        claimed_ms=1_700_000_000_000,
    )
    updates = [Update(msgspec.structs.replace(task, life=life), 1) for task in tasks]
    return turn.encode(Changes(turn=1, updates=updates)).updates[0]


def by_executemany(kind: Callable[[list[Task]], turn.Batch]) -> Way:
    def write(connection: sqlite3.Connection, tasks: list[Task]) -> None:
        batch = kind(tasks)
        connection.executemany(batch.sql(1), batch.rows)

    return write


def by_chunks(kind: Callable[[list[Task]], turn.Batch]) -> Way:
    def write(connection: sqlite3.Connection, tasks: list[Task]) -> None:
        batch = kind(tasks)
        left = batch.rows
        while left:
            size = next(size for size in CHUNKS if size <= len(left))
            connection.execute(batch.sql(size), list(chain.from_iterable(left[:size])))
            left = left[size:]

    return write


def by_one_statement(kind: Callable[[list[Task]], turn.Batch]) -> Way:
    def write(connection: sqlite3.Connection, tasks: list[Task]) -> None:
        batch = kind(tasks)
        turn._execute(connection, batch.sql, batch.rows)

    return write


def read_rows(connection: sqlite3.Connection, tasks: list[Task]) -> None:
    marks = ",".join("?" * len(tasks))
    sql = f"SELECT * FROM tasks WHERE id IN ({marks})"
    found = connection.execute(sql, [task.spec.id for task in tasks]).fetchall()
    assert len(found) == len(tasks)


def read_packed(connection: sqlite3.Connection, tasks: list[Task]) -> None:
    sql = statements.load_tasks(len(tasks))
    row = connection.execute(sql, [task.spec.id for task in tasks]).fetchone()
    assert len(rows.tasks_of(*row)) == len(tasks)


WAYS: tuple[tuple[str, bool, Way], ...] = (
    ("insert, executemany", False, by_executemany(inserts)),
    ("insert, chunks of 128/32/8/1", False, by_chunks(inserts)),
    ("insert, one padded statement", False, by_one_statement(inserts)),
    ("claim, executemany", True, by_executemany(claims)),
    ("claim, chunks of 128/32/8/1", True, by_chunks(claims)),
    ("claim, one padded statement", True, by_one_statement(claims)),
    ("read, row by row", True, read_rows),
    ("read, packed into one row", True, read_packed),
)


def turns_of_tasks() -> Iterator[list[Task]]:
    mint = IdMint(random.Random(1))
    payload = Payload(Encoding.JSON, bytes(100), b"", 100)
    now_ms = 1_700_000_000_000
    for _ in range(TURNS):
        ids = [mint.next(now_ms) for _ in range(TURN_TASKS)]
        yield [Task(Spec(each, "module:function", payload, now_ms), Life()) for each in ids]


def turn_ms(folder: Path, way: Way, *, stored: bool, busy: bool) -> float:
    """Return the median time of one turn in a thread, with its BEGIN and COMMIT."""
    connection = connections.connect(folder / "convoy.db")
    migrate.migrate(connection, store_id="bench")
    work = list(turns_of_tasks())
    for tasks in work if stored else []:
        by_one_statement(inserts)(connection, tasks)
    times: list[float] = []
    ended = threading.Event()

    def write() -> None:
        for tasks in work:
            begun = time.perf_counter()
            connection.execute(statements.BEGIN)
            way(connection, tasks)
            connection.execute("COMMIT")
            times.append(time.perf_counter() - begun)
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    spun = 0
    while busy and not ended.is_set():
        # What an event loop under load looks like to the other thread.
        spun += sum(range(1000))
    thread.join()
    connection.close()
    return statistics.median(times) * 1000


def main() -> None:
    interval = sys.getswitchinterval()
    print_line(f"A turn of {TURN_TASKS} in a thread, median ms", "main idle", "main busy", "0.5 ms")
    for name, stored, way in WAYS:
        figures = []
        for busy, switch_seconds in ((False, interval), *((True, s) for s in SWITCH_SECONDS)):
            sys.setswitchinterval(switch_seconds)
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                figures.append(turn_ms(Path(folder), way, stored=stored, busy=busy))
        sys.setswitchinterval(interval)
        print_line(name, *(f"{figure:.1f}" for figure in figures))


def print_line(name: str, *figures: str) -> None:
    sys.stdout.write(f"{name:42}" + "".join(f"{figure:>12}" for figure in figures) + "\n")


if __name__ == "__main__":
    main()
