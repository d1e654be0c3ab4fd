"""A damaged database is told apart from a doubt, marked, and left alone from then on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.errors import StoreCorruptError, StoreDoubtError
from holdfast.model.outcome import Encoding, Payload
from holdfast.ports import Changes, TaskFilter
from holdfast.stores import checkpoint
from holdfast.stores.connections import memory_disk
from holdfast.stores.damage import damaged, mark_of, unreadable
from holdfast.stores.reader import SQLiteReader
from holdfast.stores.sqlite import SQLiteStore
from tests.stores.suite import claimed, over, queued, spec, task_id, token

TASKS = 200
FILLER = b"y" * 3000


def spoilt(path: Path, sign: bytes = b"yyyyyyyy") -> Path:
    """Write a database whose leaves that hold the sign are noise, and return its path."""

    async def fill() -> None:
        store = SQLiteStore(path)
        await store.open()
        payload = Payload(Encoding.PICKLE, FILLER, size_bytes=len(FILLER))
        tasks = [
            replace(queued(number), spec=spec(number, payload=payload))
            for number in range(1, TASKS + 1)
        ]
        await store.commit(Changes(turn=1, inserts=tasks))
        await store.close()

    asyncio.run(fill())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    data = bytearray(path.read_bytes())
    pages = [at for at in range(size, len(data), size) if sign in data[at : at + size]]
    for at in pages:
        data[at : at + size] = b"\xa5" * size
    assert pages
    path.write_bytes(data)
    return path


async def read(store: SQLiteStore) -> None:
    await store.load([task_id(7)])


async def write(store: SQLiteStore) -> None:
    task = queued(7)
    await store.commit(Changes(turn=2, updates=[over(task, claimed(task, token(1)))]))


@pytest.mark.parametrize(("meet", "sign"), [(read, b"yyyyyyyy"), (write, task_id(7))])
def test_a_damaged_page_is_for_good(
    tmp_path: Path, meet: Callable[[SQLiteStore], Awaitable[None]], sign: bytes
) -> None:
    path = spoilt(tmp_path / "x.db", sign)

    async def run() -> None:
        store = SQLiteStore(path)
        await store.open()
        with pytest.raises(StoreCorruptError, match=r"x\.db.* is damaged \(.*malformed") as told:
            await meet(store)
        assert "Copy its directory first" in str(told.value)
        assert ".recover" in str(told.value)
        with pytest.raises(StoreCorruptError):
            await store.commit(Changes(turn=2))
        await store.close()
        with pytest.raises(StoreCorruptError, match=r"found earlier.*Remove .*\.damaged"):
            await SQLiteStore(path).open()
        mark_of(path).unlink()
        assert (await store.open()).turn == 1
        await store.close()

    asyncio.run(run())


def test_questions_meet_it_too(tmp_path: Path) -> None:
    path = spoilt(tmp_path / "x.db")

    async def run() -> None:
        reader = SQLiteReader(path)
        with pytest.raises(StoreCorruptError, match="nothing more is accepted"):
            await reader.page(TaskFilter(), before=b"", limit=TASKS)
        await reader.close()

    asyncio.run(run())
    assert "malformed" in mark_of(path).read_text()


@pytest.mark.parametrize("what", ["the head of the file", "another file"])
def test_a_file_that_does_not_open_is_told_and_not_marked(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.db"
    if what == "another file":
        path.write_bytes(b"no database " * 1000)
    else:
        data = bytearray(spoilt(path).read_bytes())
        data[:4096] = bytes(4096)
        path.write_bytes(data)
    with pytest.raises(StoreCorruptError, match="not a database"):
        asyncio.run(SQLiteStore(path).open())
    assert not mark_of(path).exists(), "every start will see it"


def test_a_checkpoint_that_meets_it_ends_the_next_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def broken(*_: object, **__: object) -> sqlite3.Connection:
        raise error

    monkeypatch.setattr(checkpoint, "connect", broken)

    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=True, wal_bytes_max=1)
        await store.open()
        await store.commit(Changes(turn=1, inserts=[queued(1)]))
        with pytest.raises(StoreCorruptError, match="malformed"):
            await store.commit(Changes(turn=2))
        await store.close()

    asyncio.run(run())


def test_what_no_file_holds_has_no_mark(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("Could not decode to UTF-8 column 'x' with text 'y'")
    with closing(memory_disk()) as disk:
        told = unreadable(disk, error)
        assert isinstance(told, StoreCorruptError)
        assert "recover" not in str(told)
        assert isinstance(unreadable(disk, sqlite3.OperationalError("locked")), StoreDoubtError)
    damaged(tmp_path / "nowhere" / "x.db", error)
    assert "cannot be marked" in caplog.text
