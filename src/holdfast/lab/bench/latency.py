"""How long one task takes: alone, and behind a long one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from holdfast.client.client import Client
from holdfast.lab.bench.goals import Samples, quantile
from holdfast.lab.bench.stage import WAIT_SECONDS, Bench
from holdfast.lab.workloads.plain import noop

_BEHIND_TASKS = 50


def latency(bench: Bench) -> Samples:
    """Measure submit → result, one task at a time."""
    count = bench.sized(500, 100)
    p50, p99 = [], []
    with bench.embedded() as embedded:
        for _ in range(bench.rounds):
            times = one_by_one(embedded.client, noop, count)
            p50.append(quantile(times, 0.5))
            p99.append(quantile(times, 0.99))
    return {"latency_ms_p50": p50, "latency_ms_p99": p99}


def one_by_one(client: Client, function: Callable[..., Any], count: int) -> list[float]:
    """Submit tasks, each after the result of the one before; return milliseconds of each."""
    times = []
    for number in range(count):
        begun = time.perf_counter()
        client.submit(function, number).result(WAIT_SECONDS)
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def behind_long_task(bench: Bench) -> Samples:
    """Measure how long no-ops take that are submitted while one of two workers is busy."""
    times = []
    with bench.fleet(workers=2, slots=1) as fleet:
        for _ in range(bench.rounds):
            long, gate = fleet.hold()
            fleet.begun(long.id, 1)
            begun = time.perf_counter()
            futures = [fleet.client.submit(noop, number) for number in range(_BEHIND_TASKS)]
            for future in futures:
                future.result(WAIT_SECONDS)
            times.append((time.perf_counter() - begun) * 1e3)
            gate.touch()
            long.result(WAIT_SECONDS)
    return {"behind_long_task_ms": times}
