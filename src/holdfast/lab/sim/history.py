"""The history of one run: lines of text in the order of things, and their digest.

Owns the names that tasks bear in it, so that two runs can be compared by eye. Nothing that depends
on addresses, hashes or real time may enter.
"""

from __future__ import annotations

import hashlib

from holdfast.lab.sim.loop import SimLoop


class History:
    """All that happened in one run. `keep` False counts and digests without keeping the lines."""

    __slots__ = ("_digest", "_keep", "_loop", "_names", "count", "lines")

    def __init__(self, loop: SimLoop, *, keep: bool) -> None:
        self._loop = loop
        self._keep = keep
        self._digest = hashlib.sha256()
        self._names: dict[bytes, str] = {}
        self.count = 0
        self.lines: list[str] = []

    def name(self, task: bytes, name: str) -> None:
        """Give a task a name for this history."""
        self._names[task] = name

    def name_of(self, task: bytes) -> str:
        """Return a task's name; the end of its id where it has none."""
        return self._names.get(task) or task.hex()[-8:]

    def add(self, who: str, what: str) -> None:
        """Write a line."""
        line = f"{self._loop.time():.6f} {who} {what}"
        self.count += 1
        self._digest.update(line.encode())
        self._digest.update(b"\n")
        if self._keep:
            self.lines.append(line)

    def digest(self) -> str:
        """Return the SHA-256 of all lines, in hexadecimal."""
        return self._digest.hexdigest()
