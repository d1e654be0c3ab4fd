"""The families of figures by name, and the run through those that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from holdfast.lab.bench.backlog import backlog
from holdfast.lab.bench.footprint import idle, memory, startup
from holdfast.lab.bench.goals import Samples
from holdfast.lab.bench.latency import behind_long_task, latency
from holdfast.lab.bench.recovery import child_kill, coordinator_away, coordinator_kill, worker_kill
from holdfast.lab.bench.stage import Bench
from holdfast.lab.bench.throughput import submission, throughput

Family = Callable[[Bench], Samples]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "throughput": throughput,
        "submission": submission,
        "latency": latency,
        "child-kill": child_kill,
        "worker-kill": worker_kill,
        "coordinator-kill": coordinator_kill,
        "coordinator-away": coordinator_away,
        "backlog": backlog,
        "behind-long-task": behind_long_task,
        "memory": memory,
        "startup": startup,
        "idle": idle,
    }
)

_NEVER_QUICK = frozenset({"coordinator-away"})


def chosen(only: Sequence[str], *, quick: bool) -> list[str]:
    """Return the families to measure: those named, or all; a quick run leaves long ones out."""
    if only:
        return [name for name in FAMILIES if name in only]
    return [name for name in FAMILIES if not (quick and name in _NEVER_QUICK)]


def measure(bench: Bench, names: Sequence[str]) -> Samples:
    """Measure these families, one after another, and return all that they measured."""
    samples: dict[str, Sequence[float]] = {}
    for name in names:
        bench.tell(name)
        samples.update(FAMILIES[name](bench))
    return samples
