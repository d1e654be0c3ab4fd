"""What this process may use of memory: that of its machine, or of its memory cgroup.

Reads cgroups of either version, and judges nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def memory_bytes(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return how many bytes this process and its children may use together."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = cgroup_file("memory.max", "memory.limit_in_bytes", proc=proc, cgroups=cgroups)
    while limit is not None:
        machine = min(machine, _number(limit) or machine)
        # A group is bound by all that it lies in.
        above = limit.parent.parent / limit.name
        limit = above if above.is_file() and cgroups in above.parents else None
    return machine


def cgroup_file(
    unified: str, former: str, *, proc: Path = PROC, cgroups: Path = CGROUPS
) -> Path | None:
    """Return a file of our memory cgroup: `unified` of version 2, or `former` of version 1."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        below = path.lstrip("/")
        if "memory" in controllers.split(","):
            file = cgroups / "memory" / below / former
        elif not controllers:
            file = cgroups / below / unified
        else:
            continue
        if file.is_file():
            return file
    return None


def _number(file: Path) -> int:
    """Return the limit in a file, 0 for none: version 2 writes `max`."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
