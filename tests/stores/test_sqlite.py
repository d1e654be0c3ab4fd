"""The SQLite store: the suite for its three variants, and what only a file can suffer."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from holdfast.errors import (
    ConfigurationError,
    StoreDoubtError,
    StoreFullError,
    StoreRefusedError,
    StoreVersionError,
)
from holdfast.model.outcome import Encoding, Payload
from holdfast.ports import Changes, CodeRow, Receipt
from holdfast.stores.connections import memory_disk
from holdfast.stores.migrate import shipped_migrations
from holdfast.stores.reader import SQLiteReader
from holdfast.stores.sqlite import SQLiteStore
from tests.stores.suite import (
    ReaderSuite,
    StoreSuite,
    claimed,
    over,
    queued,
    succeeded,
    task_id,
    token,
    worker,
)


class FilePlace:
    """A database file in a directory."""

    def __init__(self, directory: Path, *, inline: bool) -> None:
        self._directory = directory
        self._inline = inline
        self._numbers = itertools.count()
        self.path = directory / "first.db"

    def store(self) -> SQLiteStore:
        return SQLiteStore(self.path, inline=self._inline, durability="normal")

    def reader(self) -> SQLiteReader:
        return SQLiteReader(self.path, inline=self._inline)

    def again(self) -> FilePlace:
        folder = self._directory / f"again-{next(self._numbers)}"
        folder.mkdir()
        return FilePlace(folder, inline=self._inline)

    def close(self) -> None:
        """Nothing is held."""


class MemoryPlace:
    """A disk in memory that is lent to each store."""

    def __init__(self) -> None:
        self._disk = memory_disk()
        self._others: list[MemoryPlace] = []

    def store(self) -> SQLiteStore:
        return SQLiteStore(self._disk, inline=True)

    def reader(self) -> SQLiteReader:
        return SQLiteReader(self._disk, inline=True)

    def again(self) -> MemoryPlace:
        self._others.append(MemoryPlace())
        return self._others[-1]

    def close(self) -> None:
        self._disk.close()
        for other in self._others:
            other.close()


@pytest.fixture(params=["file-threaded", "file-inline", "memory-inline"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FilePlace | MemoryPlace]:
    if request.param == "memory-inline":
        made: FilePlace | MemoryPlace = MemoryPlace()
    else:
        made = FilePlace(tmp_path, inline=request.param == "file-inline")
    yield made
    made.close()


class TestStore(StoreSuite):
    pass


class TestReader(ReaderSuite):
    pass


# --- Where it runs -------------------------------------------------------------------------------


def test_inline_never_suspends_and_starts_no_thread(tmp_path: Path) -> None:
    async def everything() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=True, wal_bytes_max=0)
        await store.open()
        await store.commit(Changes(turn=1, inserts=[queued(1)]))
        await store.load([task_id(1)])
        await store.close()

    threads = threading.active_count()
    with pytest.raises(StopIteration):
        everything().send(None)
    assert threading.active_count() == threads


def test_a_lent_disk_survives_the_death_of_its_store() -> None:
    async def run() -> None:
        disk = memory_disk()
        dead = SQLiteStore(disk, inline=True, store_id="one")
        first = await dead.open()
        await dead.commit(Changes(turn=1, inserts=[queued(1)]))
        disk.execute("BEGIN IMMEDIATE")
        disk.execute("DELETE FROM tasks")
        del dead
        store = SQLiteStore(disk, inline=True, store_id="two")
        facts = await store.open()
        assert (facts.store, facts.turn) == (first.store, 1) == ("one", 1)
        assert await store.load([task_id(1)]) == [queued(1)]
        await store.close()
        disk.close()

    asyncio.run(run())


def test_a_uri_in_memory_is_shared_and_needs_inline() -> None:
    uri = "file:shared-by-two?mode=memory&cache=shared"
    with pytest.raises(ConfigurationError, match="inline=True"):
        SQLiteStore(uri)
    with pytest.raises(ConfigurationError, match="inline=True"):
        SQLiteReader(uri)

    async def run() -> None:
        one, two = SQLiteStore(uri, inline=True), SQLiteStore(uri, inline=True)
        await one.open()
        await one.commit(Changes(turn=3, inserts=[queued(1)]))
        assert (await two.open()).turn == 3
        assert await two.load([task_id(1)]) == [queued(1)]
        await one.close()
        await two.close()

    asyncio.run(run())


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db")
        with pytest.raises(StoreDoubtError, match="not open"):
            await store.last_turn()
        await store.open()
        await store.close()
        await store.close()
        with pytest.raises(StoreDoubtError, match="not open"):
            await store.commit(Changes(turn=1))

    asyncio.run(run())


def test_a_cancelled_caller_does_not_disturb_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db")
        await store.open()
        commit = asyncio.ensure_future(store.commit(Changes(turn=1, inserts=[queued(1)])))
        await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        assert await store.commit(Changes(turn=2, inserts=[queued(2)])) == Receipt()
        assert len(await store.load([task_id(1), task_id(2)])) == 2
        await store.close()

    asyncio.run(run())


def test_too_many_calls_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db")
        await store.open()
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            calls = [asyncio.ensure_future(store.commit(Changes(turn=n))) for n in range(300)]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert isinstance(done.pop().exception(), StoreRefusedError)
            other.execute("ROLLBACK")
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert Receipt() in ended
        await store.close()

    asyncio.run(run())


# --- Opening -------------------------------------------------------------------------------------


def opening(path: Path) -> Callable[[], object]:
    async def run() -> None:
        store = SQLiteStore(path)
        await store.open()
        await store.close()

    return lambda: asyncio.run(run())


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere does not exist"):
        opening(tmp_path / "nowhere" / "x.db")()


@contextmanager
def as_another_user() -> Iterator[None]:
    """Give up the rights of root, where we have them: they are above every mode."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        Path(name).chmod(0o755)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_directory_that_cannot_be_written_is_named(folder: Path, mode: int) -> None:
    (folder / "locked").mkdir(mode=mode)
    with as_another_user(), pytest.raises(ConfigurationError, match=r"/locked cannot be written"):
        opening(folder / "locked" / "x.db")()


def test_a_directory_that_cannot_be_reached_is_named(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o000)
    with as_another_user(), pytest.raises(ConfigurationError, match=r"/in cannot be used"):
        opening(folder / "locked" / "in" / "x.db")()


def test_a_database_that_cannot_be_written_is_told_at_once(folder: Path) -> None:
    opening(folder / "x.db")()
    (folder / "x.db").chmod(0o444)
    folder.chmod(0o555)
    with as_another_user(), pytest.raises(ConfigurationError, match=f"{folder} cannot be written"):
        opening(folder / "x.db")()


def test_a_newer_schema_is_refused_with_both_numbers(tmp_path: Path) -> None:
    opening(tmp_path / "x.db")()
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as newer:
        newer.execute("UPDATE meta SET schema = 99")
    known = shipped_migrations()[-1].number
    with pytest.raises(StoreVersionError, match=rf"schema 99.*up to {known}\b"):
        opening(tmp_path / "x.db")()


def test_a_store_of_the_first_schema_keeps_its_large_results(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    task = queued(1)
    running = claimed(task, token(1))
    done = succeeded(running)
    data = bytes(range(256)) * 8

    async def write() -> None:
        store = SQLiteStore(path)
        await store.open()
        await store.commit(Changes(turn=1, inserts=[running]))
        await store.commit(Changes(turn=2, updates=[over(running, done, by=token(1))]))
        await store.close()

    async def read() -> list[Payload | None]:
        store = SQLiteStore(path)
        await store.open()
        found = await store.load([task.spec.id])
        await store.close()
        return [each.life.result for each in found]

    asyncio.run(write())
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        # As the first release wrote it: whatever its size, a result was in its row.
        older.execute("UPDATE tasks SET result = ?", (data,))
        older.execute("DROP TABLE results")
        for column in ("likeness", "meta"):
            older.execute(f"ALTER TABLE tasks DROP COLUMN {column}")
        for table in ("queues", "functions", "pruned"):
            older.execute(f"DROP TABLE {table}")
        older.execute("UPDATE meta SET schema = 1")
    assert asyncio.run(read()) == [Payload(Encoding.JSON, data, b"", 2)]


def test_the_file_is_made_as_decided(tmp_path: Path) -> None:
    opening(tmp_path / "x.db")()
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as made:
        incremental = 2
        assert made.execute("PRAGMA auto_vacuum").fetchone() == (incremental,)
        assert made.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- Faults of the disk --------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [True, False])
def test_a_full_disk_is_definite_and_ends_when_there_is_room(tmp_path: Path, inline: bool) -> None:
    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=inline)
        await store.open()
        await store.commit(Changes(turn=1, inserts=[queued(0)]))
        connection = store._connection
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 4}").fetchall()
        tasks = [
            queued(n, payload=Payload(Encoding.JSON, bytes(400), b"", 400)) for n in range(1, 99)
        ]
        with pytest.raises(StoreFullError, match="nothing was written"):
            await store.commit(Changes(turn=2, inserts=tasks))
        assert await store.last_turn() == 1
        assert await store.load([task_id(1)]) == []
        # Outcomes still fit: they change rows that are there.
        update = over(queued(0), claimed(queued(0), token(1)))
        assert await store.commit(Changes(turn=3, updates=[update])) == Receipt()
        connection.execute("PRAGMA max_page_count = 100000").fetchall()
        assert await store.commit(Changes(turn=4, inserts=tasks)) == Receipt()
        await store.close()

    asyncio.run(run())


DOUBT = """
    import asyncio, resource, sys
    from pathlib import Path
    from holdfast.errors import StoreDoubtError
    from holdfast.ports import Changes
    from holdfast.stores.sqlite import SQLiteStore
    from tests.stores.suite import queued, task_id

    async def run():
        store = SQLiteStore(Path(sys.argv[1]))
        await store.open()
        await store.commit(Changes(turn=1, inserts=[queued(0)]))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, hard))
        for turn in range(2, 99):
            tasks = [queued(turn * 100 + n) for n in range(50)]
            try:
                await store.commit(Changes(turn=turn, inserts=tasks))
            except StoreDoubtError:
                break
        for call in (store.last_turn(), store.commit(Changes(turn=99))):
            try:
                await call
            except StoreDoubtError as error:
                assert "close the store" in str(error)
            else:
                raise AssertionError("a store in doubt answered")
        await store.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        facts = await store.open()
        found = await store.load([task_id(turn * 100)])
        assert facts.turn in (turn, turn - 1), facts
        assert len(found) == (facts.turn == turn)
        await store.commit(Changes(turn=turn, inserts=[queued(7)]))
        await store.close()
        print("known")

    asyncio.run(run())
"""


def test_a_broken_commit_is_in_doubt_until_the_store_is_reopened(tmp_path: Path) -> None:
    assert python(DOUBT, tmp_path / "x.db").stdout == "known\n"


def test_a_failed_fsync_ends_the_process(tmp_path: Path) -> None:
    class Ended(BaseException):
        pass

    def die(text: str) -> NoReturn:
        raise Ended(text)

    class Broken:
        """A connection whose commits cannot be made durable."""

        in_transaction = False

        def execute(self, sql: str, *values: object) -> object:
            if sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return self

        rowcount = 1

        def close(self) -> None:
            pass

    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=True, die=die)
        await store.open()
        whole = store._connection
        store._connection = Broken()  # type: ignore[assignment]  # a double
        with pytest.raises(Ended, match="durable"):
            await store.commit(Changes(turn=1))
        store._connection = whole
        await store.close()

    asyncio.run(run())


def test_a_database_held_by_another_is_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.stores.connections.BUSY_SECONDS", 0.01)

    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=True)
        await store.open()
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreDoubtError, match="locked"):
                await store.commit(Changes(turn=1))
            other.execute("ROLLBACK")
        await store.close()
        assert (await store.open()).turn == 0
        await store.close()

    asyncio.run(run())


def salt_of(wal: Path) -> bytes:
    """Return what names a round of a log: it is another one each time that it begins anew.

    Source: the file format of SQLite, section 4.1.
    """
    with wal.open("rb") as file:
        return file.read(24)[16:]


@pytest.mark.parametrize("inline", [True, False])
def test_the_log_stays_short(tmp_path: Path, inline: bool) -> None:
    bound = 200_000

    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=inline, wal_bytes_max=bound)
        await store.open()
        sizes, rounds = [], set()
        for turn in range(120):
            tasks = [queued(turn * 50 + n) for n in range(50)]
            await store.commit(Changes(turn=turn, inserts=tasks))
            sizes.append((tmp_path / "x.db-wal").stat().st_size)
            rounds.add(salt_of(tmp_path / "x.db-wal"))
        assert max(sizes) < 10 * bound
        assert len(rounds) > 1
        await store.close()
        assert not (tmp_path / "x.db-wal").exists()

    asyncio.run(run())


def test_the_log_keeps_its_room_but_not_that_of_a_giant_turn(tmp_path: Path) -> None:
    bound, giant = 400_000, 4_000_000

    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", inline=True, wal_bytes_max=bound)
        await store.open()
        sizes, rounds = [], set()
        for turn in range(1, 60):
            code = b"x" * (giant if turn == 30 else 1)
            row = CodeRow(digest=turn.to_bytes(32, "big"), data=code)
            await store.commit(Changes(turn=turn, code=[row]))
            sizes.append((tmp_path / "x.db-wal").stat().st_size)
            rounds.add(salt_of(tmp_path / "x.db-wal"))
        cuts = [n for n, (before, after) in enumerate(itertools.pairwise(sizes)) if after < before]
        assert len(cuts) == 1
        assert len(rounds) > 5
        assert sizes[-1] <= bound
        await store.close()

    asyncio.run(run())


def test_a_long_reader_keeps_the_log_but_stops_no_turn(tmp_path: Path) -> None:
    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db", wal_bytes_max=20_000)
        await store.open()
        await store.commit(Changes(turn=1, inserts=[queued(0)]))
        reader = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tasks").fetchall()
        for turn in range(2, 6):
            tasks = [queued(turn * 50 + n) for n in range(50)]
            assert await store.commit(Changes(turn=turn, inserts=tasks)) == Receipt()
        held = (tmp_path / "x.db-wal").stat().st_size
        assert held > 20_000
        reader.execute("ROLLBACK")
        reader.close()
        await store.commit(Changes(turn=6))
        await store.close()
        assert not (tmp_path / "x.db-wal").exists()

    asyncio.run(run())


# --- Death ---------------------------------------------------------------------------------------

WRITER = """
    import asyncio, sys
    from pathlib import Path
    from holdfast.ports import Changes
    from holdfast.stores.sqlite import SQLiteStore
    from tests.stores.suite import claimed, over, queued, token

    async def run():
        store = SQLiteStore(Path(sys.argv[1]), wal_bytes_max=100_000)
        await store.open()
        for turn in range(1, 100_000):
            task = queued(turn)
            await store.commit(Changes(turn=2 * turn - 1, inserts=[task]))
            update = over(task, claimed(task, token(turn)))
            await store.commit(Changes(turn=2 * turn, updates=[update]))
            print(2 * turn, flush=True)

    asyncio.run(run())
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 400])
def test_acknowledged_turns_survive_a_kill(tmp_path: Path, acknowledged: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "x.db")],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledged):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = max([last, *map(int, writer.stdout.read().split()[:-1])])

    async def run() -> None:
        store = SQLiteStore(tmp_path / "x.db")
        facts = await store.open()
        assert facts.turn >= last
        ids = [task_id(number) for number in range(1, last // 2 + 1)]
        found = {task.spec.id: task for task in await store.load(ids)}
        assert set(found) == set(ids)
        for number, each in enumerate(ids, 1):
            assert found[each] == claimed(queued(number), token(number))
        await store.commit(Changes(turn=facts.turn + 1, workers=[worker(1)]))
        await store.close()

    asyncio.run(run())


def python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program that can import the tests, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
