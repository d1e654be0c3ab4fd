"""The machine that was measured, as flat keys for the report. Reads, and changes nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path


def describe(directory: Path) -> dict[str, str | int | float]:
    """Return the keys of a description; `directory` is where the databases stood."""
    return {
        "machine_cpu": _cpu_model(),
        "machine_cores": len(os.sched_getaffinity(0)),
        "machine_memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
        ),
        "machine_kernel": f"{platform.system()} {platform.release()}",
        "machine_python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine_sqlite": sqlite3.sqlite_version,
        "machine_file_system": file_system(directory),
        "machine_load_average_at_start": round(os.getloadavg()[0], 2),
    }


def file_system(directory: Path) -> str:
    """Return the type of the file system of a directory, such as ext4 or tmpfs."""
    place = directory.resolve()
    best, kind = -1, "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        # Spaces in a mount point are written in octal; later mounts cover earlier ones.
        where = Path(mount.replace("\\040", " "))
        if place.is_relative_to(where) and len(where.parts) >= best:
            best, kind = len(where.parts), name
    return kind


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
