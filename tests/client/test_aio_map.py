"""`map` on an event loop: order, how far ahead, what an early end does."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    ConnectionLostError,
    InvalidInputError,
    NotSerializableError,
    RefusedError,
)
from holdfast.model.messages import PutCode, SetWanted
from tests.client import work
from tests.client.aio import LOOPS, drive, settle_open, soon, until
from tests.client.scripted import Scripted, async_client_of
from tests.client.work import Refusal

Loop = Callable[[], asyncio.AbstractEventLoop]


async def slowly(values: Any) -> AsyncIterator[Any]:
    for value in values:
        await asyncio.sleep(0)
        yield value


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_rows_of_both_kinds(tmp_path: Path, loop_factory: Loop, ordered: bool) -> None:
    scripted = Scripted()
    base = 1

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:

            async def all_of(*sources: Any, buffersize: int | None = None) -> list[int]:
                results = client.map(
                    lambda *given: sum(given) + base,
                    *sources,
                    ordered=ordered,
                    buffersize=buffersize,
                )
                return sorted([result async for result in results])

            assert await all_of(range(600)) == [*range(1, 601)]
            assert await all_of(slowly(range(5)), buffersize=2) == [1, 2, 3, 4, 5]
            assert await all_of(range(3), slowly(count()), [0] * 4) == [1, 3, 5]
            assert await all_of(slowly([1, 2]), count()) == [2, 4]
            assert await all_of() == []
            assert await all_of([]) == []

    drive(main, loop_factory)
    assert len(scripted.read(PutCode)) <= 5, "a function is pickled once for a map"


def test_results_in_order_and_as_they_come(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            results = client.map(work.double, range(3), ordered=False)
            first = asyncio.create_task(anext(results))  # type: ignore[arg-type]
            await until("all are accepted", lambda: len(scripted.specs) == 3)
            specs = [*scripted.specs.values()]
            scripted.end(scripted.sessions[-1], specs[2])
            await scripted.sessions[-1].flush()
            assert await soon(first) == 4
            await settle_open(scripted)
            assert [each async for each in results] == [0, 2]
            scripted.settling = True
            in_order = client.map(work.double, range(100), buffersize=7)
            assert [each async for each in in_order] == [2 * n for n in range(100)]

    drive(main)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_source_is_read_only_so_far_ahead(tmp_path: Path, ordered: bool) -> None:
    scripted = Scripted()
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in count():
            read.append(number)
            yield number

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            results = client.map(work.double, numbers(), ordered=ordered, buffersize=3)
            await asyncio.sleep(0.01)
            assert not read, "nothing is read before the first result is awaited"
            taken = 0
            async with aclosing(results):
                async for _ in results:
                    taken += 1
                    await asyncio.sleep(0.002)
                    assert len(read) <= taken + 3
                    if taken == 10:
                        break

    drive(main)


def test_a_slow_source_holds_no_result_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with async_client_of(Scripted(), tmp_path) as client:
            items: asyncio.Queue[int] = asyncio.Queue()

            async def source() -> AsyncIterator[int]:
                while True:
                    yield await items.get()

            async with aclosing(client.map(work.double, source())) as results:
                for number in range(3):
                    items.put_nowait(number)
                    assert await soon(anext(results)) == 2 * number

    drive(main)


def test_leaving_early_cancels_what_waits_and_nothing_that_runs(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:

            async def first_of(results: Any) -> Any:
                async for result in results:
                    return result
                return None

            reading = asyncio.create_task(first_of(client.map(work.double, range(4))))
            await until("all are accepted", lambda: len(scripted.specs) == 4)
            specs = [*scripted.specs.values()]
            scripted.states[specs[1].id] = "running"
            scripted.end(scripted.sessions[-1], specs[0])
            await scripted.sessions[-1].flush()
            assert await soon(reading) == 0
            gc.collect()
            await until("the rest is wished", lambda: len(scripted.read(SetWanted)) == 3)

    drive(main)
    assert all(message.waiting for message in scripted.read(SetWanted))


@pytest.mark.parametrize("ordered", [True, False])
def test_who_is_cancelled_cancels_also_what_runs(tmp_path: Path, ordered: bool) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            results = client.map(work.double, count(), ordered=ordered, buffersize=4)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(results)
            await until("all is wished", lambda: len(scripted.read(SetWanted)) == 4)

    drive(main)
    assert not any(message.waiting for message in scripted.read(SetWanted))
    assert len(scripted.specs) == 4


@pytest.mark.parametrize("ordered", [True, False])
def test_a_timeout_counts_from_the_call(tmp_path: Path, ordered: bool) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            results = client.map(work.double, [1, 2], ordered=ordered, timeout=0.05)
            with pytest.raises(TimeoutError, match="2 tasks of the map"):
                await anext(results)
            await until("they are wished", lambda: len(scripted.read(SetWanted)) == 2)

    drive(main)
    assert all(message.waiting for message in scripted.read(SetWanted))


@pytest.mark.parametrize("ordered", [True, False])
def test_an_exception_ends_a_map(tmp_path: Path, ordered: bool) -> None:
    async def main() -> None:
        async with async_client_of(Scripted(), tmp_path) as client:
            with pytest.raises(Refusal):
                [each async for each in client.map(work.fail, ["no"], ordered=ordered)]

    drive(main)


def test_rows_that_break_end_the_map(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def broken() -> AsyncIterator[Any]:
        yield 1
        await until("the first is accepted", lambda: scripted.specs)
        raise LookupError("no more")

    async def cancelled() -> AsyncIterator[Any]:
        yield 1
        raise asyncio.CancelledError

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            with pytest.raises(LookupError, match="no more"):
                await anext(client.map(work.double, broken()))
            await until("the first is wished", lambda: len(scripted.read(SetWanted)) == 1)
            with pytest.raises(ConnectionLostError, match="read no further"):
                await anext(client.map(work.double, cancelled()))
            with pytest.raises(NotSerializableError, match=r"item 1 of .*argument 0"):
                await anext(client.map(work.swallow_one, [1, threading.Lock()]))

    drive(main)


def test_a_source_that_holds_on_to_its_cancellation(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False
    held: list[str] = []

    async def stubborn() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            held.append("on")
        yield 2

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(client.map(work.double, stubborn()))
            await until("it was cancelled", lambda: held)

    drive(main)
    assert len(scripted.specs) == 1


def test_a_map_hears_of_the_end_of_its_client(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.settling = False

    async def main() -> None:
        async with async_client_of(scripted, tmp_path) as client:
            readings = [
                asyncio.create_task(anext(client.map(work.double, source)))  # type: ignore[arg-type]
                for source in ([1], slowly(count(1)))
            ]
            await until("both have begun", lambda: len(scripted.specs) > 100)
            await client.aclose()
            for reading in readings:
                with pytest.raises((ConnectionLostError, RefusedError)):
                    await soon(reading)

    drive(main)


def test_what_cannot_be_is_said_at_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with async_client_of(Scripted(), tmp_path) as client:
            with pytest.raises(InvalidInputError, match="buffersize"):
                client.map(work.double, [1], buffersize=0)
            with pytest.raises(TypeError, match="iterable"):
                client.map(work.double, 1)  # type: ignore[call-overload]

    drive(main)
