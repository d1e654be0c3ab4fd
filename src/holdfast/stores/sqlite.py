"""The SQLite store: the default, for one coordinator, and the simulator's disk.

Owns one committing connection and the desk on which its calls run. Refuses by predicate and never
decides; never answers a commit before it is durable.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    StoreCorruptError,
    StoreDoubtError,
    StoreGoneError,
)
from holdfast.model.ids import TaskId
from holdfast.model.task import Task, rank_of
from holdfast.observe import logger
from holdfast.ports import Changes, QueueRow, ReadyPage, Receipt, StoreFacts, WorkerRow
from holdfast.stores import statements, turn
from holdfast.stores.checkpoint import WAL_BYTES_MAX, WalCheckpoints
from holdfast.stores.connections import Database, Durability, connect, is_file, opening_failed
from holdfast.stores.damage import damaged, mark, refuse_marked, unreadable
from holdfast.stores.desk import Desk, InlineDesk, ThreadDesk
from holdfast.stores.failures import (
    CONTENT_ERRORS,
    end_process,
    is_damage,
    is_failed_fsync,
    judge,
)
from holdfast.stores.footing import Footing
from holdfast.stores.migrate import migrate
from holdfast.stores.rows import tasks_of

T = TypeVar("T")

READY_BYTES_MAX = 8 * 1024 * 1024
"""A page of claimable tasks ends after the payloads that reach this size."""


class SQLiteStore:
    """`ports.Store` over SQLite.

    `database` is a file, or, with `inline`, `:memory:`, a `file:` URI or a connection that its
    owner lends and keeps (`connections.memory_disk`): the store can then be dropped at any point,
    as in a crash, and another one opened over the same connection. `inline` runs every call at
    once on the calling thread. `durability="normal"` survives the death of the process, but a
    power cut may lose the newest turns. `store_id` names a store that is made here; empty: drawn.
    `die` ends the process after a failed fsync.
    """

    def __init__(
        self,
        database: Database,
        *,
        durability: Durability = "full",
        inline: bool = False,
        store_id: str = "",
        wal_bytes_max: int = WAL_BYTES_MAX,
        die: Callable[[str], NoReturn] = end_process,
    ) -> None:
        if not inline and not is_file(database):
            raise ConfigurationError(f"{database} is not a file: it needs inline=True")
        self._database = database
        self._durability: Durability = durability
        self._inline = inline
        self._store_id = store_id
        self._wal_bytes_max = wal_bytes_max
        self._die = die
        self._desk: Desk | None = None
        self._connection: sqlite3.Connection | None = None
        self._checkpoints: WalCheckpoints | None = None
        self._footing = Footing(database) if isinstance(database, Path) else None
        self._gone = ""
        """Which of its files are lost, and what was saved of them."""
        self._in_doubt = False
        self._damage: StoreCorruptError | None = None
        """What was found of the database; from then on it is neither read nor written."""

    # Life.

    async def open(self) -> StoreFacts:
        """Open, migrate, and say who the store is.

        Raises ConfigurationError for a directory that cannot be used, StoreVersionError for a
        database of a newer release, StoreCorruptError for a damaged one, StoreDoubtError where
        another process holds it, StoreGoneError where it is not the one that was open before.
        """
        assert self._desk is None, "open twice"
        self._desk = InlineDesk() if self._inline else ThreadDesk("holdfast-store")
        try:
            return await self._desk.run(self._open)
        except BaseException:
            await self.close()
            raise

    def _open(self) -> StoreFacts:
        refuse_marked(self._database)
        if self._footing is not None and (lost := self._footing.look()):
            # An empty one that is made in its place would be taken for all there is.
            raise StoreGoneError(self._gone or f"{lost} while it was in use")
        try:
            self._connection = connect(self._database, durability=self._durability)
            # A database that cannot be written shows here, and not at the first turn.
            self._connection.execute(statements.BEGIN)
            self._connection.execute("ROLLBACK")
            migrate(self._connection, store_id=self._store_id or secrets.token_hex(16))
            facts = self._connection.execute(statements.FACTS).fetchone()
        except sqlite3.Error as error:
            raise opening_failed(self._database, error) from error
        if isinstance(self._database, Path) and (footing := self._footing) is not None:
            footing.begin()
            self._stand(self._connection)
            self._checkpoints = WalCheckpoints(
                self._database,
                inline=self._inline,
                durability=self._durability,
                bytes_max=self._wal_bytes_max,
                die=self._die,
                holds=lambda: not footing.look(),
            )
        self._in_doubt = False
        return StoreFacts(*facts)

    async def close(self) -> None:
        """End after the calls that wait. A lent connection stays open. May be called twice."""
        desk, self._desk = self._desk, None
        if desk is not None:
            try:
                await desk.run(self._close)
            finally:
                await desk.close()

    def _close(self) -> None:
        checkpoints, self._checkpoints = self._checkpoints, None
        connection, self._connection = self._connection, None
        if checkpoints is not None:
            checkpoints.close()
        if self._footing is not None:
            self._footing.end(connection)
        if connection is not None and connection is not self._database:
            connection.close()

    # Writing.

    async def commit(self, changes: Changes) -> Receipt:
        """Write one turn in one transaction, durable on return. See `ports.Store`.

        Raises StoreGoneError where it went into files that nobody will find.
        `spec` of an update is not written: what was asked never changes. Within a turn the order
        is outages, forgotten workers, workers, code, functions, queues, inserts, updates, attempts,
        events, removals.
        """
        try:
            encoded = turn.encode(changes)
        except CONTENT_ERRORS as error:
            raise judge(error, rolled_back=True) from error
        return await self._run(partial(self._write, encoded))

    def _write(self, encoded: turn.Turn) -> Receipt:
        connection = self._usable()
        try:
            receipt = turn.write(connection, encoded)
        except Exception as error:
            raise self._broken_off(connection, error) from error
        self._stand(connection)
        if self._checkpoints is not None and self._footing is not None:
            self._checkpoints.look(encoded.log_bytes, self._footing.wal_bytes)
        return receipt

    def _broken_off(self, connection: sqlite3.Connection, error: Exception) -> HoldfastError:
        if isinstance(error, sqlite3.Error) and is_failed_fsync(error):
            # The kernel may have dropped the pages: a second fsync would lie.
            self._die(f"a turn could not be made durable: {error}")
        rolled_back = _roll_back(connection)
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self._damage = damaged(self._database, error)
            return self._damage
        if rolled_back and isinstance(error, HoldfastError):
            return error
        judged = judge(error, rolled_back=rolled_back)
        self._in_doubt = isinstance(judged, StoreDoubtError)
        return judged

    async def check(self) -> None:
        """See that the files are in place, as after each turn.

        Raises StoreGoneError where one was removed or replaced, after saving what can be saved.
        """
        if self._desk is not None:
            await self._desk.run(self._check)

    def _check(self) -> None:
        if self._connection is not None:
            self._stand(self._connection)

    def _stand(self, connection: sqlite3.Connection) -> None:
        """Raise where nobody would find again what this connection writes."""
        if self._footing is None or not (lost := self._footing.look()):
            return
        if not self._gone:
            self._gone = f"{lost} while it was in use; {self._footing.save(connection)}"
            logger("stores").critical("%s", self._gone)
            if self._footing.cut and isinstance(self._database, Path):
                # What is left of it would open, until somebody asks for what is not.
                mark(self._database, lost)
        # Whatever comes after this is refused.
        self._in_doubt = True
        raise StoreGoneError(self._gone)

    # Reading.

    async def last_turn(self) -> int:
        """Return the number of the newest committed turn."""
        return int((await self._rows(statements.FACTS))[0][2])

    async def load(self, tasks: Sequence[TaskId]) -> list[Task]:
        """Return those of the tasks that exist, in no order."""
        return await self._load(statements.load_tasks, tasks)

    async def pruned(self, tasks: Sequence[TaskId]) -> list[TaskId]:
        """Return those of the tasks that were removed of late, in no order."""
        found: list[TaskId] = []
        for chunk in statements.in_chunks(tasks):
            rows = await self._rows(*_filled(statements.pruned, chunk))
            found += [TaskId(row[0]) for row in rows]
        return found

    async def load_keys(self, keys: Sequence[str]) -> list[Task]:
        """Return the tasks that hold these keys, in no order."""
        return await self._load(statements.load_keys, [key for key in keys if key])

    async def running(self) -> list[Task]:
        """Return every task in state `running`, by id."""
        found: list[Task] = []
        while True:
            after = found[-1].spec.id if found else b""
            chunk = await self._tasks(statements.RUNNING, (after,))
            found += chunk
            if len(chunk) < statements.ROWS_MAX:
                return found

    async def classes(self) -> list[str]:
        """Return the requirement classes that have claimable tasks, in order."""
        return msgspec.json.decode((await self._rows(statements.CLASSES))[0][0], type=list[str])

    async def ready(self, needs: str, *, after: tuple[int, bytes] | None, limit: int) -> ReadyPage:
        """Return claimable tasks of a class that stand after (rank, id) in line.

        A page may be shorter than `limit` and have `more`: it ends after `READY_BYTES_MAX`.
        """
        rank, last = after if after is not None else (-(1 << 63), b"")
        found: list[Task] = []
        payload_bytes = 0
        while payload_bytes < READY_BYTES_MAX:
            asked = min(statements.ROWS_MAX, limit + 1 - len(found))
            chunk = await self._tasks(statements.READY, (needs, rank, last, asked))
            found += chunk
            if len(found) > limit:
                return ReadyPage(found[:limit], more=True)
            if len(chunk) < asked:
                return ReadyPage(found, more=False)
            payload_bytes += sum(len(task.spec.payload.data) for task in chunk)
            rank, last = rank_of(chunk[-1].spec), chunk[-1].spec.id
        return ReadyPage(found, more=True)

    async def due(self, until_ms: int, *, limit: int) -> list[Task]:
        """Return delayed tasks that fell due at or before `until_ms`, earliest first."""
        found: list[Task] = []
        due_ms, last = 0, b""
        while len(found) < limit:
            asked = min(statements.ROWS_MAX, limit - len(found))
            chunk = await self._tasks(statements.DUE, (due_ms, last, until_ms, asked))
            found += chunk
            if len(chunk) < asked:
                break
            due_ms, last = chunk[-1].life.due_ms, chunk[-1].spec.id
        return found

    async def next_due_ms(self) -> int:
        """Return when the next delayed task falls due, 0 for never."""
        return int((await self._rows(statements.NEXT_DUE))[0][0])

    async def worker_rows(self) -> list[WorkerRow]:
        """Return all workers ever seen, by identity."""
        return [WorkerRow(*row) for row in await self._rows(statements.WORKERS)]

    async def queue_rows(self) -> list[QueueRow]:
        """Return the queues of which something is, or was, wanted, by name."""
        rows = await self._rows(statements.QUEUES)
        return [QueueRow(name, paused == 1) for name, paused in rows]

    async def load_code(self, digest: bytes) -> bytes | None:
        """Return the bytes of a pickled function, None where they are not here."""
        found = await self._rows(statements.CODE, (digest,))
        return found[0][0] if found else None

    async def kept_code(self, digests: Sequence[bytes]) -> list[bytes]:
        """Return those of the digests whose bytes are here, in no order."""
        found: list[bytes] = []
        for chunk in statements.in_chunks(digests):
            found += [row[0] for row in await self._rows(*_filled(statements.kept_code, chunk))]
        return found

    async def _load(self, sql: Callable[[int], str], wanted: Sequence[Any]) -> list[Task]:
        found: list[Task] = []
        for chunk in statements.in_chunks(wanted):
            found += await self._tasks(*_filled(sql, chunk))
        return found

    async def _tasks(self, sql: str, parameters: Sequence[Any]) -> list[Task]:
        return tasks_of(*(await self._rows(sql, parameters))[0])

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return await self._run(partial(self._read, sql, parameters))

    def _read(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        connection = self._usable()
        try:
            return connection.execute(sql, parameters).fetchall()
        except CONTENT_ERRORS as error:
            raise judge(error, rolled_back=True) from error
        except sqlite3.Error as error:
            judged = unreadable(self._database, error)
            if isinstance(judged, StoreCorruptError):
                self._damage = judged
            raise judged from error

    # Calls.

    async def _run(self, call: Callable[[], T]) -> T:
        if self._desk is None:
            raise StoreDoubtError("the store is not open")
        return await self._desk.run(call)

    def _usable(self) -> sqlite3.Connection:
        if self._checkpoints is not None and (error := self._checkpoints.damage) is not None:
            self._damage = damaged(self._database, error)
        if self._damage is not None:
            raise self._damage
        if self._in_doubt or self._connection is None:
            raise StoreDoubtError("an earlier turn is in doubt: close the store and open it again")
        return self._connection


def _filled(sql: Callable[[int], str], chunk: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the statement for a chunk and its parameters, padded with what no row has."""
    size = statements.rows_for(len(chunk))
    return sql(size), [*chunk, *[0] * (size - len(chunk))]


def _roll_back(connection: sqlite3.Connection) -> bool:
    """Return whether the transaction is surely rolled back."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return not connection.in_transaction
