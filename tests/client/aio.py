"""What the tests of the asyncio client share: a loop of each kind, and waiting for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from holdfast.model.task import State
from tests.client.scripted import Scripted

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]
SECONDS = 10.0

Main = Callable[[], Coroutine[Any, Any, None]]


def drive(
    main: Main, loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
) -> None:
    """Run a test's program, and let nothing of it be left on the loop."""

    async def bounded() -> None:
        async with asyncio.timeout(5 * SECONDS):
            await main()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


async def until(what: str, condition: Callable[[], object]) -> None:
    """Let the loop run until a condition holds."""
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():  # noqa: ASYNC110  # the other end has no event for everything
                await asyncio.sleep(0.001)
    except TimeoutError:
        pytest.fail(f"waited in vain until {what}")


async def soon(awaited: Awaitable[Any]) -> Any:
    """Await something that has to come."""
    async with asyncio.timeout(SECONDS):
        return await awaited


async def settle_open(scripted: Scripted, state: State | None = None) -> None:
    """Settle all that is accepted and not settled, on this loop."""
    for task_id, spec in scripted.specs.items():
        if task_id not in scripted.ended:
            scripted.end(scripted.sessions[-1], spec, state)
    await scripted.sessions[-1].flush()


async def cut(scripted: Scripted) -> None:
    """Break the newest channel, on this loop."""
    await scripted.sessions[-1].channel.close()
