"""What is known of a death: the end of its stderr, and whether memory ran out.

Reads the memory cgroup of this process, of either version; without one there is no evidence.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.engines.memory import CGROUPS, PROC, cgroup_file
from holdfast.model.limits import EVIDENCE_BYTES_MAX


class Tail:
    """The last `EVIDENCE_BYTES_MAX` bytes of a stream."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        """Append what was read."""
        self._data = (self._data + data)[-EVIDENCE_BYTES_MAX:]

    def text(self) -> str:
        """Return it as text of at most as many bytes; a character cut in two is left out."""
        text = self._data.decode(errors="replace").lstrip("\N{REPLACEMENT CHARACTER}")
        return text.encode()[-EVIDENCE_BYTES_MAX:].decode(errors="ignore")


class OomEvidence:
    """Counts of processes that the kernel killed for want of memory in our cgroup."""

    __slots__ = ("_file", "_kills")

    def __init__(self, *, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._file = cgroup_file("memory.events", "memory.oom_control", proc=proc, cgroups=cgroups)
        self._kills = 0
        self._kills = self._read()

    def grew(self) -> bool:
        """Tell whether the count has grown since the last question."""
        before, self._kills = self._kills, self._read()
        return self._kills > before

    def _read(self) -> int:
        """Return the count; where it cannot be read now, the one before."""
        if self._file is None:
            return 0
        try:
            lines = self._file.read_text(encoding="ascii").splitlines()
            counts = (int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
            return next(counts, self._kills)
        except (OSError, ValueError, IndexError):
            return self._kills
