"""One session after another: dialling, and what ends a session or the worker."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import ChannelClosedError
from holdfast.model.messages import Goodbye
from holdfast.model.outcome import Answer
from holdfast.model.task import Phase
from tests.core.wording import number_of, said
from tests.worker.kit import End, Stage, begin, play, two_in_a_lane


def test_a_coordinator_that_is_down_is_dialled_again_and_again() -> None:
    async def scene(stage: Stage) -> None:
        stage.coordinator.down = True
        stage.start()
        await asyncio.sleep(60)
        assert 15 < stage.coordinator.dials < 100
        assert stage.counters.get("worker.dials_failed") == stage.coordinator.dials
        stage.coordinator.down = False
        await stage.welcomed()

    play(scene)


def test_a_dialler_with_a_bug_ends_the_worker() -> None:
    async def scene(stage: Stage) -> None:
        async def dial() -> End:
            raise ValueError("a bug of ours")

        stage.coordinator.dial = dial  # type: ignore[method-assign]  # a dialler of this test
        with pytest.raises(ValueError, match="a bug of ours"):
            await stage.start()

    play(scene)


def test_a_channel_that_cannot_be_written_ends_the_session() -> None:
    async def scene(stage: Stage) -> None:
        session = await begin(stage)
        worker_end = session.end.other

        async def send(frame: bytes) -> None:
            raise ChannelClosedError("broken pipe")

        worker_end.send = send  # type: ignore[method-assign]  # a channel of this test
        await session.assign(1)
        await stage.engine.did("hand", 1)
        again = await stage.coordinator.session()
        hello, _ = await again.hello()
        assert len(hello.held) == 1

    play(scene)


def test_a_late_hello_is_said_anew() -> None:
    async def scene(stage: Stage) -> None:
        stage.start()
        session = await stage.coordinator.session()
        await session.hello()
        await session.say(Goodbye("late_hello", "a newer hello was answered"))
        await stage.welcomed()

    play(scene)


def test_a_hello_names_as_started_only_what_a_child_has_taken_up() -> None:
    """A lane has an order ahead, and the session breaks before the lane is seen to be blocked."""

    async def scene(stage: Stage) -> None:
        session = await two_in_a_lane(stage)
        session.end.cut()
        again = await stage.coordinator.session()
        hello, _ = await again.hello()
        phases = {number_of(each.token): each.phase for each in hello.held}
        assert phases == {1: Phase.STARTED, 2: Phase.ASSIGNED}
        assert stage.guard.named("done")[-1] == 2
        stage.engine.end(1)
        await asyncio.sleep(1)
        assert 2 not in stage.engine.runs, "nothing starts before the welcome"
        await again.welcome(said(2, Answer.KEEP), said(1, Answer.KEEP), epoch=2)
        await again.hear_ended(1)
        await stage.engine.did("hand", 2)
        stage.engine.end(2)
        await again.hear_ended(2)

    play(scene, slots=1)
