"""Children that die, by every cause, and what is said of the orders they had."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from holdfast.engines.reporting import LOST_EXIT
from holdfast.model.outcome import OutcomeKind
from holdfast.ports import LaneDeath
from tests.engines.rig import Rig, is_alive, parent_of
from tests.engines.test_process import play

STATUS = 9


@pytest.mark.parametrize(
    ("body", "arguments", "number", "exit_code"),
    [
        ("kill_self", (), signal.SIGKILL, 0),
        ("segfault", (), signal.SIGSEGV, 0),
        ("exit_now", (STATUS,), 0, STATUS),
        ("exit_now", (0,), 0, 0),
        ("flood", (), signal.SIGKILL, 0),
    ],
)
def test_a_crash_costs_its_own_lane_only(
    tmp_path: Path, body: str, arguments: tuple[int, ...], number: int, exit_code: int
) -> None:
    async def scene(rig: Rig) -> None:
        before = rig.start("nothing")
        fatal = rig.start(body, *arguments)
        behind = [rig.start("witness", str(tmp_path / "ran")) for _ in range(5)]
        neighbour = rig.start("nothing", lane=1)
        death = await rig.death()
        assert death.begun == (fatal,)
        assert death.untouched == tuple(behind)
        assert (death.signal, death.exit_code) == (number, exit_code)
        assert not death.killed
        assert not death.out_of_memory
        assert (await rig.outcome(before)).kind is OutcomeKind.SUCCEEDED
        assert (await rig.outcome(neighbour)).kind is OutcomeKind.SUCCEEDED
        assert not (tmp_path / "ran").exists()
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED
        if body == "exit_now":
            assert death.last_words == "last words\n"
        if body == "segfault":
            assert "Segmentation fault" in death.last_words
            assert "in segfault" in death.last_words

    play(tmp_path, scene)


def test_a_child_without_its_sockets_is_ended(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        fatal = rig.start("close_sockets")
        death = await rig.death()
        assert death.begun == (fatal,)
        # It notices by itself, unless we were faster.
        assert (death.signal, death.exit_code) in ((signal.SIGKILL, 0), (0, LOST_EXIT))
        assert not death.killed
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


def test_a_kill_is_ours_and_takes_the_group_with_it(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        pids = tmp_path / "pids"
        running = rig.start("start_family", str(pids), True)
        behind = rig.start("nothing")
        await rig.until("the family is there", pids.exists)
        near, far, daemon = map(int, pids.read_text(encoding="utf-8").split())
        rig.engine.kill(0)
        death = await rig.death()
        assert death.killed
        assert death.signal == signal.SIGKILL
        assert (death.begun, death.untouched) == ((running,), (behind,))
        await rig.until("its group is gone", lambda: not is_alive(near))
        assert is_alive(far)
        assert is_alive(daemon)
        await rig.engine.close()
        assert not is_alive(far), "an orderly end leaves nothing behind"
        assert not is_alive(daemon)

    play(tmp_path, scene)


def test_a_lane_can_be_killed_before_it_has_a_child(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        token = rig.start("nothing")
        rig.engine.kill(0)
        death = await rig.death()
        assert death.killed
        assert (*death.begun, *death.untouched, *rig.ended) == (token,)
        rig.engine.kill(2)
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


def test_a_lane_is_back_in_a_moment(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        seconds = []
        for _ in range(5):
            await rig.run("os:getpid")
            began = time.perf_counter()
            rig.engine.kill(0)
            await rig.death()
            await rig.run("os:getpid")
            seconds.append(time.perf_counter() - began)
        # Measured at 5 ms; the bound only tells a fork from a fresh interpreter.
        assert min(seconds) < 0.05, seconds

    play(tmp_path, scene)


def test_a_fork_of_user_code_reports_nothing(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        assert await rig.value("fork_twice") > 0
        assert await rig.value("fork_twice") > 0
        assert await rig.value("echo", 1) == [[1], {}]
        assert not rig.deaths

    play(tmp_path, scene)


def test_births_that_fail_are_put_off(tmp_path: Path) -> None:
    """A child that dies before it did anything is not begun again at once, and for ever."""

    async def scene(rig: Rig) -> None:
        pids: list[int] = []
        await rig.run("nothing")
        began = time.monotonic()
        while len(pids) < 6:
            life = rig.engine._lives[0]
            assert life is not None
            await rig.until("a child is born", lambda life=life: life.pid)
            pids.append(life.pid)
            os.kill(life.pid, signal.SIGTERM)
            death: LaneDeath = await rig.death()
            assert not death.killed
            assert death.signal == signal.SIGTERM
        assert time.monotonic() - began > 0.01 * (2 + 4 + 8 + 16)
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


def test_what_a_dead_child_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        rig.start("die_while_pickled", 300_000)
        await rig.death()
        assert not list((tmp_path / "state" / "engine" / "results").iterdir())

    play(tmp_path, scene)


def test_the_death_of_a_shared_child_names_all_that_ran(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        marks = [tmp_path / f"m{n}" for n in range(3)]
        running = [rig.start("forever", str(mark), lane=2) for mark in marks]
        await rig.until("all run", lambda: all(mark.exists() for mark in marks))
        fatal = rig.start("exit_now", 1, lane=2)
        death = await rig.death()
        assert set(death.begun) == {*running, fatal}
        assert (await rig.run("fail_later", "x", lane=2)).kind is OutcomeKind.RAISED

    play(tmp_path, scene)


def test_the_death_of_the_guard_is_told_and_takes_all_with_it(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        mark = tmp_path / "mark"
        running = rig.start("forever", str(mark))
        behind = rig.start("nothing")
        marks = [tmp_path / f"beside{n}" for n in range(2)]
        beside = [(rig.start("forever", str(each), lane=2),) for each in marks]
        await rig.until("all run", lambda: all(each.exists() for each in (mark, *marks)))
        os.kill(rig.engine.guard.pid, signal.SIGKILL)
        await rig.until("it is told", lambda: rig.guard_deaths == 1)
        await rig.until("the child is gone", lambda: not is_alive(child))
        deaths = [death for _, death in rig.deaths]
        # What had begun may have run: it died of its own, and is charged.
        assert [each.begun for each in deaths if each.begun] == [(running,), *beside]
        assert not any(each.killed for each in deaths)
        assert [each.untouched for each in deaths if each.untouched] == [(behind,)]
        assert not rig.engine.hand(0, rig.order("nothing"))
        rig.engine.guard.started([running])

    play(tmp_path, scene)


def test_the_death_of_the_nursery_is_that_of_the_guard(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        os.kill(parent_of(child), signal.SIGKILL)
        await rig.until("it is told", lambda: rig.guard_deaths == 1)
        assert not is_alive(child)

    play(tmp_path, scene)


def test_an_interpreter_that_cannot_start_is_told(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        await rig.until("it is told", lambda: rig.guard_deaths == 1)

    play(tmp_path, scene, python="/bin/false")
