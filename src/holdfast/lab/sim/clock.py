"""Clocks of simulated hosts: virtual time, and a wall clock that faults set forward and back.

Owns what a party reads as time. Never advances anything: the loop does.
"""

from __future__ import annotations

import random

from holdfast.lab.sim.loop import Party, SimLoop

EPOCH_MS = 1_700_000_000_000
"""Where the wall clocks of all hosts stand at the beginning."""
BOOT_SECONDS_MAX = 1_000_000.0


class HostTime:
    """The hardware clock of one host; it outlives the processes on it."""

    __slots__ = ("_highest_ms", "boot_seconds", "wall_offset_ms")

    def __init__(self, rng: random.Random) -> None:
        self.boot_seconds = rng.random() * BOOT_SECONDS_MAX
        """How long the host had been up: no two monotonic clocks can be compared."""
        self.wall_offset_ms = 0
        self._highest_ms = 0

    def jump(self, by_ms: int) -> None:
        """Set the wall clock forward or back by so many milliseconds."""
        self.wall_offset_ms += by_ms
        self._highest_ms = max(self._highest_ms, self.wall_offset_ms)

    def latest_ms(self, now: float) -> int:
        """Return the latest time that its wall clock can have shown until `now`."""
        return EPOCH_MS + int(now * 1000) + self._highest_ms

    def mend(self) -> None:
        """Set a clock that was set back to where it would be.

        One that was set forward stays so: what reads it stands still for as long as it is set
        back, and an hour of that would outlast the run.
        """
        self.wall_offset_ms = self._highest_ms


class SimClock:
    """`ports.Clock` of one process on a host."""

    __slots__ = ("_host", "_loop", "_party", "_wall_ms")

    def __init__(self, loop: SimLoop, host: HostTime, party: Party) -> None:
        self._loop = loop
        self._host = host
        self._party = party
        self._wall_ms = 0

    def monotonic(self) -> float:
        """Seconds since the host started."""
        self._party.alive()
        return self._host.boot_seconds + self._loop.time()

    def wall_ms(self) -> int:
        """Milliseconds since the epoch; stands still while the host's clock was set back."""
        self._party.alive()
        now_ms = EPOCH_MS + int(self._loop.time() * 1000) + self._host.wall_offset_ms
        self._wall_ms = max(self._wall_ms, now_ms)
        return self._wall_ms
