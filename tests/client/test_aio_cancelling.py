"""Who is cancelled while awaiting a task cancels the task: timeouts, groups, shields, scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from holdfast.client.aio_client import AsyncClient
from holdfast.errors import TaskCancelledError
from holdfast.model.ids import TaskId, id_text
from holdfast.model.messages import SetWanted
from holdfast.model.task import Wanted
from tests.client import work
from tests.client.aio import LOOPS, cut, drive, settle_open, soon, until
from tests.client.scripted import Scripted, async_client_of
from tests.client.work import Refusal

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def scripted() -> Scripted:
    made = Scripted()
    made.settling = False
    return made


def wished(scripted: Scripted) -> list[TaskId]:
    return [message.task for message in scripted.read(SetWanted)]


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_timeout_cancels_what_was_awaited(
    scripted: Scripted, tmp_path: Path, loop_factory: Loop
) -> None:
    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await future
            with pytest.raises(TaskCancelledError):
                await soon(future)
            assert future.cancelled()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.run(work.double, 2), 0.05)

    drive(main, loop_factory)
    (first, second) = scripted.specs
    assert wished(scripted) == [first, second]
    assert {message.wanted for message in scripted.read(SetWanted)} == {Wanted.CANCEL}


def test_what_runs_is_asked_to_stop_too(scripted: Scripted, tmp_path: Path) -> None:
    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 1)
            await soon(future.accepted)
            (task_id,) = scripted.specs
            scripted.states[task_id] = "running"
            waiting = asyncio.create_task(client.run(work.double, 2))
            await until("both are accepted", lambda: len(scripted.specs) == 2)
            assert await future.cancel() is True
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not future.done(), "it runs, and may still end otherwise"
            await settle_open(scripted)
            assert await soon(future) == 2

    drive(main)
    assert not any(message.waiting for message in scripted.read(SetWanted))


def test_a_group_that_fails_cancels_the_tasks_of_its_members(
    scripted: Scripted, tmp_path: Path
) -> None:
    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:

            async def fail_once_all_are_kept() -> None:
                await until("all are accepted", lambda: len(scripted.specs) == 3)
                raise Refusal

            async def together() -> None:
                async with asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(client.run(work.double, number))
                    group.create_task(fail_once_all_are_kept())

            with pytest.raises(ExceptionGroup) as caught:
                await together()
            assert caught.group_contains(Refusal)
            assert len(caught.value.exceptions) == 1

    drive(main)
    assert sorted(wished(scripted)) == sorted(scripted.specs)


def test_a_shielded_task_goes_on(scripted: Scripted, tmp_path: Path) -> None:
    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 4)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await asyncio.shield(future)
            await settle_open(scripted)
            assert await soon(future) == 8

    drive(main)
    assert not wished(scripted)


def test_what_nobody_awaits_and_what_is_of_others_goes_on(
    scripted: Scripted, tmp_path: Path
) -> None:
    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            await client.submit(work.double, 1)
            submitted = await client.submit(work.double, 2)
            found = await client.future(submitted.id)
            waiting = asyncio.create_task(asyncio.wait_for(found, 60))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await settle_open(scripted)
            assert await soon(submitted) == 4

    drive(main)
    assert len(scripted.specs) == 2
    assert not wished(scripted)


def test_one_that_is_not_accepted_yet_is_cancelled_once_it_is(
    scripted: Scripted, tmp_path: Path
) -> None:
    scripted.accepting = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await client.run(work.double, 1)
            assert not wished(scripted)
            scripted.accepting = True
            await cut(scripted)
            # Leaving waits until both are said.

    drive(main)
    assert wished(scripted) == [*scripted.specs]


def test_one_that_ends_in_the_moment_of_the_cancellation_is_left_alone(
    scripted: Scripted, tmp_path: Path
) -> None:
    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 1)
            await soon(future.accepted)
            waiting = asyncio.create_task(asyncio.wait_for(future, 60))
            await asyncio.sleep(0)
            future._future.add_done_callback(lambda _: waiting.cancel())
            await settle_open(scripted)
            await asyncio.wait([waiting])
            assert await future == 2

    drive(main)
    assert not wished(scripted)


def test_the_wish_is_told_before_the_client_leaves(scripted: Scripted, tmp_path: Path) -> None:
    """As at Ctrl-C: the program's own task is cancelled, and leaves its blocks."""

    async def program(client: AsyncClient) -> None:
        await client.run(work.double, 1)

    async def main() -> None:
        async def all_of_it() -> None:
            async with async_client_of(scripted, tmp_path) as client:
                await program(client)

        running = asyncio.create_task(all_of_it())
        await until("it is accepted", lambda: scripted.specs)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    drive(main)
    assert wished(scripted) == [*scripted.specs]


def test_closing_may_be_cancelled_itself(
    scripted: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.accepting = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await client.aclose()
            assert future.done()

    drive(main)
    assert "1 submissions were not accepted before the client was cancelled" in caplog.text


def test_the_scopes_of_anyio(scripted: Scripted, tmp_path: Path) -> None:
    """Its cancellation comes again at every await, so that nothing may be awaited in it."""

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            with anyio.move_on_after(0.02) as scope:
                await client.run(work.double, 1)
            assert scope.cancelled_caught
            async with anyio.create_task_group() as group:
                group.start_soon(client.run, work.double, 2)
                await until("it is accepted", lambda: len(scripted.specs) == 2)
                group.cancel_scope.cancel()
            assert (await client.stats()) == {}

    scripted.answers = {"stats": {}}
    anyio.run(main, backend="asyncio")
    assert wished(scripted) == [*scripted.specs]


def test_cancelling_by_hand(scripted: Scripted, tmp_path: Path) -> None:
    async def main() -> None:
        async with async_client_of(scripted, tmp_path, answer_seconds=0.05) as client:
            future = await client.submit(work.double, 1)
            assert await future.cancel() is True
            assert future.cancelled()
            other = await client.submit(work.double, 2)
            said = await client.cancel(other.id)
            assert said == {
                "id": other.id,
                "said": "done",
                "state": "cancelled",
                "wanted": "cancel",
            }
            late = await client.submit(work.double, 3)
            scripted.cancel = lambda *_: None
            with pytest.raises(TimeoutError, match="no answer to 'cancel'"):
                await late.cancel()
            await client.aclose(0.01)

    drive(main)
    assert [id_text(task_id) for task_id in wished(scripted)] == [
        id_text(task_id) for task_id in scripted.specs
    ]
