"""One turn as one transaction: encoded on the caller's thread, written on the writer's.

Owns the two ways of writing. The fast way takes every kind of change in whole statements and
compares the count of rows with what it asked. Where one count is short, the transaction is rolled
back and written the careful way: chunk after chunk in a savepoint, a short chunk row by row, so
that the receipt can name what was refused. Never decides what a turn says.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from holdfast.errors import StoreRefusedError
from holdfast.model.ids import TaskId
from holdfast.model.limits import PRUNED_KEPT_MS
from holdfast.model.task import Task
from holdfast.ports import Changes, Receipt
from holdfast.stores import rows, statements
from holdfast.stores.rows import Row
from holdfast.stores.statements import in_chunks

Sql = Callable[[int], str]
_TURN_BYTES = 64 * 1024
_ROW_BYTES = 512
"""About what a turn, and each of its rows, writes into the log beside larger payloads."""


@dataclass(slots=True)
class Batch:
    """Rows of one kind, with the task of each in the first column."""

    sql: Sql
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class Turn:
    """A turn's changes as rows, in the order in which they are written."""

    number: int
    inserts: tuple[Batch, Batch]
    bodies: Batch
    updates: tuple[Batch, Batch]
    results: Batch
    attempts: Batch
    events: Batch
    workers: list[Row]
    code: list[Row]
    outages: list[str]
    forgotten: list[Row]
    queues: list[Row]
    functions: list[Row]
    pruned: list[TaskId]
    pruned_ms: int

    @property
    def log_bytes(self) -> int:
        """About how much it writes into the write-ahead log."""
        batches = (*self.inserts, *self.updates, self.attempts, self.events)
        larger = chain(self.bodies.rows, self.results.rows, self.code)
        return (
            _TURN_BYTES
            + _ROW_BYTES * sum(len(batch.rows) for batch in batches)
            + sum(len(data) for _, data in larger)
        )


class _ShortCountError(Exception):
    """Not all rows of a statement were written: the careful way must find out which."""


def encode(changes: Changes) -> Turn:
    """Make rows of a turn. Raises `failures.CONTENT_ERRORS` for values that no column holds."""
    turn = Turn(
        number=changes.turn,
        inserts=(Batch(statements.insert_plain), Batch(statements.insert_full)),
        bodies=Batch(statements.insert_bodies),
        updates=(Batch(statements.update_plain), Batch(statements.update_full)),
        results=Batch(statements.replace_results),
        attempts=Batch(statements.replace_attempts),
        events=Batch(statements.insert_events),
        workers=[
            (w.identity, w.name, w.incarnation, w.number, w.epoch, w.facts, w.said_ms, w.outages)
            for w in changes.workers
        ],
        code=[(c.digest, c.data) for c in changes.code],
        outages=changes.outages,
        forgotten=[(w.identity, w.incarnation, w.number) for w in changes.forgotten],
        queues=[(q.name, q.paused + 0) for q in changes.queues],
        functions=[
            (f.id, f.name, f.function, f.code, f.python, f.registered_ms) for f in changes.functions
        ],
        pruned=changes.pruned,
        pruned_ms=changes.pruned_ms,
    )
    _encode_tasks(changes, turn)
    turn.events.rows = [
        (bytearray(e.task), e.at_ms, e.kind, e.fence, e.worker, e.detail) for e in changes.events
    ]
    turn.attempts.rows = [
        (
            bytearray(a.task),
            a.fence,
            bytearray(a.token),
            a.worker,
            a.incarnation,
            a.claimed_ms,
            a.started_ms,
            a.ended_ms,
            a.ended,
        )
        for a in changes.attempts
    ]
    return turn


def _encode_tasks(changes: Changes, turn: Turn) -> None:
    plain, full = turn.inserts
    for task in changes.inserts:
        spec, life = task.spec, task.life
        row = rows.spec_row(spec) + rows.head_row(life)
        if rows.is_fresh(life) and not rows.has_rare(spec):
            plain.rows.append(row)
        else:
            rest = rows.ending_row(life) + rows.rest_row(life) + rows.rare_row(spec)
            full.rows.append(row + rest)
        if len(spec.payload.data) > rows.INLINE_ROW_BYTES:
            turn.bodies.rows.append((bytearray(spec.id), bytearray(spec.payload.data)))
        _encode_result(task, turn)
    plain, full = turn.updates
    for update in changes.updates:
        life = update.task.life
        row = (
            bytearray(update.task.spec.id),
            update.version,
            0 if update.token is None else bytearray(update.token),
            *rows.head_row(life),
            *rows.ending_row(life),
        )
        if rows.has_history(life):
            full.rows.append(row + rows.rest_row(life))
        else:
            plain.rows.append(row)
        _encode_result(update.task, turn)


def _encode_result(task: Task, turn: Turn) -> None:
    result = task.life.result
    if result is not None and len(result.data) > rows.INLINE_ROW_BYTES:
        turn.results.rows.append((bytearray(task.spec.id), bytearray(result.data)))


def write(connection: sqlite3.Connection, turn: Turn, *, careful: bool = False) -> Receipt:
    """Write a turn in one transaction and commit it.

    Raises the driver's errors, and StoreRefusedError for a worker that was overtaken; the caller
    rolls back.
    """
    connection.execute(statements.BEGIN)
    try:
        receipt = _write_all(connection, turn, careful=careful)
    except _ShortCountError:
        connection.execute("ROLLBACK")
        return write(connection, turn, careful=True)
    connection.execute("COMMIT")
    return receipt


def _write_all(connection: sqlite3.Connection, turn: Turn, *, careful: bool) -> Receipt:
    receipt = Receipt()
    # Before the worker rows, each of which sets the count to its own.
    for identities in in_chunks(turn.outages):
        _execute(connection, statements.add_outages, [(each,) for each in identities])
    for row in turn.forgotten:
        connection.execute(statements.FORGET_WORKER, row)
    for row in turn.workers:
        if connection.execute(statements.UPSERT_WORKER, row).rowcount != 1:
            raise StoreRefusedError(
                f"worker {row[0]} has said hello with a later pair than {row[2:4]}"
            )
    for row in turn.code:
        connection.execute(statements.INSERT_CODE, row)
    for row in turn.functions:
        connection.execute(statements.INSERT_FUNCTION, row)
    for row in turn.queues:
        connection.execute(statements.SET_QUEUE, row)
    for batch in turn.inserts:
        receipt.refused_inserts += _write_batch(connection, batch, careful=careful)
    refused = set(receipt.refused_inserts)
    _write_others(connection, turn.bodies, refused)
    for batch in turn.updates:
        receipt.refused_updates += _write_batch(connection, batch, careful=careful)
    refused.update(receipt.refused_updates)
    _write_others(connection, turn.results, refused)
    _write_others(connection, turn.attempts, refused)
    _write_others(connection, turn.events, refused)
    if turn.pruned:
        _prune(connection, turn)
    connection.execute(statements.SET_TURN, (turn.number,))
    return receipt


def _prune(connection: sqlite3.Connection, turn: Turn) -> None:
    for task in turn.pruned:
        if connection.execute(statements.PRUNE, (task,)).rowcount == 1:
            for sql in statements.PRUNE_REST:
                connection.execute(sql, (task,))
            connection.execute(statements.INSERT_PRUNED, (task, turn.pruned_ms))
    connection.execute(statements.FORGET_PRUNED, (turn.pruned_ms - PRUNED_KEPT_MS,))


def _write_batch(connection: sqlite3.Connection, batch: Batch, *, careful: bool) -> list[TaskId]:
    """Write rows that may be refused; return the tasks of those that were.

    Raises _ShortCountError on the fast way.
    """
    refused: list[TaskId] = []
    for chunk in in_chunks(batch.rows):
        if careful:
            connection.execute("SAVEPOINT chunk")
        if _execute(connection, batch.sql, chunk) != len(chunk):
            if not careful:
                raise _ShortCountError
            connection.execute("ROLLBACK TO chunk")
            refused += [
                TaskId(bytes(row[0]))
                for row in chunk
                if _execute(connection, batch.sql, [row]) != 1
            ]
        if careful:
            connection.execute("RELEASE chunk")
    return refused


def _write_others(connection: sqlite3.Connection, batch: Batch, refused: set[TaskId]) -> None:
    """Write rows that go with their task: not where the task was refused."""
    kept = [row for row in batch.rows if bytes(row[0]) not in refused] if refused else batch.rows
    for chunk in in_chunks(kept):
        _execute(connection, batch.sql, chunk)


def _execute(connection: sqlite3.Connection, sql: Sql, chunk: Sequence[Row]) -> int:
    """Run one statement for the rows, padded with 0; return how many rows it wrote."""
    size = statements.rows_for(len(chunk))
    values = list(chain.from_iterable(chunk))
    if size > len(chunk):
        values += [0] * ((size - len(chunk)) * len(chunk[0]))
    return connection.execute(sql(size), values).rowcount
