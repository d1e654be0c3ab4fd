"""Chance from the operating system, drawn in bulk: a system call for 512 ids, not for each."""

from __future__ import annotations

import os

_POOL_BYTES = 4096


class BulkEntropy:
    """An `Entropy` over `os.urandom`. Not for several threads at once, nor for a forked child."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def randbytes(self, n: int, /) -> bytes:
        """Return n bytes of the pool, which is filled anew when it is used up."""
        end = self._at + n
        if end > len(self._pool):
            self._pool = os.urandom(max(_POOL_BYTES, n))
            self._at, end = 0, n
        drawn = self._pool[self._at : end]
        self._at = end
        return drawn

    def random(self) -> float:
        """Return a number from 0 to below 1: 53 bits, all that a float holds there."""
        return (int.from_bytes(self.randbytes(7), "big") >> 3) * 2.0**-53
