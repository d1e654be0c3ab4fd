"""What stops, recalls and wishes do to the leases of a worker, wherever their attempts are."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.model.limits import CANCEL_GRACE_SECONDS
from holdfast.model.messages import Draining, Ended, Started
from holdfast.model.outcome import OutcomeKind
from holdfast.model.task import Wanted
from tests.core.wording import recall, started, task, token
from tests.worker.kit import Stage, begin, learn, play, two_in_a_lane


def test_a_recalled_order_is_returned_where_it_has_not_begun() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, 3)
        await stage.engine.did("hand", 2)
        assert await session.hear(Started) == started(1)
        assert await session.hear(Started) == started(2)
        await session.say(recall(3), recall(1), recall(77))
        assert await session.hear(Started) == started(1)
        await session.hear_ended(3, OutcomeKind.RETURNED)

    play(scene)


def test_an_order_behind_another_in_a_lane_can_be_recalled() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await learn(stage, session)
        await session.assign(1, 2, 3)
        await stage.engine.did("hand", 3)
        await session.say(recall(2))
        await session.hear_ended(2, OutcomeKind.RETURNED)
        assert stage.engine.runs == {900: 1, 1: 1}
        stage.engine.end(1)
        await session.hear_ended(1)
        assert stage.engine.runs[3] == 1

    play(scene, slots=1)


def test_a_cancelled_attempt_is_interrupted_and_killed_after_the_grace() -> None:
    async def scene(stage: Stage) -> None:
        session = await two_in_a_lane(stage)
        now = asyncio.get_running_loop().time()
        await session.wish(1, Wanted.CANCEL, 1)
        await stage.engine.did("interrupt", 1)
        await stage.engine.did("kill", 0)
        assert asyncio.get_running_loop().time() - now >= CANCEL_GRACE_SECONDS
        assert await session.hear(Started) == started(1)
        message = await session.hear_ended(1, OutcomeKind.CRASHED)
        assert message.failure is not None
        assert "SIGKILL" in message.failure.evidence
        assert session.last is not None
        assert stage.engine.runs == {900: 1, 1: 1, 2: 1}  # its neighbour lives on

    play(scene, slots=1)


def test_a_wish_to_run_clears_the_kill() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        await session.wish(1, Wanted.CANCEL, 1)
        await stage.engine.did("interrupt", 1)
        await session.wish(1, Wanted.RUN, 2)
        for _ in range(20):
            await asyncio.sleep(1)
            await session.say()
        assert ("kill", 0) not in stage.engine.log
        stage.engine.end(1)
        assert await session.hear(Started)
        await session.hear_ended(1)

    play(scene)


@pytest.mark.parametrize("wanted", [Wanted.PAUSE, Wanted.CANCEL])
def test_a_wish_returns_what_has_not_started(wanted: Wanted) -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2)
        await stage.engine.did("hand", 1)
        await session.wish(2, wanted, 1)
        await session.hear_ended(2, OutcomeKind.RETURNED)

    play(scene, slots=1)


def test_a_suspect_is_not_returned_as_if_it_had_never_run() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, 3, 4)
        await stage.engine.did("hand", 2)
        for number in (1, 2):
            assert await session.hear(Started) == started(number)
        stage.engine.deaf = True
        stage.engine.fall()
        await session.say(recall(1), recall(2), recall(3))
        for number in (1, 2):
            assert await session.hear(Started) == started(number)
        await session.hear_ended(3, OutcomeKind.RETURNED)
        await session.wish(1, Wanted.PAUSE, 1)
        await session.hear_ended(1, OutcomeKind.STOPPED)
        stage.agent.drain(30)
        assert await session.hear(Draining)
        await session.hear_ended(2, OutcomeKind.STOPPED)
        await session.hear_ended(4, OutcomeKind.RETURNED)

    play(scene)


def test_a_pause_lets_a_started_attempt_end() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await stage.engine.did("hand", 1)
        await session.wish(1, Wanted.PAUSE, 1)
        await asyncio.sleep(8)
        assert stage.engine.log == [("hand", 1)]
        stage.engine.end(1)
        assert await session.hear(Started)
        await session.hear_ended(1)

    play(scene)


def test_a_stopped_lease_is_ended_and_nothing_is_said_of_it() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1, 2, 3)
        await stage.engine.did("hand", 2)
        await session.stop(1)
        await session.stop(3)
        await stage.engine.did("interrupt", 1)
        stage.engine.report(Ended(task(1), token(1), OutcomeKind.RAISED), "big-result")
        stage.engine.end(2)
        await session.hear_ended(2)
        await session.assign(4)
        await stage.engine.did("hand", 4)
        assert 3 not in stage.engine.runs
        assert stage.counters.get("worker.outcomes_unwanted") == 1

    play(scene)


def test_a_stop_in_the_same_breath_as_its_order() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        await session.assign(1)
        await session.stop(1)
        await session.assign(2)
        await stage.engine.did("hand", 2)
        assert stage.engine.runs == {2: 1}

    play(scene)
