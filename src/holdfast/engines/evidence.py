"""What is known of a death: the end of its stderr, and whether memory ran out.

Reads the memory cgroup of this process, of either version; without one there is no evidence.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from holdfast.engines.memory import CGROUPS, PROC, cgroup_file
from holdfast.model.limits import EVIDENCE_BYTES_MAX

LOOK_SECONDS: Final = 5.0
"""How often the count is read while nobody dies: longer than a death may take to be told of."""


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
    """Counts of processes that the kernel killed for want of memory in our cgroup.

    What a task has started may be killed and its child live on: a count that grew before the child
    was born, or more than two looks ago, says nothing of its death.
    """

    __slots__ = ("_before", "_file", "_kills", "_timer")

    def __init__(self, *, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._file = cgroup_file("memory.events", "memory.oom_control", proc=proc, cgroups=cgroups)
        self._kills = 0
        self._kills = self._before = self.count()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look at the count from time to time, until closed."""
        if self._file is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_SECONDS, self._look_again)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def count(self) -> int:
        """Return the count; where it cannot be read now, the one before."""
        if self._file is None:
            return 0
        try:
            lines = self._file.read_text(encoding="ascii").splitlines()
            counts = (int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
            return next(counts, self._kills)
        except (OSError, ValueError, IndexError):
            return self._kills

    def look(self) -> None:
        """Let what had grown at the look before count no more."""
        self._before, self._kills = self._kills, self.count()

    def grew(self, since: int = 0) -> bool:
        """Tell whether the count has grown of late, and above `since`; each growth is told once."""
        before = max(self._before, since)
        self._kills = self._before = self.count()
        return self._kills > before

    def _look_again(self) -> None:
        self.look()
        self.watch()
