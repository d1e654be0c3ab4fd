"""The process around a coordinator: its lock, the workers beside it, and its own end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.coordinator import host as rooms
from holdfast.coordinator import statedir
from holdfast.coordinator.host import Hand, Host
from holdfast.coordinator.statedir import StateLock
from holdfast.errors import (
    ConfigurationError,
    StoreCorruptError,
    StoreDoubtError,
    StoreGoneError,
)
from holdfast.lab.cluster import is_zombie_or_gone
from tests.conftest import Eventually
from tests.coordinator.stage import StageClock

LIVE = """
import fcntl, os, signal, sys
def leave(*_):
    sys.exit(0)
# Before the lock: whoever sees it held may ask us to leave.
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else leave)
os.makedirs(sys.argv[1], exist_ok=True)
lock = open(os.path.join(sys.argv[1], "lock"), "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(str(os.getpid()))
lock.flush()
while True:
    signal.pause()
"""


def command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-I", "-c", LIVE, str(home), *words]


# The lock.


def test_a_directory_has_one_coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedir, "_LOCK_SECONDS", 0.0)
    with StateLock(tmp_path / "state") as lock:
        assert lock.lost == ""
        with pytest.raises(ConfigurationError, match="already runs"), StateLock(tmp_path / "state"):
            pass
    with StateLock(tmp_path / "state"):
        pass


def test_a_deleted_directory_is_not_ours_any_more(tmp_path: Path) -> None:
    with StateLock(tmp_path / "state") as lock:
        shutil.rmtree(tmp_path / "state")
        assert "the state directory" in lock.lost
        with StateLock(tmp_path / "state") as successor:
            assert successor.lost == ""
            assert "the state directory" in lock.lost


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--state-dir"), StateLock(tmp_path / "file"):
        pass


# The hands.


def test_a_worker_is_started_once_and_leaves_when_asked(
    tmp_path: Path, eventually: Eventually
) -> None:
    home = tmp_path / "worker-0"
    hand = Hand(command(home), home, directory=tmp_path)
    assert hand.gone
    hand.look(0.0)
    pid = hand.pid
    eventually("the worker holds its home", lambda: hand.is_held)
    hand.look(1.0)
    assert hand.pid == pid
    hand.ask_to_leave()
    eventually("the worker has left", lambda: hand.gone)
    hand.kill()


def test_a_worker_that_keeps_dying_is_started_ever_more_slowly(
    tmp_path: Path, eventually: Eventually
) -> None:
    hand = Hand([sys.executable, "-I", "-c", ""], tmp_path / "worker-0", directory=tmp_path)
    starts, now = [], 0.0
    last = 0
    while len(starts) < 5 and now < 60.0:
        hand.look(now)
        if hand.pid and hand.pid != last:
            last = hand.pid
            starts.append(now)
            eventually("it has died", lambda: hand.gone)
        now += 0.1
    pauses = [round(b - a, 1) for a, b in pairwise(starts)]
    assert pauses[0] <= 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 5.0


def test_a_worker_of_a_former_coordinator_is_left_alone_until_the_end(
    tmp_path: Path, eventually: Eventually
) -> None:
    home = tmp_path / "worker-0"
    with subprocess.Popen(command(home)) as stranger:
        hand = Hand(command(home), home, directory=tmp_path)
        eventually("it holds its home", lambda: hand.is_held)
        hand.look(0.0)
        assert hand.pid == 0
        assert not hand.gone
        hand.ask_to_leave()
        assert not is_zombie_or_gone(stranger.pid), "whose pid it is was not said"
        hand.ask_to_leave(stranger.pid)
        assert stranger.wait(10) == 0
    eventually("the home is free", lambda: hand.gone)


def test_the_identity_of_a_home(tmp_path: Path) -> None:
    hand = Hand([], tmp_path, directory=tmp_path)
    assert hand.identity == ""
    (tmp_path / "identity").write_text("abc\n")
    assert hand.identity == "abc"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", ""),
        ("first\nthe limit is 24\n\n", "the limit is 24"),
        ("holdfast: the limit is 24\n2026-11-26 a line of ours\n", "holdfast: the limit is 24"),
        ("x" * 10_000, "x" * 500),
    ],
)
def test_the_end_of_a_worker_is_told_with_its_last_words(
    tmp_path: Path, eventually: Eventually, said: str, told: str
) -> None:
    never, log = tmp_path / "never.log", tmp_path / "coordinator.log"
    log.write_text("holdfast: of an earlier life\n")
    ends = f"open({str(log)!r}, 'a').write({said!r}); raise SystemExit(3)"
    command = [sys.executable, "-I", "-c", ends]
    hand = Hand(command, tmp_path / "worker-0", directory=tmp_path, logs=[never, log])
    hand.look(0.0)
    assert hand.trouble == ""
    eventually("it has ended", lambda: hand.gone)
    hand.look(1.0)
    words = f": {told} ({log})" if told else ""
    text = "the coordinator's own worker ended with exit code 3"
    assert hand.trouble == f"{text}, and is started again{words}"
    eventually("it has ended again", lambda: hand.gone)
    hand.look(2.0)
    assert hand.trouble == f"{text}, 2 times in a row, and is started again{words}"
    hand.kill()
    eventually("it is gone", lambda: hand.gone)


# The host, with a scripted coordinator.


class Reader:
    """Counts that a test gives; an exception among them is raised."""

    def __init__(self, *counts: dict[str, int] | Exception) -> None:
        self._counts = list(counts)

    async def counts(self) -> dict[str, int]:
        told = self._counts.pop(0) if len(self._counts) > 1 else self._counts[0]
        if isinstance(told, Exception):
            raise told
        return told


class Around:
    """What a host sees of its coordinator: a clock that runs with every look, clients, sessions."""

    def __init__(self) -> None:
        self.clock = StageClock()
        self.clients = 0
        self.state = self
        self.sessions: dict[str, Any] = {}
        self.damage: Exception | None = None
        self.absent = ""

    def give_up(self, damage: Exception) -> None:
        self.damage = damage


async def in_place() -> None:
    """The store's files are where they were."""


def make_host(
    tmp_path: Path,
    around: Around,
    stop: Callable[[], None],
    *,
    hands: Sequence[Hand] = (),
    counts: Sequence[dict[str, int] | Exception] = ({},),
    lock: StateLock | None = None,
    check: Callable[[], Awaitable[None]] = in_place,
    linger_seconds: float = 5.0,
) -> Host:
    return Host(
        cast("Any", around),
        cast("Any", around),
        cast("Any", Reader(*counts)),
        hands,
        lock=lock or StateLock(tmp_path),
        check=check,
        here="this boot",
        linger_seconds=linger_seconds,
        stop=stop,
    )


async def watched_until(host: Host, around: Around, stop: asyncio.Event, looks: int) -> float:
    """Watch, a second passing with each look; return when it stopped, infinity for never."""
    began = around.clock.now
    watching = asyncio.ensure_future(host.watch())
    try:
        for _ in range(looks):
            await asyncio.sleep(0.005)
            if stop.is_set():
                return around.clock.now - began
            around.clock.pass_by(1.0)
        return float("inf")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_LOOK_SECONDS", 0.001)


@pytest.mark.parametrize(
    ("clients", "counts", "linger_seconds", "ends"),
    [
        (0, [{}], 5.0, True),
        (0, [{"succeeded": 3, "failed": 1}], 5.0, True),
        (0, [{"queued": 1}], 5.0, False),
        (0, [{"paused": 1}], 5.0, False),
        (0, [StoreDoubtError("no answer"), {}], 5.0, True),
        (1, [{}], 5.0, False),
        (0, [{}], 0.0, False),
    ],
)
def test_it_ends_when_nobody_needs_it(
    tmp_path: Path,
    clients: int,
    counts: list[dict[str, int] | Exception],
    linger_seconds: float,
    ends: bool,
) -> None:
    async def scene(lock: StateLock) -> float:
        around, stop = Around(), asyncio.Event()
        around.clients = clients
        host = make_host(
            tmp_path, around, stop.set, counts=counts, lock=lock, linger_seconds=linger_seconds
        )
        return await watched_until(host, around, stop, looks=30)

    with StateLock(tmp_path) as lock:
        seconds = asyncio.run(scene(lock))
    assert (seconds < 30) is ends
    assert seconds >= linger_seconds


def test_a_damaged_store_that_it_meets_is_told_to_the_coordinator(tmp_path: Path) -> None:
    damage = StoreCorruptError("store.db is damaged")

    async def scene() -> None:
        around, stop = Around(), asyncio.Event()
        with StateLock(tmp_path) as lock:
            host = make_host(tmp_path, around, stop.set, lock=lock, counts=[damage])
            await watched_until(host, around, stop, looks=10)
        assert around.damage is damage

    asyncio.run(scene())


def test_it_ends_when_its_directory_is_deleted(tmp_path: Path) -> None:
    async def scene() -> float:
        around, stop = Around(), asyncio.Event()
        around.clients = 1
        with StateLock(tmp_path / "state") as lock:
            shutil.rmtree(tmp_path / "state")
            host = make_host(tmp_path, around, stop.set, lock=lock)
            return await watched_until(host, around, stop, looks=10)

    assert asyncio.run(scene()) < 10


def test_it_ends_when_the_files_of_its_store_are_gone(tmp_path: Path) -> None:
    async def gone() -> None:
        raise StoreGoneError("the log was removed")

    async def scene() -> tuple[float, str]:
        around, stop = Around(), asyncio.Event()
        around.clients = 1
        with StateLock(tmp_path / "state") as lock:
            host = make_host(tmp_path, around, stop.set, lock=lock, check=gone)
            return await watched_until(host, around, stop, looks=10), host.lost

    seconds, lost = asyncio.run(scene())
    assert seconds < 10
    assert lost == "the log was removed"


def test_a_killed_worker_is_followed_by_another_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_LOOK_SECONDS", 60.0)
    home = tmp_path / "worker-0"

    async def scene() -> None:
        around = Around()
        hand = Hand(command(home), home, directory=tmp_path)
        with StateLock(tmp_path) as lock:
            host = make_host(tmp_path, around, lambda: None, hands=[hand], lock=lock)
            watching = asyncio.ensure_future(host.watch())
            await until(lambda: hand.is_held)
            first = hand.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: hand.pid not in (0, first) and hand.is_held)
            await host.dismiss()
            assert hand.gone
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(scene())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what another process does
            await asyncio.sleep(0.005)


def test_who_is_in_a_hurry_does_not_wait_for_a_stubborn_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_HURRY_SECONDS", -1.0)
    home = tmp_path / "worker-0"

    async def scene() -> None:
        hand = Hand(command(home, "stubborn"), home, directory=tmp_path)
        host = make_host(tmp_path, Around(), lambda: None, hands=[hand])
        hand.look(0.0)
        await until(lambda: hand.is_held)
        host.hurry()
        await host.dismiss()
        await until(lambda: hand.gone)

    asyncio.run(scene())


def test_a_worker_that_somebody_else_started_is_dismissed_too(tmp_path: Path) -> None:
    home = tmp_path / "worker-0"

    async def scene(stranger: subprocess.Popen[bytes]) -> None:
        around = Around()
        hand = Hand(command(home), home, directory=tmp_path)
        await until(lambda: hand.is_held)
        (home / "identity").write_text("id\n")

        class Session:
            class hello:  # noqa: N801 - the name of a field
                boot = "this boot"
                pid = stranger.pid

        around.sessions["id"] = Session()
        await make_host(tmp_path, around, lambda: None, hands=[hand]).dismiss()

    with subprocess.Popen(command(home)) as stranger:
        asyncio.run(scene(stranger))
        assert stranger.wait(10) == 0


def test_the_coordinator_knows_what_became_of_a_worker_beside_it(tmp_path: Path) -> None:
    async def scene() -> None:
        around, stop = Around(), asyncio.Event()
        home = tmp_path / "worker-0"
        home.mkdir()
        (home / "identity").write_text("abc")
        killed = [sys.executable, "-I", "-c", "import os; os.kill(os.getpid(), 9)"]
        hand = Hand(killed, home, directory=tmp_path)
        with StateLock(tmp_path) as lock:
            host = make_host(tmp_path, around, stop.set, hands=[hand], lock=lock)
            watching = asyncio.ensure_future(host.watch())
            try:
                await until(lambda: "ended with signal 9" in around.absent)
                around.sessions["abc"] = object()
                await until(lambda: not around.absent)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await until(lambda: hand.gone)

    asyncio.run(scene())
