"""An engine without descriptors for a while: deaths are told at once, births are made up for."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.engines import forking, process
from holdfast.engines.forking import NurseryLink
from holdfast.engines.lane import Life
from holdfast.engines.packets import Charge, Exited, Forked, pack
from holdfast.engines.process import ProcessEngine
from holdfast.model.outcome import OutcomeKind
from tests.engines.rig import Rig, parent_of


def play(folder: Path, scene: Callable[[Rig], Awaitable[None]], **settings: object) -> None:
    """Run a scene with an open engine."""

    async def main() -> None:
        async with Rig(folder, **settings) as rig:
            await scene(rig)

    asyncio.run(main())


@contextmanager
def scarcity(free: int = 0) -> Iterator[None]:
    """Leave this process so many descriptors more, and no other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    taken: list[int] = []
    # Room for so many even where no number below the highest is free to be taken and given back.
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, hard))
    try:
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            for _ in range(free):
                os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("free", [0, 3])
def test_a_death_is_told_at_once_and_the_lane_gets_its_child_later(
    tmp_path: Path, free: int
) -> None:
    async def scene(rig: Rig) -> None:
        child, mark = await rig.value("pid"), tmp_path / "mark"
        before = open_descriptors()
        running = rig.start("wait_for", str(tmp_path / "never"), str(mark))
        await rig.until("it runs", mark.exists)
        with scarcity(free):
            os.kill(child, signal.SIGKILL)
            death = await rig.death()
            assert death.begun == (running,)
            assert not death.out_of_memory
            order = rig.order("nothing")
            # What the dead child had is enough for a lane, and with it for its orders.
            handed = rig.engine.hand(0, order)
            assert handed is (free > 0)
            rig.engine.interrupt(0, order.token)
            assert rig.writable == []
        if not handed:
            await rig.until("the lane has its child", lambda: rig.writable == [0])
            assert rig.engine.hand(0, order)
        assert (await rig.outcome(order.token)).kind is OutcomeKind.SUCCEEDED
        await rig.until("nothing leaked", lambda: open_descriptors() == before)

    play(tmp_path, scene)


def test_a_concurrent_lane_says_when_it_has_its_child(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        order = rig.order("nothing")
        with scarcity():
            assert not rig.engine.hand(2, order)
            assert not rig.engine.hand(2, order)
        await rig.until("it has", lambda: rig.writable == [2])
        assert rig.engine.hand(2, order)
        assert (await rig.outcome(order.token)).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


def test_a_child_that_was_asked_for_finds_a_place_for_its_pidfd(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        # Nothing was read from the nursery yet.
        with scarcity():
            for lane in (0, 1):
                assert (await rig.run("nothing", lane=lane)).kind is OutcomeKind.SUCCEEDED
        assert all(life.pidfd >= 0 for life in rig.engine._lives[:2] if life)

    play(tmp_path, scene)


def test_a_place_that_a_thread_takes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread opens something whenever a place is given up for a pidfd."""
    heard: list[tuple[int, int]] = []
    failures: list[Exception] = []
    stolen: list[int] = []

    async def main() -> None:
        link = NurseryLink(
            forked=lambda forked, pidfd: heard.append((forked.serial, pidfd)),
            exited=lambda exited: heard.append((exited.serial, -1)),
            lost=lambda: None,
            stuck=lambda: None,
            failed=failures.append,
        )
        theirs = socket.socket(fileno=os.dup(link.inherit))
        link.open()
        link.fork(charge(1), [])
        link.fork(charge(2), [])

        def close_and_lose(descriptor: int) -> None:
            os.close(descriptor)
            stolen.append(os.dup(0))

        with scarcity():
            with monkeypatch.context() as patch:
                patch.setattr(forking, "os", SimpleNamespace(close=close_and_lose, dup=os.dup))
                link._read()
                assert stolen == []
                socket.send_fds(theirs, [pack(Forked(1, 77))], [0])
                theirs.send(pack(Exited(1, 0)))
                link._read()
                assert len(stolen) == 1
            assert (heard, failures) == ([], [])
            os.close(stolen.pop())
            async with asyncio.timeout(10):
                while len(heard) < 2:  # noqa: ASYNC110 - a callback of the link fills it
                    await asyncio.sleep(0.01)
        (first, pidfd), second = heard
        assert (first, second) == (1, (1, -1))
        assert os.fstat(pidfd) == os.fstat(0)
        os.close(pidfd)
        link.close()
        theirs.close()

    before = open_descriptors()
    asyncio.run(main())
    assert failures == []
    assert open_descriptors() == before


def charge(serial: int) -> Charge:
    return Charge(
        serial=serial,
        lane=0,
        concurrent=False,
        results=b"",
        tasks_max=0,
        rss_bytes_max=0,
        follows_sources=False,
        open_files_max=0,
    )


def test_a_child_that_cannot_be_asked_for_is_asked_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "BACKOFF_SECONDS_MAX", 0.02)

    async def scene(rig: Rig) -> None:
        life = Life(lane=0, serial=99)
        before = open_descriptors()
        with scarcity(2):
            rig.engine._ask_for(life)
        assert open_descriptors() == before
        rig.engine._by_serial[99] = life
        await rig.until("it is born", lambda: life.pid)

    play(tmp_path, scene)


def test_a_lack_that_lasts_is_looked_at_once_a_second_and_no_more(tmp_path: Path) -> None:
    engine = Rig(tmp_path).engine
    engine._failures = [0, 1, 5, 100_000]
    assert [engine._backoff(lane) for lane in range(4)] == [0.0, 0.02, 0.32, 1.0]


def test_a_life_without_room_for_all_its_streams_leaves_none() -> None:
    for free in range(8):
        before = open_descriptors()
        with scarcity(free), pytest.raises(OSError, match="Too many open files"):
            Life(lane=0, serial=1)
        assert open_descriptors() == before


def test_a_fall_is_told_though_no_lane_can_have_a_child_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = False
    make = Life.__init__

    def narrow(self: Life, *, lane: int, serial: int) -> None:
        if scarce:
            raise OSError(24, "Too many open files")
        make(self, lane=lane, serial=serial)

    monkeypatch.setattr(Life, "__init__", narrow)

    async def scene(rig: Rig) -> None:
        nonlocal scarce
        child, mark = await rig.value("pid"), tmp_path / "mark"
        running = rig.start("forever", str(mark))
        await rig.until("it runs", mark.exists)
        scarce = True
        os.kill(parent_of(parent_of(child)), signal.SIGKILL)
        assert (await rig.fall())[0].begun == (running,)
        assert not rig.engine.hand(0, rig.order("nothing"))
        scarce = False
        await rig.until("the lanes have children", lambda: sorted(rig.writable) == [0, 1])
        for lane in (0, 1):
            assert (await rig.run("nothing", lane=lane)).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ProcessEngine, "_bury"),
        (ProcessEngine, "_last_of"),
        (ProcessEngine, "_watch"),
        (NurseryLink, "_keep_places"),
        (Life, "read"),
    ],
)
def test_what_breaks_in_a_callback_is_told_and_not_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        monkeypatch.setattr(owner, name, broken)
        os.kill(child, signal.SIGKILL)
        await is_told(rig)

    play(tmp_path, scene)


def test_what_breaks_while_a_new_tree_is_planted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        monkeypatch.setattr(ProcessEngine, "_bury_all", broken)
        os.kill(parent_of(parent_of(child)), signal.SIGKILL)
        await is_told(rig)

    play(tmp_path, scene)


def broken(*_: object) -> None:
    raise RuntimeError("our own fault")


async def is_told(rig: Rig) -> None:
    await rig.until("it is told", lambda: rig.failures)
    assert [str(each) for each in rig.failures] == ["our own fault"]
    assert not rig.engine.hand(1, rig.order("nothing"))
    rig.failures.clear()
