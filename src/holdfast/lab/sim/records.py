"""What the judge knows of the world: rows as they were committed, who was heard, who died.

Owns the mirror of the database and the measure of silence. It judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.coordinator.facts import Death
from holdfast.model.ids import TaskId
from holdfast.model.task import Life, Spec

VIOLATIONS_MAX = 20
DECIDING_SECONDS = 0.005
"""What may pass between the moment that a turn decides for, and its commit."""


@dataclass(slots=True)
class Records:
    """The mirror of one run."""

    rows: dict[TaskId, Life] = field(default_factory=dict)
    specs: dict[bytes, Spec] = field(default_factory=dict)
    code: dict[bytes, None] = field(default_factory=dict)
    """Digests of the functions that are kept."""
    tokens: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    """Every token that was ever committed → its task and fence."""
    spent: dict[bytes, None] = field(default_factory=dict)
    """Tokens under which nothing can be written any more because an outcome or an end was."""
    hasty: dict[bytes, str] = field(default_factory=dict)
    """Tokens that lapsed by a silence that was too short → how short it was."""
    outages: dict[str, int] = field(default_factory=dict)
    """Worker → how many coordinators in a row have counted that they listened to it in vain."""
    outages_before: dict[str, int] = field(default_factory=dict)
    """The same, before the present coordinator started."""
    in_vain: dict[str, float] = field(default_factory=dict)
    """Worker → for how long former coordinators have listened since one heard it last."""
    obstructed: dict[str, float] = field(default_factory=dict)
    """Host → until when anything but the death of a coordinator stood in its way."""
    heard: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Worker → when the coordinator last read a frame of it, and when the one before."""
    decided: tuple[float, dict[str, tuple[float, float]]] = (0.0, {})
    """When the turn that is being committed was decided, and who had been heard when by then."""
    died: dict[tuple[str, int], float] = field(default_factory=dict)
    """(worker, incarnation) → when it died."""
    testaments: dict[tuple[str, int], Death] = field(default_factory=dict)
    """(worker, incarnation) → what its guard tells of it after its death."""
    believed: dict[tuple[str, int], float] = field(default_factory=dict)
    """(worker, incarnation) → when the present coordinator took its guard's report."""
    buried: dict[tuple[str, int], None] = field(default_factory=dict)
    """(worker, incarnation) whose guard's report the present coordinator has judged."""
    given_up: dict[str, None] = field(default_factory=dict)
    """Workers whose session was closed for silence or death, until their next hello."""
    unheard: dict[bytes, None] = field(default_factory=dict)
    """Tokens that lapsed while nobody could tell whether they had begun."""
    coordinator_since: float = 0.0
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """When the present coordinator was frozen: from, to."""
    violations: list[str] = field(default_factory=list)
    recharged: dict[bytes, None] = field(default_factory=dict)

    def blame(self, text: str) -> None:
        """Note a violation, the first ones only."""
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(text)

    def hear(self, worker: str, now: float) -> None:
        """The coordinator reads a frame of a worker."""
        self.heard[worker] = (now, self.heard.get(worker, (0.0, 0.0))[0])

    def decide(self, now: float) -> None:
        """A turn was decided, and goes to the store."""
        self.decided = (now, dict(self.heard))

    def obstruct(self, host: str, until: float) -> None:
        """Something stands in the way of a host, and it may take a while to find its way again."""
        self.obstructed[host] = max(self.obstructed.get(host, 0.0), until)

    def ended_coordinator(self, now: float) -> None:
        """A coordinator dies: note for how long it had listened to whom in vain."""
        # Whoever is not heard now keeps what former ones have listened.
        for worker, (heard, _) in self.heard.items():
            before = self.in_vain.get(worker, 0.0) if heard < self.coordinator_since else 0.0
            since = max(heard, self.coordinator_since)
            self.in_vain[worker] = before + now - since - self._frozen(since, now, 0.0)

    def started_coordinator(self, now: float) -> None:
        """A coordinator begins to live."""
        self.coordinator_since = now
        self.outages_before = dict(self.outages)
        self.stalls.clear()
        self.believed.clear()
        self.buried.clear()

    def listened_seconds(self, worker: str, *, grain_seconds: float) -> float:
        """Return for how long a coordinator had heard nothing of a worker when it decided.

        It notices that it was frozen by its own ticks only: of each time up to `grain_seconds` may
        escape it.
        """
        now, heard = self.decided
        last, before = heard.get(worker, (0.0, 0.0))
        # What came while the turn was reading its rows, it could not know.
        since = max(last if last < now - DECIDING_SECONDS else before, self.coordinator_since)
        return now - since - self._frozen(since, now, grain_seconds)

    def _frozen(self, since: float, now: float, grain_seconds: float) -> float:
        """Return for how long the coordinator was frozen, as far as it may have noticed."""
        spans = [min(end, now) - max(start, since) for start, end in _merged(self.stalls)]
        return sum(max(0.0, span - grain_seconds) for span in spans)


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return times in order, those that overlap as one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
