"""What a mixed million that waits costs those who do not wait.

Three tenths wait for a tag that no worker has, at higher priority; three tenths are delayed; two
tenths stand in a queue without workers; two tenths are plain and could run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from holdfast.client.task import task
from holdfast.lab.bench.goals import Samples, quantile
from holdfast.lab.bench.latency import one_by_one
from holdfast.lab.bench.stage import WAIT_SECONDS, Bench, Fleet, mapped
from holdfast.lab.bench.throughput import NOBODY
from holdfast.lab.workloads.plain import noop

_CHUNK_TASKS = 50_000
_DELAY_SECONDS = 86_400.0
_TOP = 1_000
_WORKER = "worker-0"


def backlog(bench: Bench) -> Samples:
    """Measure throughput without and with the backlog, and a new task of top priority."""
    tenth = bench.sized(100_000, 10_000)
    top = task(noop).options(priority=_TOP)
    count = bench.sized(10_000, 2_000)
    with bench.fleet(workers=1, slots=2, words=("--queues", "default")) as fleet:
        empty = [_throughput(fleet, top, count) for _ in range(bench.rounds)]
        # Nobody takes the plain ones away while the rest is still on its way.
        fleet.cluster.kill_worker(_WORKER)
        begun = time.perf_counter()
        _fill(bench, fleet, tenth)
        fill_seconds = time.perf_counter() - begun
        bench.tell(f"filled {10 * tenth:,} tasks in {fill_seconds:.0f} s")
        fleet.cluster.start_worker(_WORKER)
        fleet.wait_connected()
        times = _urgent(fleet, top, bench.sized(200, 20), plain=2 * tenth)
        behind = [_throughput(fleet, top, count) for _ in range(bench.rounds)]
    return {
        "backlog_filled_tasks": [10 * tenth],
        "backlog_fill_seconds": [fill_seconds],
        "backlog_empty_tasks_per_second": empty,
        "backlog_throughput_tasks_per_second": behind,
        "backlog_throughput_ratio_to_empty": [
            with_backlog / without for with_backlog, without in zip(behind, empty, strict=True)
        ],
        "backlog_latency_ms_p50": [quantile(times, 0.5)],
        "backlog_latency_ms_p99": [quantile(times, 0.99)],
    }


def _throughput(fleet: Fleet, top: Callable[..., Any], count: int) -> float:
    """Return how many tasks a second settle, of any kind, while a map of top priority runs."""
    settled = fleet.store.settled()
    begun = time.perf_counter()
    for _ in mapped(fleet.client, top, range(count)):
        pass
    seconds = time.perf_counter() - begun
    return (fleet.store.settled() - settled) / seconds


def _urgent(fleet: Fleet, top: Callable[..., Any], count: int, *, plain: int) -> list[float]:
    """Return how long each task of top priority takes, one at a time, while plain ones run."""
    settled = fleet.store.settled()
    times = one_by_one(fleet.client, top, count)
    passed = fleet.store.settled() - settled - count
    assert 0 < passed < plain, f"{passed} of {plain} plain tasks ran meanwhile"
    return times


def _fill(bench: Bench, fleet: Fleet, tenth: int) -> None:
    kinds = (
        (task(noop).options(tags=[NOBODY], priority=1), 3),
        (task(noop).options(delay=_DELAY_SECONDS), 3),
        (task(noop).options(queue=NOBODY), 2),
        (task(noop), 2),
    )
    for function, tenths in kinds:
        for first in range(0, tenths * tenth, _CHUNK_TASKS):
            last = min(first + _CHUNK_TASKS, tenths * tenth)
            # A client of its own, so that ours need not watch a million futures.
            with bench.connect(fleet.cluster.url) as client:
                futures = [client.submit(function, number) for number in range(first, last)]
                for future in futures:
                    future.wait_accepted(WAIT_SECONDS)
