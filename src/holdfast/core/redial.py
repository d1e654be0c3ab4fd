"""When to dial again, and whom: exponential backoff with full jitter, over all doors in turn.

Full jitter at every step, also at the cap, so that workers cut off together do not come back
together (Brooker, "Exponential Backoff And Jitter", 2015). The first try after a loss comes almost
at once: most losses are a coordinator that restarts.
"""

from __future__ import annotations

from holdfast.model.ids import Entropy

BASE_SECONDS = 0.05
CAP_SECONDS = 2.0
"""Well below what a coordinator listens before it counts a worker as missed (`model.limits`)."""
FIRST_SECONDS_MAX = 0.02
_DOUBLINGS_MAX = 16


def pause_seconds(failures: int, rng: Entropy) -> float:
    """Return how long to wait before another try, after so many in a row have failed."""
    if failures == 0:
        ceiling = FIRST_SECONDS_MAX
    else:
        doublings = min(failures - 1, _DOUBLINGS_MAX)
        ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0**doublings)
    return rng.random() * ceiling


class Redial:
    """The next delay and the next door of one dialling party."""

    __slots__ = ("_door", "_doors", "_failures", "_rng")

    def __init__(self, rng: Entropy, *, doors: int) -> None:
        self._rng = rng
        self._doors = doors
        self._door = -1
        self._failures = 0

    def next(self) -> tuple[int, float]:
        """Return the number of the door to try, and in how many seconds."""
        self._door = (self._door + 1) % self._doors
        # A round over all doors counts as one failure, and has the time of one.
        rounds = -(-self._failures // self._doors)
        self._failures += 1
        return self._door, pause_seconds(rounds, self._rng) / self._doors

    def welcomed(self) -> None:
        """A door opened: stay with it, and begin anew after the next loss."""
        self._failures = 0
        self._door -= 1
