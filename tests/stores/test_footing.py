"""What becomes of acknowledged turns when a file of the store is taken away under it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.errors import StoreCorruptError, StoreDoubtError, StoreGoneError
from holdfast.ports import Changes
from holdfast.stores.reader import SQLiteReader
from holdfast.stores.sqlite import SQLiteStore
from tests.stores.suite import queued, task_id

Blow = Callable[[Path], None]


def remove(path: Path) -> None:
    path.unlink()


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace_by_nothing(path: Path) -> None:
    (path.parent / "other").touch()
    (path.parent / "other").replace(path)


def replace_by_what_it_was(path: Path) -> None:
    path.with_name("former").replace(path)


BLOWS = [remove, move_away, replace_by_nothing, replace_by_what_it_was]


def found_after_a_kill(database: Path, folder: Path) -> int:
    """Return how many tasks who opens the database now finds, as if its store were dead."""
    folder.mkdir()
    for path in database.parent.glob(f"{database.name}*"):
        shutil.copy(path, folder)

    async def run() -> int:
        store = SQLiteStore(folder / database.name, inline=True)
        await store.open()
        try:
            return len(await store.load([task_id(number) for number in range(1, 100)]))
        finally:
            await store.close()

    found = asyncio.run(run())
    with closing(sqlite3.connect(folder / database.name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return found


async def commit(store: SQLiteStore, turn: int) -> None:
    await store.commit(Changes(turn=turn, inserts=[queued(turn)]))


@pytest.mark.parametrize("reader_knows", [True, False])
@pytest.mark.parametrize("notice", ["commit", "check", "close"])
@pytest.mark.parametrize("blow", BLOWS)
def test_what_only_a_lost_log_held_is_saved(
    tmp_path: Path, blow: Blow, notice: str, reader_knows: bool
) -> None:
    database, wal = tmp_path / "x.db", tmp_path / "x.db-wal"

    async def run() -> None:
        store, reader = SQLiteStore(database, inline=True), SQLiteReader(database, inline=True)
        await store.open()
        if reader_knows:
            await reader.counts()
        for turn in range(1, 20):
            await commit(store, turn)
            if turn == 10:
                shutil.copy(wal, tmp_path / "former")
        blow(wal)
        if not reader_knows:
            # It makes a new file where the log was, so that one is there again.
            await asyncio.gather(reader.counts(), return_exceptions=True)
        if notice == "close":
            await store.close()
        else:
            act: Awaitable[None] = store.check() if notice == "check" else commit(store, 20)
            with pytest.raises(StoreGoneError, match=f"log {wal} was re.* was saved"):
                await act
            with pytest.raises(StoreDoubtError):
                await commit(store, 21)
            with pytest.raises(StoreGoneError, match="was saved"):
                await store.check()
        known = await asyncio.to_thread(found_after_a_kill, database, tmp_path / "killed")
        assert known == (20 if notice == "commit" else 19)
        await store.close()
        with pytest.raises(StoreGoneError):
            await store.open()
        await reader.close()

    asyncio.run(run())


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_a_log_that_is_where_it_was_is_no_news(tmp_path: Path, threads: bool, again: bool) -> None:
    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=not threads, wal_bytes_max=20_000)
        await store.check()
        for opening in range(3 if again else 1):
            await store.open()
            for turn in range(40):
                await commit(store, 40 * opening + turn + 1)
                await store.check()
            await store.close()
            await store.check()

    asyncio.run(run())


@pytest.mark.parametrize("blow", [remove, move_away, replace_by_nothing])
def test_nothing_is_acknowledged_into_a_lost_database(tmp_path: Path, blow: Blow) -> None:
    database = tmp_path / "x.db"

    async def run() -> None:
        store = SQLiteStore(database)
        await store.open()
        await commit(store, 1)
        blow(database)
        with pytest.raises(StoreGoneError, match=f"database {database} was re.*may be lost"):
            await commit(store, 2)
        await store.close()
        with pytest.raises(StoreGoneError, match=f"database {database} was re"):
            await store.open()
        assert not database.exists() or not database.stat().st_size, "no other is made there"

    asyncio.run(run())


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_database_that_was_cut_is_missed_and_kept_shut(tmp_path: Path, share: float) -> None:
    database = tmp_path / "x.db"

    async def run() -> None:
        store = SQLiteStore(database)
        await store.open()
        await commit(store, 1)
        left = int(database.stat().st_size * share)
        os.truncate(database, left)
        with pytest.raises(StoreGoneError, match=rf"was cut from \d+ to {left} .*may be lost"):
            await commit(store, 2)
        await store.close()
        with pytest.raises(StoreCorruptError, match="found earlier"):
            await SQLiteStore(database).open()

    asyncio.run(run())
