"""The asyncio client against a scripted coordinator on the same loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import holdfast
from holdfast import task
from holdfast.client.aio_client import AsyncClient, Connecting
from holdfast.client.aio_future import AsyncFuture
from holdfast.errors import (
    ConfigurationError,
    ConnectionLostError,
    InvalidInputError,
    KeyConflictError,
    NoCoordinatorError,
    NotSerializableError,
    ProtocolError,
    RefusedError,
    ResultUnreadableError,
    TaskCancelledError,
    TaskFailedError,
    UnknownTaskError,
)
from holdfast.model.messages import Ask, PutCode, Refused, Settled, SetWanted, Submit
from holdfast.model.outcome import Payload, Reason
from holdfast.model.task import Spec, State
from holdfast.payloads import decode_call, encode_result
from tests.client import work
from tests.client.aio import LOOPS, cut, drive, settle_open, soon, until
from tests.client.scripted import LoopbackDialer, Scripted, async_client_of
from tests.client.work import Refusal

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_result_comes_back_without_a_thread(tmp_path: Path, loop_factory: Loop) -> None:
    async def main() -> None:
        threads = threading.active_count()
        async with async_client_of(Scripted(), tmp_path) as client:
            future = await client.submit(work.double, 21)
            assert not future.done()
            assert not future.accepted
            assert await soon(future) == 42
            assert await future == 42, "it may be awaited again"
            assert future.result() == 42
            assert await future.exception() is None
            assert future.accepted
            assert not future.cancelled()
            assert await future.cancel() is False
            assert repr(future) == f"<AsyncFuture {future.id} finished>"
            assert await client.run(work.double, 4) == 8
            assert threading.active_count() == threads

    drive(main, loop_factory)


def test_kinds_of_functions(tmp_path: Path) -> None:
    scripted = Scripted()
    base = 100

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            assert await client.run(lambda x: x + base, 1) == 101
            assert await client.run(work.later, 1) == 2
            assert await client.run(work.swallow, a=(1, 2)) == {"a": (1, 2)}
            assert await client.run(len, [1]) == 1

    drive(main)
    assert len(scripted.read(PutCode)) == 1


def test_options_reach_the_spec(tmp_path: Path) -> None:
    scripted = Scripted()

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            await client.submit(work.double, 1, key="page-1", priority=5, delay=10)
            await client.submit(work.labelled.options(key="k"), 1, key="own")
            await client.run(task(work.swallow).options(queue="q"), key="x")
            await client.run(work.total, 1, tags=["gpu"], queue="r")
            with pytest.raises(InvalidInputError, match=r"options\(\)"):
                await client.submit(work.labelled, 1, key="x")
            with pytest.raises(NotSerializableError, match="argument 1"):
                await client.submit(work.total, 1, threading.Lock())  # type: ignore[arg-type]

    drive(main)
    first, second, third, fourth = scripted.specs.values()
    assert (first.key, first.priority, first.due_ms - first.submitted_ms) == ("page-1", 5, 10_000)
    assert (second.key, second.queue, second.tags) == ("k", "bulk", ("big", "gpu"))
    assert (third.queue, third.tags, third.key) == ("q", (), "")
    assert (fourth.queue, fourth.tags) == ("r", ("gpu",))


def test_an_exception_comes_back_as_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with async_client_of(Scripted(), tmp_path) as client:
            future = await client.submit(work.fail, "no")
            with pytest.raises(Refusal, match="no") as caught:
                await soon(future)
            assert "in fail" in str(caught.value.__cause__)
            assert await future.exception() is caught.value
            with pytest.raises(Refusal):
                future.result()

    drive(main)


def test_other_ends_are_told(tmp_path: Path) -> None:
    scripted = Scripted()
    ends = [
        Settled(None, State.FAILED, Reason.LOST, None, None),  # type: ignore[arg-type]
        Settled(None, State.CANCELLED, Reason.NONE, None, None),  # type: ignore[arg-type]
    ]

    def end(spec: Spec) -> Settled:
        told = ends.pop(0)
        return Settled(spec.id, told.state, told.reason, None, None)

    scripted.run = end

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            with pytest.raises(TaskFailedError, match="lost"):
                await client.run(work.double, 1)
            future = await client.submit(work.double, 1)
            with pytest.raises(TaskCancelledError) as caught:
                await soon(future)
            assert not isinstance(caught.value, asyncio.CancelledError), "nobody cancelled us"
            with pytest.raises(TaskCancelledError):
                await future.exception()
            assert future.cancelled()
            assert await future.cancel() is True

    drive(main)


class Loud:
    """Tells where it is unpickled."""

    seen: list[str] = []  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.name,)


def rebuild(name: str) -> Loud:
    current = asyncio.current_task()
    Loud.seen.append(current.get_name() if current else "")
    if name == "broken":
        raise ValueError("no")
    return Loud(name)


def test_a_result_is_unpickled_where_it_is_awaited(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.run = lambda spec: Settled(spec.id, State.SUCCEEDED, Reason.NONE, results[0], None)
    results: list[Payload] = []

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            results.append(encode_result(Loud("a"), spill_to=tmp_path).payload)
            future = await client.submit(work.double, 1)
            await until("it has ended", future.done)
            assert Loud.seen == []
            reading = asyncio.create_task(as_coroutine(future), name="the reader")
            assert (await soon(reading)).name == "a"
            assert Loud.seen == ["the reader"]
            results[:] = [encode_result(Loud("broken"), spill_to=tmp_path).payload]
            with pytest.raises(ResultUnreadableError, match="ValueError: no"):
                await client.run(work.double, 1)

    Loud.seen.clear()
    drive(main)


async def as_coroutine(future: AsyncFuture[Any]) -> Any:
    return await future


def test_acceptance_is_a_truth_and_may_be_awaited(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    scripted.refuse = lambda spec: (
        Refused(spec.id, "key_conflict", "other contents") if spec.key else None
    )

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 1)
            assert not future.accepted
            await soon(future.accepted)
            await future.accepted
            assert future.accepted
            assert not future.done()
            refused = await client.submit(work.double, 1, key="k")
            with pytest.raises(KeyConflictError):
                await soon(refused.accepted)
            with pytest.raises(KeyConflictError):
                await refused
            scripted.accepting = False
            late = await client.submit(work.double, 2)
            await until("it is sent", lambda: len(scripted.specs) == 2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await late.accepted
            with pytest.raises(asyncio.InvalidStateError, match="has not ended"):
                late.result()
            await cut(scripted)
            scripted.accepting = True
            await soon(late.accepted)
            # To stop waiting for the acceptance is no wish to cancel.
            assert not scripted.read(SetWanted)

    drive(main)


def test_many_await_one_task(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 3)
            twins = [await client.future(future.id), await client.future(future.id[:30])]
            waiting = asyncio.gather(future, future, *twins, *[each.exception() for each in twins])
            await until("both watch", lambda: len(scripted.watched) == 1)
            await settle_open(scripted)
            assert await soon(waiting) == [6, 6, 6, 6, None, None]

    drive(main)


def test_a_future_by_id(tmp_path: Path) -> None:
    async def main() -> None:
        async with async_client_of(Scripted(), tmp_path) as client:
            unknown = await client.future("0" * 8 + "-0000-7000-8000-" + "0" * 12)
            with pytest.raises(UnknownTaskError):
                await soon(unknown)
            with pytest.raises(UnknownTaskError):
                await client.future("ab")
            with pytest.raises(InvalidInputError):
                await client.future(7)  # type: ignore[arg-type]

    drive(main)


def test_as_completed(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            futures = [await client.submit(work.double, n) for n in range(4)]
            await soon(futures[-1].accepted)
            specs = [*scripted.specs.values()]
            for spec in (specs[2], specs[0]):
                scripted.end(scripted.sessions[-1], spec)
            await scripted.sessions[-1].flush()
            came: list[int] = []

            async def read() -> None:
                async for future in client.as_completed([*futures, futures[0]], timeout=0.05):
                    came.append(await future)  # noqa: PERF401  # what came before the timeout

            with pytest.raises(TimeoutError, match="2 tasks"):
                await read()
            assert came == [4, 0]
            assert not futures[1]._listeners
            await settle_open(scripted)
            assert [await f async for f in client.as_completed(futures)][:2] in ([0, 4], [0, 2])
            assert [f async for f in client.as_completed([])] == []
            assert not scripted.read(SetWanted)

    drive(main)


def test_questions(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.answers = {
        name: {"asked": name} for name in ("list", "story", "why", "workers", "drain", "stats")
    }

    async def main() -> None:
        async with async_client_of(scripted, tmp_path, answer_seconds=0.5) as client:
            future = await client.submit(work.double, 1)
            # It waits for the acceptance of what it is about.
            assert (await client.status(future.id))["id"] == future.id
            assert (await client.status(future.id[:35]))["id"] == future.id
            assert await client.list(states=["queued"], tag="x") == {"asked": "list"}
            assert await client.story(future.id) == {"asked": "story"}
            assert await client.why(future.id) == {"asked": "why"}
            assert await client.workers() == {"asked": "workers"}
            assert await client.drain("w") == {"asked": "drain"}
            assert await client.stats() == {"asked": "stats"}
            with pytest.raises(InvalidInputError, match="give a list"):
                await client.list(states="queued")
            with pytest.raises(RefusedError, match="riddle"):
                await client.ask("riddle")
            scripted.ask = lambda *_: None
            with pytest.raises(TimeoutError, match="no answer to 'stats'"):
                await client.stats()
            assert client.held_back == ""
            # It would wait for the answer.
            await client.aclose(0.01)

    drive(main)
    assert scripted.read(Ask)[2].parameters["states"] == ["queued"]


def test_submissions_wait_at_the_bound_in_turn(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path, submissions_max=4) as client:
            done: list[int] = []

            async def submit(number: int) -> None:
                await client.submit(work.double, number)
                done.append(number)

            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(submit(number))
                await until("the bound is reached", lambda: len(scripted.specs) == 4)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await client.submit(work.double, 99)
                assert client._intake.submissions == 4
                scripted.accepting = True
                await cut(scripted)
            assert done == [*range(30)]
            assert await client.run(work.total, 1) == 1

    drive(main)
    sent = [decode_call(spec.payload)[0] for spec in scripted.specs.values()]
    assert sent == [*((number,) for number in range(30)), (1,)], "and not what was given up"


def test_who_waits_at_the_bound_hears_of_the_end(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.accepting = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path, submissions_max=1) as client:
            await client.submit(work.double, 1)
            waiting = asyncio.create_task(client.submit(work.double, 2))
            await until("it is sent", lambda: scripted.specs)
            with pytest.raises(ConnectionLostError, match="1 submissions were not accepted"):
                await client.aclose(0.01)
            with pytest.raises(RefusedError, match="closed"):
                await soon(waiting)

    drive(main)


def test_a_long_row_of_submissions_lets_the_loop_have_its_turn(tmp_path: Path) -> None:
    scripted = Scripted()

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            for number in range(2_000):
                await client.submit(work.double, number)
            assert len(scripted.specs) > 500, "they were sent meanwhile"

    drive(main)
    assert len(scripted.specs) == 2_000


def test_a_break_and_what_was_not_answered(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.break_after_submit = 1

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            assert await client.run(work.double, 21) == 42
            await cut(scripted)
            assert await client.run(work.double, 4) == 8

    drive(main)
    assert [message.again for message in scripted.read(Submit)][:2] == [False, True]
    assert len(scripted.sessions) == 3


def test_nobody_answers(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.up = False

    async def main() -> None:
        with pytest.raises(NoCoordinatorError, match=r"within 0\.05 s"):
            async with async_client_of(scripted, tmp_path, connect_seconds=0.05):
                pass
        scripted.up, scripted.protocol = True, -1
        with pytest.raises(ProtocolError, match="refused us"):
            async with async_client_of(scripted, tmp_path):
                pass

    drive(main)


def test_a_closed_client_says_so_and_closing_sends_what_is_on_its_way(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            future = await client.submit(work.double, 1)
        assert len(scripted.specs) == 1
        assert future.accepted
        await client.aclose()
        with pytest.raises(ConnectionLostError, match="closed"):
            await soon(future)
        for refused in (client.submit(work.double, 1), client.stats(), client.future(future.id)):
            with pytest.raises(RefusedError, match="closed"):
                await refused
        with pytest.raises(RefusedError, match="closed"):
            client.map(work.double, [1])
        assert len(asyncio.all_tasks()) <= 3, "the test's own, and the other end's"

    drive(main)


def test_the_error_of_the_block_goes_before_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = Scripted()
    scripted.accepting = False
    monkeypatch.setattr(AsyncClient.aclose, "__defaults__", (0.01,))

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            await client.submit(work.double, 1)
            raise LookupError

    with pytest.raises(LookupError):
        drive(main)
    assert "1 submissions were not accepted" in caplog.text


def test_a_client_is_of_one_loop(tmp_path: Path) -> None:
    kept: list[Any] = []

    async def main() -> None:
        scripted = Scripted()
        scripted.settling = False
        async with async_client_of(scripted, tmp_path) as client:
            kept.append(await client.submit(work.double, 1))

            async def elsewhere() -> None:
                for foreign in (client.stats(), as_coroutine(kept[0]), client.submit(len, "")):
                    with pytest.raises(InvalidInputError, match="another event loop"):
                        await foreign

            await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
            with pytest.raises(InvalidInputError, match="awaited"):
                kept[0]._future.result(1)
            with pytest.raises(InvalidInputError, match="await it"):
                kept[0]._future.cancel()

    drive(main)


def test_a_client_that_nobody_closed_ends_with_its_loop(tmp_path: Path) -> None:
    scripted = Scripted()

    async def main() -> None:
        terms_and_all = async_client_of(scripted, tmp_path)
        client = await terms_and_all.__aenter__()
        kept.append(terms_and_all)
        assert await client.run(work.double, 1) == 2

    kept: list[Any] = []
    drive(main)


def test_a_connection_to_come(tmp_path: Path) -> None:
    scripted = Scripted()

    async def connected() -> AsyncClient:
        import random

        from holdfast.client.session import Terms
        from holdfast.clock import SystemClock
        from holdfast.model.ids import IdMint

        rng = random.SystemRandom()
        dialers = (LoopbackDialer(scripted.serve),)
        terms = Terms(dialers=dialers, clock=SystemClock(), rng=rng, version="0")
        client = AsyncClient(terms, mint=IdMint(rng))
        await client.open(10)
        return client

    async def main() -> None:
        async with Connecting(connected) as hf:
            assert await hf.run(work.double, 1) == 2
        with pytest.raises(RefusedError):
            await hf.run(work.double, 1)
        hf = await Connecting(connected)
        assert await hf.run(work.double, 2) == 4
        await hf.aclose()

    drive(main)
    assert isinstance(holdfast.connect_async(), Connecting)


def test_elsewhere_than_on_asyncio_it_says_so() -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"use connect\(\)"):
            await holdfast.connect_async("http://127.0.0.1:1")

    anyio.run(main, backend="trio")
