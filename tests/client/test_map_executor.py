"""`map` over any iterables, and the standard executor over a client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.client.client import Client
from holdfast.client.options import Options
from holdfast.errors import InvalidInputError, NotSerializableError
from holdfast.model.messages import Ask, PutCode, SetWanted
from holdfast.model.task import State
from tests.client import work
from tests.client.scripted import Scripted, client_of
from tests.client.work import Refusal
from tests.conftest import Eventually


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def client(scripted: Scripted, tmp_path: Path) -> Iterator[Client]:
    with client_of(scripted, tmp_path) as client:
        yield client


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_iterator_is_read_only_so_far_ahead(
    client: Client, scripted: Scripted, ordered: bool
) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count(1):
            read.append(number)
            yield number

    results = client.map(work.double, numbers(), ordered=ordered, buffersize=7)
    assert len(read) == 7
    first = list(itertools.islice(results, 20))
    assert set(first) == {2 * n for n in range(1, 21)}
    if ordered:
        assert first == sorted(first)
    assert 20 <= len(read) <= 27
    results.close()  # type: ignore[attr-defined]


def test_rows_of_several_iterables_end_with_the_shortest(client: Client) -> None:
    assert list(client.map(work.total, [1, 2, 3], (10, 20))) == [11, 22]
    assert list(client.map(work.double, [])) == []


def test_a_function_of_a_map_is_pickled_once(client: Client, scripted: Scripted) -> None:
    assert list(client.map(lambda x: x + 1, range(50))) == list(range(1, 51))
    assert len(scripted.read(PutCode)) == 1


def test_results_come_as_they_are_done(client: Client, scripted: Scripted) -> None:
    scripted.settling = False
    results = client.map(work.double, range(3), ordered=False, timeout=10)
    scripted.wait_for("all are there", lambda: len(scripted.specs) == 3)
    specs = list(scripted.specs.values())
    for index in (2, 0, 1):
        scripted.do(lambda spec=specs[index]: scripted.end(scripted.sessions[-1], spec))
        assert next(results) == 2 * index
    assert next(results, None) is None


@pytest.mark.parametrize("ordered", [True, False])
def test_a_timeout_counts_from_the_call(client: Client, scripted: Scripted, ordered: bool) -> None:
    scripted.settling = False
    results = client.map(work.double, range(3), ordered=ordered, timeout=0.02)
    with pytest.raises(TimeoutError):
        next(results)
    scripted.wait_for("the rest is cancelled", lambda: len(scripted.read(SetWanted)) == 3)


def test_an_early_close_cancels_what_waits_and_nothing_that_runs(
    client: Client, scripted: Scripted
) -> None:
    scripted.settling = False
    results = client.map(work.double, itertools.count(), buffersize=30)
    scripted.wait_for("all are there", lambda: len(scripted.specs) == 30)
    first, running, *rest = scripted.specs
    scripted.states[running] = "running"
    scripted.do(lambda: scripted.end(scripted.sessions[-1], scripted.specs[first]))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    scripted.wait_for("the rest is cancelled", lambda: set(rest) <= set(scripted.ended))
    assert running not in scripted.ended
    assert all(message.waiting for message in scripted.read(SetWanted))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_is_closed_before_it_is_read(
    client: Client, scripted: Scripted, ordered: bool
) -> None:
    scripted.settling = False
    results = client.map(work.double, range(5), ordered=ordered)
    for _ in range(2):
        results.close()  # type: ignore[attr-defined]
    scripted.wait_for("all are cancelled", lambda: len(scripted.read(SetWanted)) == 5)
    assert next(results, None) is None


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_that_nobody_reads_goes_on(client: Client, scripted: Scripted, ordered: bool) -> None:
    scripted.settling = False
    client.map(work.double, range(5), ordered=ordered)
    client.submit(work.double, 7).cancel()
    # Wishes are said in their order: what was asked before is there by now.
    assert len(scripted.read(SetWanted)) == 1
    assert not scripted.read(Ask)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_exception_ends_a_map(client: Client, ordered: bool) -> None:
    with pytest.raises(Refusal, match="a"):
        list(client.map(work.fail, ["a", "a"], ordered=ordered))


@pytest.mark.parametrize("ordered", [True, False])
def test_rows_that_break_while_the_first_tasks_start_cancel_those(
    client: Client, scripted: Scripted, ordered: bool
) -> None:
    scripted.settling = False

    def numbers() -> Iterator[int]:
        yield from range(5)
        raise Refusal("no more")

    with pytest.raises(Refusal, match="no more"):
        client.map(work.double, numbers(), ordered=ordered)
    scripted.wait_for("they are cancelled", lambda: len(scripted.read(SetWanted)) == 5)


def test_an_item_of_a_map_that_does_not_serialise_is_numbered(
    client: Client, scripted: Scripted
) -> None:
    items = [1, 2, threading.Lock(), 4]
    with pytest.raises(NotSerializableError, match=r"^item 2 of the map: .*argument 0: .*lock"):
        client.map(work.swallow_one, items)
    results = client.map(work.swallow_one, items, buffersize=1)
    assert next(results) == 1
    with pytest.raises(NotSerializableError, match=r"^item 2 of the map"):
        next(results)
    with client.executor() as pool, pytest.raises(NotSerializableError, match="item 2 of"):
        pool.map(work.swallow_one, items)


@pytest.mark.parametrize("buffersize", [0, -1, 1.5, True])
def test_a_buffer_is_a_number_of_tasks(client: Client, buffersize: int) -> None:
    with pytest.raises(InvalidInputError, match="buffersize"):
        client.map(work.double, [1], buffersize=buffersize)


# The executor: what the standard library's own tests ask of every executor.


def test_it_is_an_executor(client: Client) -> None:
    with client.executor() as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        assert executor.submit(pow, 2, 8).result(10) == 256
        assert executor.submit(work.swallow, self=1, fn=2, key=3).result(10) == {
            "self": 1,
            "fn": 2,
            "key": 3,
        }


def test_executor_options(client: Client, scripted: Scripted) -> None:
    executor = client.executor(Options(queue="slow"))
    assert executor.submit(work.double, 1).result(10) == 2
    assert next(iter(scripted.specs.values())).queue == "slow"
    executor.shutdown()
    with pytest.raises(InvalidInputError, match="priority=5000"):
        client.executor(Options(priority=5_000))


def test_executor_map(client: Client) -> None:
    executor = client.executor()
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(10), chunksize=3))[9] == 9**9
    endless = executor.map(work.double, itertools.count(), buffersize=3)
    assert list(itertools.islice(endless, 5)) == [0, 2, 4, 6, 8]
    failing = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert (next(failing), next(failing)) == ((0, 1), (0, 1))
    with pytest.raises(ZeroDivisionError):
        next(failing)
    executor.shutdown()


def test_executor_map_submits_without_iteration(client: Client, scripted: Scripted) -> None:
    executor = client.executor()
    executor.map(work.double, range(50))
    executor.shutdown(wait=True)
    assert len(scripted.ended) == 50


def test_no_submission_after_shutdown(client: Client) -> None:
    executor = client.executor()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 5)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(pow, [2], [5])
    assert client.submit(pow, 2, 5).result(10) == 32


def test_hang_of_a_shutdown_that_does_not_wait(client: Client, scripted: Scripted) -> None:
    scripted.settling = False
    executor = client.executor()
    future = executor.submit(work.double, 4)
    executor.shutdown(wait=False)
    assert not future.done()
    scripted.wait_for("it is there", lambda: scripted.specs)
    scripted.settle_open()
    assert future.result(10) == 8


def test_a_shutdown_that_cancels(client: Client, scripted: Scripted) -> None:
    scripted.settling = False
    executor = client.executor()
    futures = [executor.submit(work.double, n) for n in range(5)]
    executor.shutdown(wait=True, cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_done_futures_are_not_kept(client: Client) -> None:
    executor = client.executor()
    for _ in executor.map(work.double, range(3000), buffersize=10):
        pass
    assert len(executor._open) <= 1000
    executor.shutdown()


def test_an_executor_keeps_no_results(client: Client, eventually: Eventually) -> None:
    executor = client.executor()
    future = executor.submit(work.zeros, 1000)
    assert len(future.result(10)) == 1000
    seen = weakref.ref(future)
    del future
    eventually("nobody keeps it", lambda: seen() is None)
    executor.shutdown()


def worker(slots: int, queues: list[str], tags: list[str], state: str) -> dict[str, object]:
    return {"slots": slots, "queues": queues, "tags": tags, "state": state}


def test_an_executor_tells_libraries_how_much_runs_at_once(
    client: Client, scripted: Scripted
) -> None:
    scripted.answers["workers"] = [
        worker(4, [], [], "connected"),
        worker(8, ["bulk"], ["gpu"], "connected"),
        worker(16, [], ["gpu"], "draining"),
    ]
    assert client.executor().slots == 4
    assert client.executor(Options(queue="bulk")).slots == 12
    assert client.executor(Options(queue="bulk", tags=("gpu",)))._max_workers == 16
    # Where none is connected yet.
    assert client.executor(Options(tags=("fpga",))).slots == len(os.sched_getaffinity(0))


def test_a_loop_that_gives_up_waiting_is_not_stopped(client: Client, scripted: Scripted) -> None:
    scripted.settling = False
    scripted.cancel = lambda *_: None

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(client.executor(), work.double, 1)
        scripted.wait_for("it is there", lambda: scripted.specs)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.01)

    began = time.monotonic()
    asyncio.run(main())
    scripted.wait_for("the wish is said", lambda: scripted.read(SetWanted))
    assert time.monotonic() - began < 20, "nobody waits for an answer that does not come"


def test_asyncio_takes_our_futures(client: Client) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        executor = client.executor()
        one = await asyncio.wrap_future(client.submit(work.double, 3))
        return one + await loop.run_in_executor(executor, work.total, 1, 2)  # type: ignore[arg-type]

    assert asyncio.run(main()) == 9


def test_wait_modes_of_the_standard_library(client: Client, scripted: Scripted) -> None:
    scripted.settling = False
    futures = [client.submit(work.double, n) for n in range(3)]
    scripted.wait_for("all are there", lambda: len(scripted.specs) == 3)
    specs = list(scripted.specs.values())
    scripted.do(lambda: scripted.end(scripted.sessions[-1], specs[1]))
    first = concurrent.futures.wait(futures, 10, concurrent.futures.FIRST_COMPLETED)
    assert first.done == {futures[1]}
    scripted.do(lambda: scripted.end(scripted.sessions[-1], specs[0], State.CANCELLED))
    scripted.do(lambda: scripted.end(scripted.sessions[-1], specs[2]))
    everything = concurrent.futures.wait(futures, 10)
    assert everything.done == set(futures)
    assert futures[0].cancelled()
