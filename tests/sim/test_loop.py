"""The loop of the simulator: virtual time, order, parties that stall and die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from holdfast.lab.sim.loop import OutOfTimeError, Party, SimCrash, SimLoop, SpinError
from holdfast.observe import TaskSet, logger


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    made = SimLoop(steps_max=1_000_000, real_seconds_max=20.0)
    yield made
    made.close()


def never() -> bool:
    return False


class Diary:
    """What happened, and when."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.lines: list[tuple[float, str]] = []
        self.tasks = TaskSet(logger("test"))

    def note(self, what: str) -> None:
        self.lines.append((round(self._loop.time(), 6), what))

    async def tick(self, name: str, seconds: float) -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
                self.note(name)
        finally:
            self.note(f"{name} is closed")


def test_time_jumps_to_the_next_timer_and_stops_at_the_deadline(loop: SimLoop) -> None:
    diary = Diary(loop)
    loop.call_later(3600.0, diary.note, "an hour")
    loop.call_later(7200.0, diary.note, "two hours")
    assert not loop.run_until(never, deadline=5000.0)
    assert diary.lines == [(3600.0, "an hour")]
    assert loop.time() == 5000.0


def test_what_is_due_together_runs_in_the_order_of_its_making(loop: SimLoop) -> None:
    diary = Diary(loop)
    for name in "abc":
        loop.call_at(1.0, diary.note, name)
    loop.call_soon(diary.note, "now")
    loop.run_until(never, deadline=2.0)
    assert [what for _, what in diary.lines] == ["now", "a", "b", "c"]


def test_a_cancelled_timer_does_not_draw_time_along(loop: SimLoop) -> None:
    handle = loop.call_later(50.0, never)
    seen: list[float] = []
    loop.call_later(60.0, lambda: seen.append(loop.time()))
    handle.cancel()
    assert loop.run_until(lambda: bool(seen), deadline=100.0)
    assert seen == [60.0]


def test_asyncio_itself_runs_on_it(loop: SimLoop) -> None:
    diary, party = Diary(loop), Party("p", "worker")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.Event().wait()
        diary.note("timed out")
        results = await asyncio.gather(asyncio.sleep(1.0, "x"), asyncio.sleep(2.0, "y"))
        diary.note("".join(results))

    loop.call_soon(diary.tasks.start, "main", main(), context=party.context)
    loop.run_until(never, deadline=10.0)
    assert diary.lines == [(2.0, "timed out"), (4.0, "xy")]
    assert not loop.problems


def test_a_stalled_party_does_nothing_and_then_what_it_missed(loop: SimLoop) -> None:
    diary = Diary(loop)
    still, busy = Party("still", "worker"), Party("busy", "worker")
    loop.call_soon(diary.tasks.start, "a", diary.tick("still", 1.0), context=still.context)
    loop.call_soon(diary.tasks.start, "b", diary.tick("busy", 1.0), context=busy.context)
    loop.call_at(1.5, loop.stall, still, 2.0, context=loop.world)
    loop.run_until(never, deadline=4.9)
    assert [at for at, what in diary.lines if what == "still"] == [1.0, 3.5, 4.5]
    assert [at for at, what in diary.lines if what == "busy"] == [1.0, 2.0, 3.0, 4.0]
    for party in (still, busy):
        loop.kill(party)
    loop.run_until(lambda: True, deadline=loop.time())


def test_a_killed_party_does_nothing_more_to_the_world(loop: SimLoop) -> None:
    party = Party("p", "worker")
    effects: list[str] = []
    tasks = TaskSet(logger("test"))

    async def write(what: str) -> None:
        party.alive()
        effects.append(what)

    async def main() -> None:
        try:
            await write("before")
            await asyncio.sleep(10.0)
        finally:
            tasks.start("child", write("a child of the end"))
            await write("finally")

    loop.call_soon(tasks.start, "main", main(), context=party.context)
    loop.call_at(2.0, effects.append, "a timer", context=party.context)
    loop.call_at(1.0, loop.kill, party, context=loop.world)
    loop.run_until(never, deadline=20.0)
    assert effects == ["before"]
    assert party.swallowed == 1
    assert not loop.problems


def test_a_party_can_die_inside_its_own_call(loop: SimLoop) -> None:
    party = Party("p", "worker")
    tasks = TaskSet(logger("test"))
    seen: list[str] = []

    async def main() -> None:
        try:
            loop.kill(party)
            party.alive()
        except Exception:
            seen.append("a crash is no error that the product can handle")
            raise

    loop.call_soon(tasks.start, "main", main(), context=party.context)
    loop.run_until(never, deadline=1.0)
    with pytest.raises(SimCrash):
        party.alive()
    assert not seen
    assert not loop.problems


def test_what_nobody_catches_is_noted(loop: SimLoop) -> None:
    def fail() -> None:
        raise ValueError("of ours")

    loop.call_soon(fail)
    loop.run_until(never, deadline=1.0)
    assert "of ours" in loop.problems[0]


def test_endless_work_within_one_instant_is_an_error(loop: SimLoop) -> None:
    def spin() -> None:
        loop.call_soon(spin)

    loop.call_soon(spin)
    with pytest.raises(SpinError, match="no end"):
        loop.run_until(never, deadline=1.0)


def test_a_run_has_a_bound_of_steps() -> None:
    loop = SimLoop(steps_max=100, real_seconds_max=20.0)

    def again() -> None:
        loop.call_later(0.001, again)

    loop.call_soon(again)
    with pytest.raises(OutOfTimeError, match="100 steps"):
        loop.run_until(never, deadline=10.0)
    loop.close()


def test_a_run_has_a_bound_of_real_time() -> None:
    loop = SimLoop(steps_max=100, real_seconds_max=0.0)
    loop.call_later(1.0, never)
    with pytest.raises(OutOfTimeError, match="real time"):
        loop.run_until(never, deadline=10.0)
    loop.close()


def test_a_party_forgets_its_finished_tasks(loop: SimLoop) -> None:
    party, tasks = Party("p", "worker"), TaskSet(logger("test"))

    async def brief() -> None:
        """Nothing."""

    async def main() -> None:
        for _ in range(500):
            tasks.start("brief", brief())
            await asyncio.sleep(0.001)

    loop.call_soon(tasks.start, "main", main(), context=party.context)
    loop.run_until(never, deadline=10.0)
    assert len(party.tasks) < 100
