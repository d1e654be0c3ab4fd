"""What Linux tells of a process: its CPU time by thread, and the memory that it has for itself.

Reads `/proc` and changes nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from holdfast.lab.cluster import descendants

_KB = 1024
_NURSERY = b"holdfast.engines.nursery"
_GUARD = b"holdfast.engines.guard"


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds: of the main thread, of all others, and of the kernel on behalf of any."""

    main: float = 0.0
    others: float = 0.0
    kernel: float = 0.0

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(
            self.main - earlier.main, self.others - earlier.others, self.kernel - earlier.kernel
        )

    def __add__(self, more: Cpu) -> Cpu:
        return Cpu(self.main + more.main, self.others + more.others, self.kernel + more.kernel)

    @property
    def total(self) -> float:
        """All seconds, of user and kernel."""
        return self.main + self.others + self.kernel


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes of one coordinator and one worker, by pid."""

    coordinator: int
    supervisor: int
    guard: int
    nursery: int
    minders: tuple[int, ...]
    children: tuple[int, ...]


def crew_of(coordinator: int, supervisor: int) -> Crew:
    """Find the guard, the nursery and the children below a supervisor."""
    below = {pid: _command(pid) for pid in descendants(supervisor)}
    guard = next(pid for pid, command in below.items() if _GUARD in command)
    offspring = [pid for pid, command in below.items() if _NURSERY in command]
    nursery = next(pid for pid in offspring if _parent(pid) == guard)
    minders = tuple(pid for pid in offspring if _parent(pid) == nursery)
    children = tuple(pid for pid in offspring if _parent(pid) in minders)
    return Crew(coordinator, supervisor, guard, nursery, minders, children)


def cpu_of(pid: int) -> Cpu:
    """Return the CPU time of a process's living threads, in ticks of mostly 10 ms."""
    seconds = 1 / os.sysconf("SC_CLK_TCK")
    cpu = Cpu()
    for name in os.listdir(f"/proc/{pid}/task"):
        try:
            fields = _stat(pid, int(name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has ended meanwhile
        user, kernel = int(fields[11]) * seconds, int(fields[12]) * seconds
        is_main = int(name) == pid
        cpu += Cpu(user if is_main else 0.0, 0.0 if is_main else user, kernel)
    return cpu


def cpu_of_children(nursery: int) -> Cpu:
    """Return the CPU time of all children of a nursery, and of those that ended.

    Children are replaced after so many tasks: their time is in what their parents waited for.
    """
    seconds = 1 / os.sysconf("SC_CLK_TCK")
    fields = _stat(nursery, nursery)
    cpu = Cpu(main=int(fields[13]) * seconds, kernel=int(fields[14]) * seconds)
    for pid in descendants(nursery):
        try:
            # Between the two stand minders, who do nothing.
            cpu += cpu_of(pid) if _parent(pid) != nursery else Cpu()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return cpu


def pss_mb(pid: int) -> float:
    """Return the proportional set size in MB: shared pages are divided among who shares them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * _KB / 1e6
    raise ValueError(f"the kernel does not tell the PSS of process {pid}")


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _parent(pid: int) -> int:
    return int(_stat(pid, pid)[1])


def _stat(pid: int, thread: int) -> list[bytes]:
    """Return the fields from the state on; see proc_pid_stat(5), fields 3 and later."""
    return Path(f"/proc/{pid}/task/{thread}/stat").read_bytes().rpartition(b")")[2].split()
