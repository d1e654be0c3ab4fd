"""How long until work goes on after a SIGKILL, and whether anything ran that need not.

Each blow strikes what the witness shows at work. Times are from the blow to the next begin, as the
witness has them; the bench adds nothing to them by looking late.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.lab.bench.goals import Samples
from holdfast.lab.bench.stage import WAIT_SECONDS, Bench, Fleet
from holdfast.lab.cluster import boot_ns
from holdfast.lab.workloads.plain import noop

if TYPE_CHECKING:
    from holdfast.client.future import Future

Held = list[tuple["Future[int]", Path]]
_AWAY_SECONDS = 60.0
_TASKS_HELD = 2


def child_kill(bench: Bench) -> Samples:
    """Kill busy children while another slot is free, and time the next begin of their task."""
    times = []
    with bench.fleet(workers=1, slots=2) as fleet:
        for _ in range(bench.sized(100, 6)):
            future, gate = fleet.hold()
            first = fleet.begun(future.id, 1)[0]
            struck_ns = boot_ns()
            os.kill(first.pid, signal.SIGKILL)
            again = fleet.begun(future.id, 2)[1]
            times.append((again.begun_ns - struck_ns) / 1e6)
            gate.touch()
            future.result(WAIT_SECONDS)
    return {"child_kill_to_begin_ms_p95": times}


def worker_kill(bench: Bench) -> Samples:
    """Kill busy supervisors while another worker has room, and time the begin of their tasks."""
    times = []
    with bench.fleet(workers=2, slots=4) as fleet:
        for _ in range(bench.sized(25, 2)):
            held = [fleet.hold() for _ in range(2 * _TASKS_HELD)]
            runs = {future.id: fleet.begun(future.id, 1)[0] for future, _ in held}
            at = {task: fleet.cluster.worker_of(run.pid) for task, run in runs.items()}
            name = next(iter(at.values()))
            struck_ns = boot_ns()
            fleet.cluster.kill_worker(name)
            again = [fleet.begun(task, 2)[1] for task in at if at[task] == name]
            times += [(run.begun_ns - struck_ns) / 1e6 for run in again]
            _end(held)
            fleet.cluster.start_worker(name)
            fleet.wait_connected()
    return {"worker_kill_to_begin_ms_p95": times}


def coordinator_kill(bench: Bench) -> Samples:
    """Kill the coordinator, restart it at once, and time the next new task."""
    times = []
    with bench.fleet(workers=2, slots=2) as fleet:
        held = _held(fleet)
        for number in range(bench.rounds):
            begun = time.perf_counter()
            fleet.cluster.kill_coordinator()
            fleet.cluster.launch_coordinator()
            fleet.client.submit(noop, number).result(WAIT_SECONDS)
            times.append(time.perf_counter() - begun)
        fleet.wait_connected()
        _end(held)
        twice = fleet.begun_twice()
    return {
        "coordinator_kill_to_done_seconds": times,
        "coordinator_kill_begun_twice_tasks": [twice],
    }


def coordinator_away(bench: Bench) -> Samples:
    """Leave running tasks without a coordinator for six leases."""
    with bench.fleet(workers=2, slots=2) as fleet:
        held = _held(fleet)
        fleet.cluster.kill_coordinator()
        bench.tell(f"waiting {_AWAY_SECONDS:g} s without a coordinator")
        time.sleep(_AWAY_SECONDS)
        fleet.cluster.start_coordinator()
        fleet.wait_connected()
        _end(held)
        return {"coordinator_away_begun_twice_tasks": [fleet.begun_twice()]}


def _held(fleet: Fleet) -> Held:
    """Start tasks that last, one on each worker."""
    held = [fleet.hold() for _ in range(_TASKS_HELD)]
    for future, _ in held:
        fleet.begun(future.id, 1)
    return held


def _end(held: Held) -> None:
    for future, gate in held:
        gate.touch()
        future.result(WAIT_SECONDS)
