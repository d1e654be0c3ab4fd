"""What survives: outcomes through cuts and deaths, an orderly drain, and large results."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.model.messages import Draining, Ended, Goodbye, Started
from holdfast.model.outcome import Answer, OutcomeKind
from tests.core.wording import number_of, said, token
from tests.worker.kit import Stage, begin, cut, play

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
        assert (hello.store, outcomes, hello.held) == ("store-b", [], ())
        await own.welcome(epoch=2)
        await own.hear_ended(1)
        await own.hear_ended(2)

    play(scene)


# --- Draining ----------------------------------------------------------------------------------


def test_a_drain_returns_what_has_not_started_and_waits_for_the_rest() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.agent.drain(30)
        assert await session.hear(Draining)
        await session.hear_ended(2, OutcomeKind.RETURNED)
        await session.assign(3)
        await session.hear_ended(3, OutcomeKind.RETURNED)
        await session.settle(2, 3)
        assert not stage.engine.closed
        stage.engine.end(1)
        await session.hear_ended(1)
        assert stage.engine.closed
        await session.settle(1)
        assert (await session.hear(Goodbye)).code == "drained"
        await running
        assert stage.spool.saves == 0
        assert stage.engine.runs == {1: 1}

    play(scene, slots=1)


def test_what_outlives_a_drain_is_stopped_and_what_is_unanswered_is_spooled() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.agent.drain(5)
        stage.agent.drain(50)
        assert await session.hear(Draining)
        before = asyncio.get_running_loop().time()
        await session.hear_ended(1, OutcomeKind.STOPPED)
        assert 4 < asyncio.get_running_loop().time() - before < 6
        assert await session.hear(Goodbye)
        await running
        assert list(stage.spool.kept) == [token(1)]
        assert stage.guard.named("spooled") == [1]

    play(scene)


def test_a_drain_without_a_coordinator_ends_too() -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        await cut(stage, session)
        stage.agent.drain(5)
        await running
        kinds = {number_of(each.token): each.kind for each in stage.spool.load()}
        assert kinds == {1: OutcomeKind.STOPPED, 2: OutcomeKind.RETURNED}

    play(scene, slots=1)


def test_a_worker_that_drains_says_so_again_in_a_new_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        stage.agent.drain(60)
        await cut(stage, session)
        stage.coordinator.down = False
        again = await stage.coordinator.session()
        hello, _ = await again.hello()
        assert hello.draining
        await again.welcome(said(1, Answer.KEEP), epoch=2)
        assert await again.hear(Draining)
        stage.engine.end(1)
        await again.hear_ended(1)

    play(scene)


@pytest.mark.parametrize("broken", [OSError(28, "no room"), HoldfastError("no disk")])
def test_a_spool_that_fails_at_the_end_does_not_keep_the_goodbye_back(broken: Exception) -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        session = await stage.welcomed()
        await session.assign(1)
        await stage.engine.did("hand", 1)
        assert await session.hear(Started)
        stage.spool.broken = broken
        stage.agent.drain(0)
        assert await session.hear(Draining)
        await session.hear_ended(1, OutcomeKind.STOPPED)
        assert await session.hear(Goodbye)
        with pytest.raises(type(broken)):
            await running

    play(scene)


@pytest.mark.parametrize("before", [False, True])
def test_a_name_that_another_has_is_for_the_operator(before: bool) -> None:
    async def scene(stage: Stage) -> None:
        running = stage.start()
        if before:
            session = await stage.welcomed()
            await session.assign(1)
            await stage.engine.did("hand", 1)
            session.end.cut()
        session = await stage.coordinator.session()
        await session.hello()
        await session.say(Goodbye("name_taken", "give --name another"))
        with pytest.raises(ConfigurationError, match="give --name another"):
            await running
        assert stage.engine.closed
        assert list(stage.spool.kept) == ([token(1)] if before else [])

    play(scene)


def test_a_late_hello_is_said_anew() -> None:
    async def scene(stage: Stage) -> None:
        stage.start()
        session = await stage.coordinator.session()
        await session.hello()
        await session.say(Goodbye("late_hello", "a newer hello was answered"))
        await stage.welcomed()

    play(scene)


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
