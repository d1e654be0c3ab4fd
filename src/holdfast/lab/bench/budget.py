"""The budget of one no-op task, measured: CPU microseconds of each part beside what it may take.

User time of a part is its threads' own; the time that the kernel spent for any of them is a part
by itself. The main thread of a coordinator decides, its other threads are the store's.
"""

from __future__ import annotations

import os

from holdfast.lab.bench.processes import Cpu, Crew, cpu_of, cpu_of_children

BUDGET_US = (
    ("sdk", "SDK", 18),
    ("coordinator", "coordinator's Python", 32),
    ("sqlite", "SQLite's threads", 18),
    ("supervisor", "supervisor", 12),
    ("child", "children", 8),
    ("kernel", "kernel, for all of them", 10),
)
"""Name, title and microseconds a task at 20,000 tasks/s on two full cores."""


class Meter:
    """Sums the CPU time of every part over the spans between `start` and `stop`."""

    def __init__(self, crew: Crew) -> None:
        self._pids = {
            "sdk": (os.getpid(),),
            "coordinator": (crew.coordinator,),
            "supervisor": (crew.supervisor, crew.guard),
        }
        self._nursery = crew.nursery
        self._begun: dict[str, Cpu] = {}
        self._spent: dict[str, Cpu] = dict.fromkeys((*self._pids, "child"), Cpu())

    def start(self) -> None:
        """Begin a span."""
        self._begun = self._read()

    def stop(self) -> None:
        """End the span."""
        for part, cpu in self._read().items():
            self._spent[part] += cpu - self._begun[part]

    def per_task_us(self, tasks: int) -> dict[str, float]:
        """Return microseconds a task for each part of the budget."""
        spent = self._spent
        seconds = {part: cpu.main + cpu.others for part, cpu in spent.items()}
        seconds["coordinator"] = spent["coordinator"].main
        seconds["sqlite"] = spent["coordinator"].others
        seconds["kernel"] = sum(cpu.kernel for cpu in spent.values())
        return {part: seconds[part] / tasks * 1e6 for part, _, _ in BUDGET_US}

    def _read(self) -> dict[str, Cpu]:
        spent = {part: sum(map(cpu_of, pids), Cpu()) for part, pids in self._pids.items()}
        return spent | {"child": cpu_of_children(self._nursery)}
