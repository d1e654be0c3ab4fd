"""Children that die, by every cause, and what is said of the orders they had."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from holdfast.engines import forking
from holdfast.engines.packets import CUT_OFF, RETIRED_EXIT, SPOILED
from holdfast.engines.reporting import LOOP_ENDED_EXIT, LOST_EXIT
from holdfast.model.outcome import OutcomeKind
from holdfast.ports import LaneDeath
from tests.engines.rig import Rig, is_alive, parent_of
from tests.engines.test_evidence import counting
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
        if body in ("kill_self", "flood"):
            assert death.last_words == (f"{SPOILED}\n" if body == "flood" else "")
        if body == "segfault":
            assert "Segmentation fault" in death.last_words
            assert "in segfault" in death.last_words

    play(tmp_path, scene)


@pytest.mark.parametrize("when", ["before its birth", "long ago", "just now"])
def test_memory_ran_out_where_the_kernel_killed_of_late(tmp_path: Path, when: str) -> None:
    """What a task has started may have been killed for it, while its child lived on."""

    async def scene(rig: Rig) -> None:
        evidence, kill = counting(tmp_path / "group")
        rig.engine._oom = evidence
        if when == "before its birth":
            await rig.run("nothing")
            kill()
            rig.start("exit_now", STATUS)
            assert not (await rig.death()).out_of_memory
        await rig.run("nothing")
        if when != "before its birth":
            kill()
        if when == "long ago":
            evidence.look()
            evidence.look()
        rig.start("kill_self")
        assert (await rig.death()).out_of_memory == (when == "just now")

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("first", "then"), [(0, "go on"), (3, "go on"), (3, "return"), (3, "exec")]
)
def test_a_child_without_its_sockets_is_ended_and_it_is_said_why(
    tmp_path: Path, first: int, then: str
) -> None:
    async def scene(rig: Rig) -> None:
        fatal = rig.start("close_sockets", first, then)
        death = await rig.death()
        assert death.begun == (fatal,)
        # It notices by itself, unless we were faster.
        assert (death.signal, death.exit_code) in ((signal.SIGKILL, 0), (0, LOST_EXIT))
        assert not death.killed
        assert death.last_words == f"my own words\n{CUT_OFF}\n"
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


@pytest.mark.parametrize("how", ["ours", "another's", "its own"])
def test_the_end_of_a_child_takes_with_it_what_its_task_started(tmp_path: Path, how: str) -> None:
    """Else the next run of the task would begin beside what is left of this one."""

    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        pids = tmp_path / "pids"
        running = rig.start("start_family", str(pids), "die 9" if how == "its own" else "hold")
        behind = rig.start("nothing")
        await rig.until("the family is there", pids.exists)
        family = list(map(int, pids.read_text(encoding="utf-8").split()))
        if how == "ours":
            rig.engine.kill(0)
        elif how == "another's":
            os.kill(child, signal.SIGKILL)
        death = await rig.death()
        assert not any(map(is_alive, family)), "gone before the death is told"
        assert death.killed is (how == "ours")
        assert death.signal == (0 if how == "its own" else signal.SIGKILL)
        assert (death.begun, death.untouched) == ((running,), (behind,))

    play(tmp_path, scene)


@pytest.mark.parametrize("code", [RETIRED_EXIT, LOST_EXIT, LOOP_ENDED_EXIT])
@pytest.mark.parametrize("lane", [0, 2])
def test_a_task_cannot_use_the_exit_codes_that_have_a_meaning_of_ours(
    tmp_path: Path, code: int, lane: int
) -> None:
    async def scene(rig: Rig) -> None:
        pids = tmp_path / "pids"
        running = rig.start("start_family", str(pids), f"die {code}", lane=lane)
        death = await rig.death()
        assert not any(map(is_alive, map(int, pids.read_text(encoding="utf-8").split())))
        assert death.begun == (running,)
        assert (death.signal, death.exit_code, death.killed) == (0, code, False)
        assert death.last_words == ""
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED

    play(tmp_path, scene)


def test_what_a_task_has_left_whose_outcome_went_nowhere_is_ended(tmp_path: Path) -> None:
    """It ended by itself, but nobody heard of that: it runs again."""

    async def scene(rig: Rig) -> None:
        for number in range(5):
            pids = tmp_path / f"pids{number}"
            running = rig.start("start_family", str(pids), "cut")
            death = await rig.death()
            assert death.begun == (running,)
            assert not any(map(is_alive, map(int, pids.read_text(encoding="utf-8").split())))

    play(tmp_path, scene)


@pytest.mark.parametrize("lane", [0, 2])
def test_what_a_task_that_ended_by_itself_has_left_lives_until_the_worker_ends(
    tmp_path: Path, lane: int
) -> None:
    async def scene(rig: Rig) -> None:
        pids, later = tmp_path / "pids", tmp_path / "later"
        await rig.run("start_family", str(pids), "leave", lane=lane)
        near, far, daemon = map(int, pids.read_text(encoding="utf-8").split())
        assert all(map(is_alive, (near, far, daemon)))
        # The kernel tells the starts of processes apart by hundredths of a second.
        await rig.run("wait_so_long", 0.03, lane=lane)
        rig.start("start_family", str(later), "die 9", lane=lane)
        await rig.death()
        assert not any(map(is_alive, map(int, later.read_text(encoding="utf-8").split())))
        await rig.until("its group is gone", lambda: not is_alive(near))
        assert is_alive(far)
        assert is_alive(daemon)
        await rig.engine.close()
        assert not is_alive(far), "an orderly end leaves nothing behind"
        assert not is_alive(daemon)

    play(tmp_path, scene)


def test_a_task_that_kills_its_parent_costs_its_own_lane_only(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        beside, mark = rig.start("wait_for", str(tmp_path / "go"), lane=1), tmp_path / "near"
        fatal = rig.start("kill_parent", str(mark))
        death = await rig.death()
        assert death.begun == (fatal,)
        assert death.signal == signal.SIGKILL
        near = int(mark.read_text(encoding="utf-8"))
        await rig.until("its group is gone", lambda: not is_alive(near))
        (tmp_path / "go").touch()
        assert (await rig.outcome(beside)).kind is OutcomeKind.SUCCEEDED
        assert (await rig.run("nothing")).kind is OutcomeKind.SUCCEEDED
        assert not rig.falls

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


@pytest.mark.parametrize(
    "body", ["stop_loop", "stop_loop_and_wait", "exit_beside", "cancel_everybody"]
)
def test_a_loop_that_ends_under_its_tasks_is_a_death_of_the_child(
    tmp_path: Path, body: str
) -> None:
    """Else all that ran beside would have failed for good, cancelled by nobody who may."""

    async def scene(rig: Rig) -> None:
        marks = [tmp_path / f"m{n}" for n in range(5)]
        running = [rig.start("forever", str(mark), lane=2) for mark in marks]
        await rig.until("all run", lambda: all(mark.exists() for mark in marks))
        fatal = rig.start(body, lane=2)
        death = await rig.death()
        # Who stopped the loop as its last act has ended by itself before.
        assert set(running) == set(death.begun) - {fatal}
        assert (fatal in death.begun) is (body != "stop_loop")
        assert (death.signal, death.exit_code) == (0, LOOP_ENDED_EXIT)
        assert "event loop" in death.last_words
        assert (await rig.run("fail_later", "x", lane=2)).kind is OutcomeKind.RAISED
        ended = await rig.run("cancel_myself", lane=2)
        assert ended.kind is OutcomeKind.RAISED
        assert not rig.deaths

    play(tmp_path, scene)


def nursery_of(child: int) -> int:
    return parent_of(parent_of(child))


@pytest.mark.parametrize("which", ["guard", "nursery"])
def test_the_death_of_guard_or_nursery_takes_all_lanes_and_a_new_tree_stands(
    tmp_path: Path, which: str
) -> None:
    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        before = rig.engine.guard.pid
        marks = [tmp_path / f"m{n}" for n in range(3)]
        running = rig.start("forever", str(marks[0]))
        behind = rig.start("nothing")
        beside = tuple(rig.start("forever", str(each), lane=2) for each in marks[1:])
        await rig.until("all run", lambda: all(each.exists() for each in marks))
        os.kill(before if which == "guard" else nursery_of(child), signal.SIGKILL)
        fall = await rig.fall()
        assert not is_alive(child)
        assert sorted(fall) == [0, 1, 2]
        # Whatever had begun may have done it; what waited behind it surely did not run.
        assert [fall[lane].begun for lane in range(3)] == [(running,), (), beside]
        assert [fall[lane].untouched for lane in range(3)] == [(behind,), (), ()]
        assert not any(death.killed or death.out_of_memory for death in fall.values())
        for lane in range(3):
            assert (await rig.run("meet", 0, str(tmp_path), "x", lane=lane)).failure is None
        assert rig.engine.guard.pid != before
        assert not is_alive(before)
        assert rig.guard_deaths == 0
        assert not rig.deaths

    play(tmp_path, scene)


def test_what_had_ended_before_a_fall_is_heard(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        done = rig.start("large_result", 300_000)
        await rig.until("it has written", lambda: list((tmp_path / "state").rglob("results/*")))
        os.kill(nursery_of(child), signal.SIGKILL)
        fall = await rig.fall()
        assert (done in rig.ended) is not (done in fall[0].begun)
        for _ in range(3):
            os.kill(nursery_of(await rig.value("pid", lane=1)), signal.SIGKILL)
            fall = await rig.fall()
            assert not any(death.begun for death in fall.values())

    play(tmp_path, scene)


def test_a_nursery_that_was_stopped_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "LOOK_SECONDS", 1.0)

    async def scene(rig: Rig) -> None:
        child = await rig.value("pid")
        nursery = nursery_of(child)
        os.kill(nursery, signal.SIGSTOP)
        os.kill(child, signal.SIGKILL)
        fall = await rig.fall()
        assert not any(death.begun for death in fall.values())
        assert not is_alive(nursery)
        # One that only takes its time is let be, for longer than a slow machine needs for this.
        monkeypatch.setattr(forking, "LOOK_SECONDS", 10.0)
        child = await rig.value("pid")
        nursery = nursery_of(child)
        os.kill(nursery, signal.SIGSTOP)
        os.kill(child, signal.SIGKILL)
        await asyncio.sleep(0.25)
        os.kill(nursery, signal.SIGCONT)
        assert (await rig.run("nothing")).failure is None
        assert not rig.falls

    play(tmp_path, scene)


def test_an_engine_can_be_closed_while_it_falls(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        child, guard = await rig.value("pid"), rig.engine.guard.pid
        # A guard that stands still keeps the next tree waiting.
        os.kill(guard, signal.SIGSTOP)
        os.kill(nursery_of(child), signal.SIGKILL)
        await rig.until("it falls", lambda: not rig.engine._tree.stands)
        assert not rig.engine.hand(0, rig.order("nothing"))
        os.kill(guard, signal.SIGCONT)
        await rig.engine.close()
        assert not is_alive(child)
        rig.engine.guard.hang_up()
        await rig.engine.guard.gone()
        assert not is_alive(guard)
        assert not rig.falls

    play(tmp_path, scene)


def test_trees_that_bear_no_child_are_given_up(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        token = rig.start("nothing")
        await rig.until("it is told", lambda: rig.guard_deaths == 1)
        assert rig.falls[0][0].untouched == (token,)
        assert not any(death.begun for fall in rig.falls for death in fall.values())
        assert not rig.engine.hand(0, rig.order("nothing"))
        rig.engine.guard.started([token])

    play(tmp_path, scene, python="/bin/false")
