"""How many tasks a second: no-op, with payloads, of a closure, and only submitted.

Everything that is compared is measured in the same run, in turns. Afterwards the store is asked
whether every call was a task of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from holdfast.client.task import task
from holdfast.lab.bench.budget import Meter
from holdfast.lab.bench.goals import Samples
from holdfast.lab.bench.stage import WAIT_SECONDS, Bench, Embedded, mapped
from holdfast.lab.workloads.plain import echo, noop

_POOL_PROCESSES = 2
_TEXT = "x" * 1024
NOBODY = "served-by-nobody"
"""A queue that no worker of the bench serves, or a tag that none has."""


def throughput(bench: Bench) -> Samples:
    """Measure `map` of no-ops against a process pool, payloads of 1 KB, and a closure."""
    count = bench.sized(30_000, 4_000)
    samples: dict[str, list[float]] = {}

    def note(key: str, value: float) -> None:
        samples.setdefault(key, []).append(value)

    with ProcessPoolExecutor(_POOL_PROCESSES) as pool:
        # The pool forks at its first call: before there are threads of ours.
        for _ in pool.map(noop, range(100)):
            pass
        with bench.embedded() as embedded:
            before = embedded.store.settled()
            meter = Meter(embedded.crew)
            for _ in range(bench.rounds):
                _round(embedded, pool, count, meter, note)
            tasks = 3 * count * bench.rounds
            note("throughput_rows_wrong", _wrong(embedded, before, tasks))
            for part, spent_us in meter.per_task_us(count * bench.rounds).items():
                note(f"budget_{part}_us_per_task", spent_us)
    return samples


def _round(
    embedded: Embedded,
    pool: ProcessPoolExecutor,
    count: int,
    meter: Meter,
    note: Callable[[str, float], None],
) -> None:
    nothing = [None] * count
    of_pool = _rate(lambda: pool.map(noop, range(count), chunksize=1), nothing)
    commits = embedded.store.commits()
    meter.start()
    of_noop = _rate(lambda: mapped(embedded.client, noop, range(count)), nothing)
    meter.stop()
    commits = embedded.store.commits() - commits
    texts, sums = [_TEXT] * count, list(range(1, count + 1))
    of_text = _rate(lambda: mapped(embedded.client, echo, texts), texts)
    of_closure = _rate(lambda: mapped(embedded.client, _adding(1), range(count)), sums)
    note("throughput_tasks_per_second", of_noop)
    note("throughput_process_pool_tasks_per_second", of_pool)
    note("throughput_ratio_to_process_pool", of_noop / of_pool)
    note("throughput_1kb_tasks_per_second", of_text)
    note("throughput_1kb_ratio_to_noop", of_text / of_noop)
    note("throughput_closure_tasks_per_second", of_closure)
    note("throughput_closure_ratio_to_noop", of_closure / of_noop)
    note("throughput_round_tasks", count)
    note("throughput_round_commits", commits)


def _adding(amount: int) -> Callable[[int], int]:
    """Return a function that goes by value: it stands in another one, and closes over a number."""

    def add(number: int) -> int:
        return number + amount

    return add


def _rate(begin: Callable[[], Iterable[Any]], expected: Sequence[Any]) -> float:
    begun = time.perf_counter()
    results = list(begin())
    seconds = time.perf_counter() - begun
    assert results == expected, f"{len(results)} results are not those of {len(expected)} tasks"
    return len(expected) / seconds


def _wrong(embedded: Embedded, before: int, tasks: int) -> int:
    """Return by how many the rows, distinct tokens and results of the store differ from n."""
    settled, rows = embedded.store.settled(), embedded.store.rows()
    tokens, results = embedded.store.tokens_and_results()
    missing = abs(settled - before - tasks) + abs(tokens - settled) + abs(results - settled)
    return missing + rows - settled


def submission(bench: Bench) -> Samples:
    """Measure `submit` alone, from the first call until the last task is durable."""
    count = bench.sized(60_000, 5_000)
    waiting = task(noop).options(queue=NOBODY)
    rates: list[float] = []
    with bench.fleet(workers=1, slots=2, words=("--queues", "default")) as fleet:
        for _ in range(bench.rounds):
            with bench.connect(fleet.cluster.url) as client:
                begun = time.perf_counter()
                futures = [client.submit(waiting, number) for number in range(count)]
                for future in futures:
                    future.wait_accepted(WAIT_SECONDS)
                rates.append(count / (time.perf_counter() - begun))
    return {"submission_tasks_per_second": rates}
