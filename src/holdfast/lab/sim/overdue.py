"""The oracle of what should have happened by now, and has not.

Independent of `core`: it looks at the world twice a second, at all that nobody commits and nobody
says. A lease must not outlive the silence of its holder, and what a child runs must be told where
nothing is in the way. While anything is, it waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from holdfast.lab.sim.lapses import OUTAGE_SECONDS, due_seconds
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.witness import Witness
from holdfast.model.ids import TaskId
from holdfast.model.task import Lease, Phase

LOOK_SECONDS = 0.5
LATE_SECONDS = 3.5
"""A tick, a turn, and what a store in doubt takes to be asked what became of its last turn."""
TOLD_SECONDS = 4.0
"""After so long on a line in order, what a child runs counts as started."""


class Surroundings(Protocol):
    """What may be in the way."""

    def coordinator_works(self) -> bool:
        """Return whether a coordinator lives, is not frozen, and its disk has no fault."""
        ...

    def line_of(self, worker: str) -> object | None:
        """Return a worker's connection where nothing is in its way, None where anything is."""
        ...


class Overdue:
    """Looks for what is late in one run."""

    def __init__(
        self,
        records: Records,
        witness: Witness,
        around: Surroundings,
        *,
        lease_seconds: float,
    ) -> None:
        self._records = records
        self._witness = witness
        self._around = around
        self._lease_seconds = lease_seconds
        self._well_since = 0.0
        self._lines: dict[str, tuple[object, float]] = {}
        """Worker → its line, and since when nothing is in its way."""

    def look(self, now: float) -> Iterator[tuple[TaskId, str]]:
        """Yield each task of which something is late, and what."""
        if not self._around.coordinator_works():
            self._well_since = now
            self._lines.clear()
            return
        for task, life in self._records.rows.items():
            if life.lease is not Lease.HELD:
                continue
            wrong = self._silence(life.worker, now) or self._uncounted(life.worker, now)
            if not wrong and life.phase is Phase.ASSIGNED:
                wrong = self._untold(life.worker, life.token, now)
            if wrong:
                yield task, wrong

    def _silence(self, worker: str, now: float) -> str:
        records = self._records
        heard, _ = records.heard.get(worker, (0.0, 0.0))
        since = max(heard, records.coordinator_since, self._well_since)
        due = due_seconds(records, worker, heard, self._lease_seconds)
        if now - since <= due + LATE_SECONDS:
            return ""
        return f"{worker} holds it, and was silent for {now - since:.1f} s of {due:g} s"

    def _uncounted(self, worker: str, now: float) -> str:
        records = self._records
        heard, _ = records.heard.get(worker, (0.0, 0.0))
        counted = records.outages.get(worker, 0) > records.outages_before.get(worker, 0)
        since = max(records.coordinator_since, self._well_since)
        if heard >= records.coordinator_since or counted:
            return ""
        if now - since <= OUTAGE_SECONDS + LATE_SECONDS:
            return ""
        return f"{worker} holds it, was missed for {now - since:.1f} s, and is not counted so"

    def _untold(self, worker: str, token: bytes, now: float) -> str:
        line = self._around.line_of(worker)
        known, since = self._lines.get(worker, (None, now))
        if line is None or line is not known:
            self._lines[worker] = (line, now)
            return ""
        for run in self._witness.runs.get(token, ()):
            if run.ended < 0 and now - max(since, run.began) > TOLD_SECONDS:
                return f"{worker} runs it since {run.began:.3f}, and nobody knows"
        return ""
