"""The inbox: when a turn is due."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.coordinator.inbox import Inbox
from holdfast.wiring.process import loop_factory


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, loop_factory()])
@pytest.mark.parametrize("wishes", [(0.0, 0.0), (-1.0, 60.0), (60.0, 0.0), (60.0, 0.001)])
def test_the_earliest_of_several_wishes_counts(make_loop, wishes: tuple[float, float]) -> None:
    async def scene() -> None:
        inbox = Inbox()
        for seconds in wishes:
            inbox.wake_in(seconds)
        async with asyncio.timeout(5):
            await inbox.arrival()
        inbox.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scene())
