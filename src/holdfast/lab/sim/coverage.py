"""Crash points: every commit and every effect, before and after, by the kind of what is done.

Owns which points were passed, at which a party died, and which one is set to be deadly next. It
decides nothing by chance: the plan does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from holdfast.lab.sim.loop import Party, SimCrash

BEFORE = "before"
AFTER = "after"

Point = tuple[str, str, str]
"""Role of the party, kind of what it does, before or after."""


class CrashPoints:
    """The crash points of one run. `crash` is called with the party that dies at one."""

    __slots__ = ("_armed", "_crash", "crashed", "passed")

    def __init__(self, crash: Callable[[Party, Point], None]) -> None:
        self._crash = crash
        self._armed: dict[str, list[tuple[str, str, int]]] = {}
        self.passed: dict[Point, int] = {}
        self.crashed: dict[Point, int] = {}

    def arm(self, party: str, kind: str, when: str, *, skip: int) -> None:
        """Let the party of this name die at a point, after passing it `skip` times."""
        self._armed.setdefault(party, []).append((kind, when, skip))

    def disarm(self) -> list[tuple[str, str, str]]:
        """Forget all points that were not reached; return them as (party, kind, when)."""
        left = [(name, kind, when) for name, arms in self._armed.items() for kind, when, _ in arms]
        self._armed.clear()
        return left

    def touch(self, party: Party, kinds: Iterable[str], when: str) -> None:
        """A party stands at a point. Raises SimCrash where it is set to be deadly."""
        for kind in kinds:
            point = (party.role, kind, when)
            self.passed[point] = self.passed.get(point, 0) + 1
            if party.name in self._armed and self._falls(party, kind, when):
                self.crashed[point] = self.crashed.get(point, 0) + 1
                self._crash(party, point)
                raise SimCrash(party.name)

    @contextmanager
    def around(self, party: Party, kind: str) -> Iterator[None]:
        """A party does what is done in here, and stands at a point before it and after it."""
        self.touch(party, (kind,), BEFORE)
        yield
        self.touch(party, (kind,), AFTER)

    def _falls(self, party: Party, kind: str, when: str) -> bool:
        arms = self._armed[party.name]
        for index, (armed, moment, skip) in enumerate(arms):
            if armed == kind and moment == when:
                if skip > 0:
                    arms[index] = (armed, moment, skip - 1)
                    continue
                del arms[index]
                if not arms:
                    del self._armed[party.name]
                return True
        return False


def rows(
    passed: dict[Point, int], crashed: dict[Point, int]
) -> list[tuple[str, int, int, int, int]]:
    """Return for each kind of point: passed and died before it, passed and died after it."""
    found: list[tuple[str, int, int, int, int]] = []
    for role, kind in sorted({(role, kind) for role, kind, _ in passed}):
        before, after = (role, kind, BEFORE), (role, kind, AFTER)
        counts = [total.get(point, 0) for point in (before, after) for total in (passed, crashed)]
        found.append((f"{role} {kind}", counts[0], counts[1], counts[2], counts[3]))
    return found


def table(passed: dict[Point, int], crashed: dict[Point, int]) -> list[str]:
    """Return the coverage of crash points as lines: how often passed, how often deadly."""
    lines = [
        f"{'point':34} {'before':>16} {'after':>16}",
        f"{'':34} {'passed   died':>16} {'passed   died':>16}",
    ]
    for point, *counts in rows(passed, crashed):
        cells = [f"{counts[at]:>9} {counts[at + 1]:>6}" for at in (0, 2)]
        lines.append(f"{point:34} {cells[0]:>16} {cells[1]:>16}")
    return lines


def markdown(passed: dict[Point, int], crashed: dict[Point, int]) -> list[str]:
    """Return the same as a Markdown table without outer pipes."""
    lines = ["crash point | passed before | died before | passed after | died after"]
    lines.append("--- | ---: | ---: | ---: | ---:")
    lines += [" | ".join([point, *map(str, counts)]) for point, *counts in rows(passed, crashed)]
    return lines


def missing(passed: dict[Point, int], crashed: dict[Point, int]) -> list[Point]:
    """Return the points that were passed but at which nobody ever died, in order."""
    return sorted(point for point in passed if not crashed.get(point))
