"""One timer for everything that falls due: the earliest time counts, the others wait behind it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

SLACK_SECONDS = 1e-6
"""An alarm rings surely after its time: one that rings a rounding error early would spin."""


class Alarm:
    """Rings once at the earliest of the times it was told. One ring too many is cheap."""

    __slots__ = ("_at", "_ring", "_timer")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, now: float, *dues: float) -> None:
        """Ring at the first of these times, where it comes before what was set already.

        Times that are not after `now` do not count: what was due then has been done.
        """
        when = min((due for due in dues if due > now), default=math.inf)
        if when < self._at:
            self.stop()
            self._at = when
            delay = when - now + SLACK_SECONDS
            self._timer = asyncio.get_running_loop().call_later(delay, self._rang)

    def stop(self) -> None:
        """Do not ring before it is set again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._at = math.inf

    def _rang(self) -> None:
        self._timer = None
        self._at = math.inf
        self._ring()
