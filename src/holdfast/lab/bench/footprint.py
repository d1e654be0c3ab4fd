"""What it costs to have it: memory, start-up, and doing nothing."""

from __future__ import annotations

import compileall
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import holdfast
from holdfast.lab.bench.goals import Samples
from holdfast.lab.bench.processes import Cpu, Crew, cpu_of, pss_mb
from holdfast.lab.bench.stage import WAIT_SECONDS, Bench, ended_after
from holdfast.lab.workloads.plain import noop

_FIRST_RESULT = """
import sys, time
import holdfast
from holdfast.lab.workloads.plain import noop
begun = time.perf_counter()
with holdfast.connect(state_dir=sys.argv[1]) as client:
    client.submit(noop, 0).result(60)
    print(time.perf_counter() - begun)
"""
_ATTACH = """
import sys, time
import holdfast
begun = time.perf_counter()
with holdfast.connect(state_dir=sys.argv[1]):
    print(time.perf_counter() - begun)
"""


def memory(bench: Bench) -> Samples:
    """Measure the proportional set size of every process, with a long queue that could run."""
    count = bench.sized(100_000, 5_000)
    with bench.fleet(workers=1, slots=2) as fleet:
        crew = fleet.crew(fleet.cluster.workers[0])
        # Each child has a minder, which belongs to what a slot costs.
        minded = zip(crew.children, crew.minders, strict=True)
        idle = [pss_mb(child) + pss_mb(minder) for child, minder in minded]
        held = [fleet.hold() for _ in range(2)]
        for future, _ in held:
            fleet.begun(future.id, 1)
        with bench.connect(fleet.cluster.url) as client:
            futures = [client.submit(noop, number) for number in range(count)]
            for queued in futures:
                queued.wait_accepted(WAIT_SECONDS)
        found: dict[str, Sequence[float]] = {
            "memory_queued_tasks": [count],
            "memory_coordinator_mb": [pss_mb(crew.coordinator)],
            "memory_supervisor_and_guard_mb": [pss_mb(crew.supervisor) + pss_mb(crew.guard)],
            "memory_nursery_mb": [pss_mb(crew.nursery)],
            "memory_idle_child_mb": idle,
        }
        for _, gate in held:
            gate.touch()
    return found


def startup(bench: Bench) -> Samples:
    """Measure import, help, the first result of a fresh folder, and attaching; fresh processes.

    The modules are compiled before, as `pip install` leaves them: where the environment forbids
    Python to write bytecode, a source tree would be compiled anew in every process.
    """
    compileall.compile_dir(Path(holdfast.__file__).parent, quiet=2)
    imports, helps, firsts, attaches = [], [], [], []
    for _ in range(bench.rounds):
        bare = _wall_ms("-c", "pass")
        imports.append(_wall_ms("-c", "import holdfast") - bare)
        helps.append(_wall_ms("-m", "holdfast", "--help"))
        with bench.folder("startup") as state_dir, ended_after(state_dir):
            firsts.append(float(_output("-c", _FIRST_RESULT, str(state_dir))))
            attaches.append(float(_output("-c", _ATTACH, str(state_dir))) * 1e3)
    return {
        "startup_import_ms": imports,
        "startup_help_ms": helps,
        "startup_first_result_seconds": firsts,
        "startup_attach_ms": attaches,
    }


def idle(bench: Bench) -> Samples:
    """Measure commits and CPU time of an embedded coordinator that has a client and no work."""
    seconds = bench.sized(60, 10)
    with bench.embedded() as embedded:
        commits, cpu = embedded.store.commits(), _cpu_of_crew(embedded.crew)
        bench.tell(f"doing nothing for {seconds} s")
        time.sleep(seconds)
        commits = embedded.store.commits() - commits
        later = _cpu_of_crew(embedded.crew)
    a_minute = 60 / seconds
    spent = {name: (later[name] - cpu[name]).total * a_minute for name in cpu}
    return {
        "idle_commits_per_minute": [commits * a_minute],
        **{f"idle_{name}_cpu_seconds_per_minute": [value] for name, value in spent.items()},
    }


def _cpu_of_crew(crew: Crew) -> dict[str, Cpu]:
    return {
        "coordinator": cpu_of(crew.coordinator),
        "supervisor": cpu_of(crew.supervisor),
        "guard": cpu_of(crew.guard),
        "children": sum(map(cpu_of, crew.children), Cpu()),
    }


def _wall_ms(*words: str) -> float:
    begun = time.perf_counter()
    _output(*words)
    return (time.perf_counter() - begun) * 1e3


def _output(*words: str) -> str:
    """Run this Python with these words and return what it prints. Raises where it fails."""
    done = subprocess.run(
        [sys.executable, *words], check=True, capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    return done.stdout
