"""Where tasks stand that some workers lately could not run: beside their line, not in it.

A line holds what any worker of its class may have. A task at its head that the worker at hand must
avoid for now is shunted: it is noted here, on the track of its class and of the workers that it
avoids, and what stands behind it moves up. Each track is in line order and open to every worker
that it does not name, so that no worker ever looks at what it must not run, and one that comes
later finds all that the others could not run. Of a track that names all present workers nobody
takes anything. When its time has come, a task goes back to its place in line.

A siding holds names, not tasks: their rows are read from the store when they may be claimed, or go
back. It is a hint as a line is. What is noted here may have changed since; who takes it looks. It
never holds more than `SIDING_TASKS_MAX`; who finds it full lets the store remember the time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from holdfast.core.dispatch import Offer
from holdfast.model.limits import SIDING_TASKS_MAX

_TRACKS_MAX = 64
"""Tracks that one turn looks at, so that many workers which each lack something are no burden; the
others come up when these are empty, and their tasks go back to their lines in time."""
_SPARE = 64
"""So many entries without a task, and as many as there are tasks, are left in a heap."""


class Parked(msgspec.Struct, frozen=True, gc=False):
    """One task beside its line: its place in it, and which workers it avoids until when.

    `avoids` are the identities in order, with spaces between them.
    """

    rank: int
    task: bytes
    needs: str
    avoids: str
    until_ms: int


class Track:
    """The tasks of one class that avoid the same workers, in line order."""

    __slots__ = ("avoids", "concurrent", "entries", "held", "key", "needs")

    def __init__(self, needs: str, avoids: str) -> None:
        self.needs = needs
        self.key = f"{needs} {avoids}"
        self.concurrent = needs.endswith("~")
        self.avoids = frozenset(avoids.split())
        self.entries: list[tuple[int, bytes]] = []
        self.held: dict[bytes, None] = {}

    def is_open_to(self, offer: Offer) -> bool:
        """Whether a worker that serves the class has room, and may have what is here."""
        if offer.identity in self.avoids:
            return False
        return offer.takes(1, concurrent=self.concurrent)

    def push(self, rank: int, task: bytes) -> None:
        """Put a task in its place."""
        self.held[task] = None
        heapq.heappush(self.entries, (rank, task))
        if len(self.entries) > 2 * len(self.held) + _SPARE:
            self.entries = sorted({entry for entry in self.entries if entry[1] in self.held})

    def head(self) -> tuple[int, bytes] | None:
        """Return the first in line; entries of tasks that left are dropped on the way."""
        while self.entries and self.entries[0][1] not in self.held:
            heapq.heappop(self.entries)
        return self.entries[0] if self.entries else None

    def first(self, count: int) -> list[tuple[int, bytes]]:
        """Return the first in line, up to `count`."""
        return _first(self.entries, count, lambda entry: entry[1] in self.held)


class Siding:
    """All that stands beside the lines, and when it goes back."""

    __slots__ = ("_parked", "_times", "_tracks")

    def __init__(self) -> None:
        self._parked: dict[bytes, Parked] = {}
        self._tracks: dict[tuple[str, str], Track] = {}
        self._times: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self._parked) >= SIDING_TASKS_MAX

    def park(self, parked: Parked) -> tuple[Track, Parked | None]:
        """Note a task; return its track, and what was noted of it before."""
        former = self.take(parked.task)
        key = (parked.needs, parked.avoids)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = Track(*key)
        track.push(parked.rank, parked.task)
        self._parked[parked.task] = parked
        heapq.heappush(self._times, (parked.until_ms, parked.task))
        if len(self._times) > 2 * len(self._parked) + _SPARE:
            self._times = sorted((each.until_ms, each.task) for each in self._parked.values())
        return track, former

    def take(self, task: bytes) -> Parked | None:
        """Take a task away; return what was noted of it."""
        parked = self._parked.pop(task, None)
        if parked is not None:
            track = self._tracks[parked.needs, parked.avoids]
            del track.held[task]
            if not track.held:
                del self._tracks[parked.needs, parked.avoids]
        return parked

    def tracks(self) -> Iterable[Track]:
        """Return the tracks that this turn looks at."""
        return islice(self._tracks.values(), _TRACKS_MAX)

    def due(self, now_ms: int, *, limit: int) -> list[bytes]:
        """Return tasks that may be tried by all again, earliest first; they stay until taken."""
        times = _first(self._times, limit, self._stands)
        return [task for until_ms, task in times if until_ms <= now_ms]

    @property
    def next_ms(self) -> int:
        """When the next task goes back to its line, 0 for never."""
        times = _first(self._times, 1, self._stands)
        return times[0][0] if times else 0

    def classes(self) -> list[str]:
        """Return the classes of which anything is here."""
        return list(dict.fromkeys(needs for needs, _ in self._tracks))

    def forget(self, needs: str) -> None:
        """Hold nothing of a class any more: it is read from the store again when it is served."""
        for key in [key for key in self._tracks if key[0] == needs]:
            for task in list(self._tracks[key].held):
                self.take(task)

    def _stands(self, time: tuple[int, bytes]) -> bool:
        parked = self._parked.get(time[1])
        return parked is not None and parked.until_ms == time[0]


def _first(
    heap: list[tuple[int, bytes]], count: int, stands: Callable[[tuple[int, bytes]], bool]
) -> list[tuple[int, bytes]]:
    """Return the first entries of a heap that stand for something, and drop those before them."""
    found: list[tuple[int, bytes]] = []
    while heap and len(found) < count:
        entry = heapq.heappop(heap)
        # A task that left and came back has two entries.
        if stands(entry) and (not found or found[-1] != entry):
            found.append(entry)
    for entry in found:
        heapq.heappush(heap, entry)
    return found
