"""The real clock. Nothing else of the product reads time by itself."""

from __future__ import annotations

import time


class SystemClock:
    """`ports.Clock` of a running process."""

    __slots__ = ("_wall_ms",)

    def __init__(self) -> None:
        self._wall_ms = 0

    def monotonic(self) -> float:
        """Seconds since the machine started, sleep included (CLOCK_BOOTTIME where there is one)."""
        return time.clock_gettime(_BOOTTIME)

    def wall_ms(self) -> int:
        """Milliseconds since the epoch; a wall clock that is set back stands still here."""
        self._wall_ms = max(self._wall_ms, time.time_ns() // 1_000_000)
        return self._wall_ms


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
