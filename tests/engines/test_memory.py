"""How much memory there is: that of the machine, or of the tightest group around us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.engines.memory import memory_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V1 = "3:cpu,memory:/jobs/ours"
V2 = "0::/jobs/ours"


def groups(tmp_path: Path, line: str, limits: dict[str, str]) -> int:
    """Return what is read of groups with these limits."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{line}\n")
    for name, text in limits.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return memory_bytes(proc=tmp_path / "proc", cgroups=tmp_path / "groups")


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        (V2, {"jobs/ours/memory.max": "5000"}, 5000),
        (V2, {"jobs/ours/memory.max": "max"}, MACHINE),
        (V2, {"jobs/ours/memory.max": "5000", "jobs/memory.max": "300"}, 300),
        (V2, {"jobs/ours/memory.max": "max", "jobs/memory.max": "max"}, MACHINE),
        (V1, {"memory/jobs/ours/memory.limit_in_bytes": "700"}, 700),
        (V1, {"memory/jobs/ours/memory.limit_in_bytes": str(1 << 62)}, MACHINE),
        (V2, {}, MACHINE),
        ("5:cpu:/x", {}, MACHINE),
    ],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, line: str, limits: dict[str, str], expected: int
) -> None:
    assert groups(tmp_path, line, limits) == expected


def test_without_groups_it_is_that_of_the_machine(tmp_path: Path) -> None:
    assert memory_bytes(proc=tmp_path, cgroups=tmp_path) == MACHINE
