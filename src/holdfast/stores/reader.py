"""Lists and stories from SQLite, on a connection of their own.

Owns the queries of people. Never writes: where the connection is its own, it cannot.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.model.ids import TaskId
from holdfast.model.limits import PAGE_ROWS_MAX
from holdfast.model.task import State, Task
from holdfast.ports import Attempt, Depth, Event, FunctionRow, Registered, TaskFilter
from holdfast.stores import statements
from holdfast.stores.connections import Database, connect, is_file
from holdfast.stores.damage import unreadable
from holdfast.stores.desk import Desk, InlineDesk, ThreadDesk
from holdfast.stores.failures import CONTENT_ERRORS, judge
from holdfast.stores.rows import tasks_of


class SQLiteReader:
    """`ports.StoreReader` over a database that a store has opened before.

    Connects at its first call. `inline` runs every call at once on the calling thread.
    """

    def __init__(self, database: Database, *, inline: bool = False) -> None:
        if not inline and not is_file(database):
            raise ConfigurationError(f"{database} is not a file: it needs inline=True")
        self._database = database
        self._inline = inline
        self._desk: Desk | None = None
        self._connection: sqlite3.Connection | None = None

    async def page(self, chosen: TaskFilter, *, before: bytes, limit: int) -> list[Task]:
        """Return tasks newest first, with ids below `before` where it is not empty.

        At most `PAGE_ROWS_MAX`, whatever `limit` says.
        """
        found: list[Task] = []
        limit = min(limit, PAGE_ROWS_MAX)
        while len(found) < limit:
            asked = min(statements.ROWS_MAX, limit - len(found))
            where, values = _where(chosen, before)
            sql = statements.packed_tasks(
                f"SELECT * FROM tasks WHERE {where} ORDER BY id DESC LIMIT ?"
            )
            rows = await self._rows(sql, (*values, asked))
            chunk = tasks_of(*rows[0])
            found += chunk
            if len(chunk) < asked:
                break
            before = chunk[-1].spec.id
        return found

    async def counts(self) -> dict[str, int]:
        """Return how many tasks are in each state, by its lower-case name."""
        found = {state.name.lower(): 0 for state in State}
        for state, count in await self._rows(statements.COUNTS):
            found[State(state).name.lower()] += count
        return found

    async def depths(self) -> list[Depth]:
        """Return what waits of each requirement class."""
        rows = await self._rows(statements.DEPTHS)
        return [
            Depth(needs, delayed == 1, tasks, int.from_bytes(first[:6], "big"))
            for needs, delayed, tasks, first in rows
        ]

    async def queued_by_class(self) -> dict[str, int]:
        """Return how many claimable tasks each requirement class has."""
        return dict(await self._rows(statements.QUEUED_BY_CLASS))

    async def functions(self, *, tasks: int, limit: int) -> list[FunctionRow]:
        """Return up to `limit` functions of the last `tasks` that ended; see `StoreReader`."""
        found = await self._rows(statements.FUNCTIONS, (*[tasks] * 4, limit))
        return [FunctionRow(*row) for row in found]

    async def events(self, task: TaskId) -> list[Event]:
        """Return the events of a task, in the order in which they were committed."""
        return [Event(*row) for row in await self._rows(statements.EVENTS, (task,))]

    async def attempts(self, task: TaskId) -> list[Attempt]:
        """Return the former attempts of a task, by fence."""
        return [Attempt(*row) for row in await self._rows(statements.ATTEMPTS, (task,))]

    async def is_pruned(self, task: TaskId) -> bool:
        """Whether a task was removed of late."""
        return bool(await self._rows(statements.pruned(1), (task,)))

    async def registered(self, id: bytes) -> Registered | None:
        """Return a registered function."""
        rows = await self._rows(statements.REGISTERED, (id,))
        return Registered(*rows[0]) if rows else None

    async def all_registered(self, *, name: str, before: bytes, limit: int) -> list[Registered]:
        """Return registered functions, newest first; `name` "" for all."""
        values = (name, name, before, before, limit)
        return [Registered(*row) for row in await self._rows(statements.ALL_REGISTERED, values)]

    async def close(self) -> None:
        """End after the calls that wait. A lent connection stays open."""
        desk, self._desk = self._desk, None
        if desk is not None:
            await desk.run(self._close)
            await desk.close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection is not self._database:
            connection.close()

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        if self._desk is None:
            self._desk = InlineDesk() if self._inline else ThreadDesk("holdfast-reader")
        call: Callable[[], list[Any]] = partial(self._read, sql, parameters)
        return await self._desk.run(call)

    def _read(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        try:
            if self._connection is None:
                self._connection = connect(self._database)
                if self._connection is not self._database:
                    self._connection.execute("PRAGMA query_only = ON")
            return self._connection.execute(sql, parameters).fetchall()
        except CONTENT_ERRORS as error:
            raise judge(error, rolled_back=True) from error
        except sqlite3.Error as error:
            raise unreadable(self._database, error) from error


def _where(chosen: TaskFilter, before: bytes) -> tuple[str, list[Any]]:
    """Return the condition of a page and its values. Fragments are ours, values are bound."""
    fragments = ["1"]
    values: list[Any] = []

    def add(fragment: str, *given: Any) -> None:
        fragments.append(fragment)
        values.extend(given)

    if before:
        add("id < ?", before)
    if chosen.id_low:
        add("id >= ?", chosen.id_low)
    if chosen.id_high:
        add("id <= ?", chosen.id_high)
    if chosen.states:
        add(f"state IN ({','.join('?' * len(chosen.states))})", *map(int, chosen.states))
    for column, word in (
        ("function", chosen.function),
        ("queue", chosen.queue),
        ("key", chosen.key),
    ):
        if word:
            add(f"{column} = ?", word)
    if chosen.submitted_low_ms:
        add("submitted_ms >= ?", chosen.submitted_low_ms)
    if chosen.submitted_high_ms:
        add("submitted_ms < ?", chosen.submitted_high_ms)
    for name, value in chosen.meta:
        # Joined, and not a path: a name may have any sign in it.
        add("EXISTS (SELECT 1 FROM json_each(meta) WHERE key = ? AND value = ?)", name, value)
    if chosen.tag:
        add("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", chosen.tag)
    return " AND ".join(fragments), values
