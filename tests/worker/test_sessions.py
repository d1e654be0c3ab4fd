"""One session after another: dialling, and what ends a session or the worker."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import ChannelClosedError
from holdfast.model.messages import Goodbye
from tests.worker.kit import End, Stage, begin, play


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
