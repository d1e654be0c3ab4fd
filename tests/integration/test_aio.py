"""The asyncio client with real processes, whose coordinator is killed and comes again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from holdfast import connect_async
from holdfast.errors import NoCoordinatorError, TaskCancelledError
from holdfast.transports import endpoint
from tests.client.aio import LOOPS

_SECONDS = 40.0


def pid_of(state_dir: Path) -> int:
    told = endpoint.read(state_dir)
    return told.pid if told is not None and endpoint.lives(state_dir) else 0


def wait_for_file(begun: str, release: str) -> str:
    """Say that it runs, and wait for a file."""
    with open(begun, "a") as file:
        file.write("ran ")
    while not os.path.exists(release):
        time.sleep(0.01)
    return "done"


async def until(what: str, condition: Callable[[], object]) -> None:
    async with asyncio.timeout(_SECONDS):
        while not condition():  # noqa: ASYNC110  # what only another process shows
            await asyncio.sleep(0.01)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def survive(state_dir: Path) -> None:
    begun, release = state_dir / "begun", state_dir / "release"
    async with connect_async(state_dir=state_dir) as hf:
        assert await hf.run(pow, 2, 3) == 8
        large = os.urandom(300_000)
        running = await hf.submit(wait_for_file, str(begun), str(release))
        await until("the task runs", begun.exists)
        behind = [await hf.submit(abs, -number) for number in range(100)]
        await behind[-1].accepted
        first = pid_of(state_dir)
        os.kill(first, signal.SIGKILL)
        # It comes again by itself, and meanwhile submissions wait for it.
        meanwhile = asyncio.create_task(hf.run(abs, -1_000))
        await until("there is another coordinator", lambda: pid_of(state_dir) not in (0, first))
        release.touch()
        assert await running == "done"
        assert await asyncio.gather(*behind, meanwhile) == [*range(100), 1_000]
        assert [each async for each in hf.map(abs, numbers(300))] == [*range(300)]
        assert begun.read_text() == "ran ", "its worker went on with it"
        assert await hf.run(bytes.upper, large) == large.upper()


async def stop_what_runs(state_dir: Path) -> None:
    begun = state_dir / "begun too"
    async with connect_async(state_dir=state_dir) as hf:
        endless = await hf.submit(wait_for_file, str(begun), str(state_dir / "never"))
        await until("the task runs", begun.exists)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await endless
        with pytest.raises(TaskCancelledError):
            await endless
        assert (await hf.status(endless.id))["state"] == "cancelled"


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_coordinator_is_killed_in_the_middle_and_tasks_are_stopped(
    folder: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS):
            await survive(folder / ".holdfast")
            await stop_what_runs(folder / ".holdfast")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_nobody_at_a_url() -> None:
    async def main() -> None:
        with pytest.raises(NoCoordinatorError, match=r"http://127\.0\.0\.1:1: no coordinator"):
            async with connect_async("http://127.0.0.1:1", connect_seconds=0.2):
                pass

    asyncio.run(main())
