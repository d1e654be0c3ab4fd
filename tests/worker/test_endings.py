"""What survives: outcomes, through cuts and deaths; and the bounds of what is said at once."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.model.messages import Ended, Started
from holdfast.model.outcome import Answer
from holdfast.model.task import Phase
from tests.core.wording import number_of, said, started, token
from tests.worker.kit import Session, Stage, begin, cut, play, two_in_a_lane

# --- The spool ---------------------------------------------------------------------------------


def test_outcomes_of_a_long_cut_survive_the_death_of_the_worker() -> None:
    numbers = range(1, 101)

    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(*numbers, concurrent=True)
        await stage.engine.did("hand", 100)
        await cut(stage, session)
        stage.engine.end(*numbers)
        await asyncio.sleep(0.5)
        assert stage.spool.kept == {}
        await stage.spool.holds(100)
        await asyncio.sleep(0)
        assert stage.guard.named("spooled") == list(numbers)
        running.cancel()
        await asyncio.wait([running])

        stage.start()
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, outcomes = await again.hello()
        assert (hello.incarnation, hello.store, hello.held) == (2, "store-a", ())
        assert [number_of(each.token) for each in outcomes] == list(numbers)
        await again.welcome(*(said(n, Answer.SETTLED) for n in numbers), epoch=2)
        await stage.spool.holds(0)
        assert stage.engine.runs == {}
        assert stage.guard.named("done") == list(numbers)

    play(scene, concurrent_slots=100)


def test_a_short_cut_writes_nothing_to_disk() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        session.end.cut()
        await stage.cut_off()
        stage.engine.end(1)
        again = await stage.coordinator.session()
        await again.hello()
        await asyncio.sleep(0.6)
        await again.welcome(said(1, Answer.SETTLED), epoch=2)
        await asyncio.sleep(5)
        assert stage.spool.saves == 0

    play(scene)


def test_a_spool_that_fails_is_tried_again() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2)
        await stage.engine.did("hand", 2)
        await cut(stage, session)
        stage.spool.failures = 2
        stage.engine.end(1)
        await asyncio.sleep(2)
        stage.engine.end(2)
        await stage.spool.holds(2)

    play(scene)


async def saving(stage: Stage) -> Session:
    """Return a new session, not welcomed yet, whose hello names outcome 1 while it is saved."""
    session = await begin(stage)
    await session.assign(1, 2)
    await stage.engine.did("hand", 2)
    await cut(stage, session)
    stage.spool.gate = asyncio.Event()
    stage.engine.end(1)
    await stage.spool.saving.wait()
    stage.coordinator.down = False
    again = await stage.coordinator.session()
    _, outcomes = await again.hello()
    assert [number_of(each.token) for each in outcomes] == [1]
    return again


@pytest.mark.parametrize("failures", [0, 1])
def test_an_outcome_answered_while_it_is_saved_is_forgotten_on_disk_and_by_the_guard(
    failures: int,
) -> None:
    async def scene(stage: Stage) -> None:
        again = await saving(stage)
        await again.welcome(said(1, Answer.SETTLED), said(2, Answer.KEEP), epoch=2)
        stage.engine.end(2)
        await again.hear_ended(2)
        assert stage.guard.named("done") == [1]
        assert stage.spool.gate is not None
        stage.spool.forget_failures = failures
        stage.spool.gate.set()
        await asyncio.sleep(8)
        # The other one came meanwhile, and is not answered yet.
        assert list(stage.spool.kept) == [token(2)]
        await again.settle(2)
        await stage.spool.holds(0)
        assert stage.guard.named("spooled") == [2]
        assert stage.guard.named("done") == [1, 2]

    play(scene)


def test_an_outcome_answered_while_the_disk_fails_is_not_saved_again() -> None:
    async def scene(stage: Stage) -> None:
        again = await saving(stage)
        stage.spool.failures = 1
        await again.welcome(said(1, Answer.SETTLED), said(2, Answer.KEEP), epoch=2)
        await asyncio.sleep(0.1)
        assert stage.spool.gate is not None
        stage.spool.gate.set()
        await asyncio.sleep(60)
        assert (stage.spool.failures, stage.spool.saves, stage.spool.kept) == (0, 0, {})
        assert stage.guard.named("spooled") == []

    play(scene)


def test_outcomes_that_another_store_does_not_know_are_kept() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2)
        await stage.engine.did("hand", 2)
        await cut(stage, session)
        stage.engine.end(1)
        await stage.spool.holds(1)
        stage.coordinator.down = False
        other = await stage.welcomed(
            said(1, Answer.UNKNOWN), said(2, Answer.UNKNOWN), epoch=1, store=("store-b", 1)
        )
        stage.engine.end(2)
        await other.assign(3)
        await stage.engine.did("hand", 3)
        stage.engine.end(3)
        await other.hear_ended(3)
        await other.settle(3)
        # What is spooled belongs to the first store: that is what a new life has to name.
        assert stage.home.remembered == ("store-a", 1)
        other.end.cut()
        own = await stage.coordinator.session()
        hello, outcomes = await own.hello()
        assert (hello.store, outcomes) == ("store-b", [])
        # Else it would start them again: it gave them, and the hello named another store.
        named = [(number_of(each.token), each.phase, each.stranger) for each in hello.held]
        assert named == [(1, Phase.STARTED, True), (2, Phase.STARTED, True)]
        await own.welcome(said(1, Answer.KEEP), said(2, Answer.KEEP), epoch=2)
        await own.hear_ended(1)
        await own.hear_ended(2)

    play(scene)


@pytest.mark.parametrize("spooled", [True, False], ids=["spooled", "running"])
def test_a_new_life_knows_whose_outcomes_it_inherited(spooled: bool) -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        await cut(stage, session)
        if spooled:
            stage.engine.end(1)
            await stage.spool.holds(1)
        stage.coordinator.down = False
        other = await stage.welcomed(said(1, Answer.UNKNOWN), epoch=1, store=("store-b", 1))
        await asyncio.sleep(1)
        await cut(stage, other)
        if not spooled:
            stage.engine.end(1)
            await stage.spool.holds(1)
        await stage.end()
        stage.start()
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, outcomes = await again.hello()
        assert (hello.store, [number_of(each.token) for each in outcomes]) == ("store-a", [1])
        await again.welcome(said(1, Answer.SETTLED), epoch=2)
        await stage.spool.holds(0)
        await cut(stage, again)
        # Nothing is left of the first store: the present one is whose outcomes come from now on.
        stage.coordinator.down = False
        await stage.welcomed(epoch=2, store=("store-b", 1))
        await asyncio.sleep(1)
        assert stage.home.remembered == ("store-b", 1)

    play(scene)


# --- Strangers ---------------------------------------------------------------------------------


def test_a_stranger_outlives_many_sessions_with_another_store() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        session.end.cut()
        for epoch in (1, 2, 3):
            other = await stage.coordinator.session()
            hello, _ = await other.hello()
            assert [number_of(each.token) for each in hello.held] == [1]
            assert hello.held[0].stranger == (hello.store == "store-b")
            await other.welcome(said(1, Answer.UNKNOWN), epoch=epoch, store=("store-b", 1))
            # It has one of the two slots still, and says so.
            await other.frame()
            assert other.last is not None
            assert other.last.view is not None
            assert other.last.view.strangers == 1
            await other.assign(10 * epoch, 10 * epoch + 1)
            await stage.engine.did("hand", 10 * epoch)
            stage.engine.end(10 * epoch)
            await other.hear_ended(10 * epoch)
            await stage.engine.did("hand", 10 * epoch + 1)
            stage.engine.end(10 * epoch + 1)
            await other.hear_ended(10 * epoch + 1)
            await other.settle(10 * epoch, 10 * epoch + 1)
            other.end.cut()
        assert [verb for verb, _ in stage.engine.log if verb != "hand"] == []
        own = await stage.welcomed(said(1, Answer.KEEP), epoch=2)
        stage.engine.end(1)
        await own.hear_ended(1)
        assert stage.engine.runs[1] == 1

    play(scene)


def test_what_waited_in_a_lane_is_no_stranger_elsewhere() -> None:
    async def scene(stage: Stage) -> None:
        session = await two_in_a_lane(stage)
        session.end.cut()
        other = await stage.coordinator.session()
        await other.hello()
        unknown = (said(1, Answer.UNKNOWN), said(2, Answer.UNKNOWN))
        await other.welcome(*unknown, epoch=1, store=("store-b", 1))
        await asyncio.sleep(0.5)
        assert stage.guard.named("done")[-1] == 2
        stage.engine.end(1)
        await asyncio.sleep(0.5)
        # It has not begun, and the store that gave it takes it back without a charge.
        assert stage.engine.runs == {900: 1, 1: 1}
        await other.assign(3, concurrent=True)
        assert await other.hear(Started) == started(3)
        other.end.cut()
        own = await stage.coordinator.session()
        hello, _ = await own.hello()
        held = {number_of(each.token): (each.phase, each.stranger) for each in hello.held}
        assert held == {3: (Phase.STARTED, False), 1: (Phase.STARTED, True)}

    play(scene, slots=1)


# --- Bounds ------------------------------------------------------------------------------------


def test_a_coordinator_that_acknowledges_nothing_gets_no_more_than_the_window() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        numbers = range(1, 41)
        await session.assign(*numbers, concurrent=True)
        await stage.engine.did("hand", 40)
        stage.engine.end(*numbers, result_bytes=60_000)
        await asyncio.sleep(3)
        waiting = sum(map(len, session.end.inbox))
        assert 400_000 < waiting < 900_000
        heard = 0
        while heard < 40:
            while not session.read:
                session.read.extend((await session.frame()).body)
                await session.say()
            heard += isinstance(session.read.popleft(), Ended)

    play(scene, concurrent_slots=100)


def test_a_large_hello_is_read_in_pages() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        numbers = range(1, 41)
        await session.assign(*numbers, concurrent=True)
        await stage.engine.did("hand", 40)
        await cut(stage, session)
        stage.engine.end(*numbers, result_bytes=60_000)
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, outcomes = await again.hello()
        assert hello.more
        assert len(outcomes) == 40

    play(scene, concurrent_slots=100)
