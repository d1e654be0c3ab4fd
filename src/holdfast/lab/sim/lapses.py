"""The oracle of leases that end without a word from their holder: by silence, death, or a hello.

Independent of `core`: it re-states the rows of LEASES.md over what the world knows. A lapse that
comes too early does no harm by itself, because who comes back in time goes on: it is noted, and
blamed where the next claim runs again what had begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from holdfast.lab.sim.misfortunes import COORDINATOR
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.sessions import Sessions
from holdfast.lab.sim.witness import Witness
from holdfast.model.task import Lease, Life, Owed, Phase
from holdfast.ports import Event, WorkerRow

SILENT, DIED, UNNAMED = "worker silent", "worker died", "worker came back without it"
LAPSES = (SILENT, DIED, UNNAMED)
GIVEN_UP = (SILENT, DIED)
"""Those that close the session of who held the lease."""
GIVEN_BACK_MAX = 2
"""So many outages in a row begin a lease anew; the next ones count as silence."""
OUTAGE_SECONDS = 3.0
"""For how long each of these counts, the least that is given back, and what a coordinator must have
listened before it counts one."""
OBSTRUCTED_SECONDS = 15.0
"""What a worker may take to find its way again after something stood in it."""
SLACK_SECONDS = 0.001
UNDECIDED_SECONDS = 0.1
"""What a turn gathered so long before it decided may still be without the newest report."""
TICKS_UNSEEN = 1.5
"""A coordinator that was frozen for less than this many of its ticks may not know of it."""

Spooled = Callable[[str], Collection[bytes]]
"""Worker → the tokens whose outcome is durable on its disk."""


class Lapses:
    """Judges the lapses of one run."""

    def __init__(
        self,
        records: Records,
        sessions: Sessions,
        witness: Witness,
        spooled: Spooled,
        *,
        lease_seconds: float,
    ) -> None:
        self._records = records
        self._sessions = sessions
        self._witness = witness
        self._spooled = spooled
        self._lease_seconds = lease_seconds

    def faults(self, before: Life, event: Event, hello: WorkerRow | None) -> Iterator[str]:
        """Yield what is wrong with one lapse; `hello` is the one that its turn commits, if any."""
        records = self._records
        records.hasty.pop(before.token, None)
        if event.kind == SILENT:
            records.unheard[before.token] = None
            yield from self._silent(before)
            yield from self._owes_for_silence(before, event.detail)
        elif (before.worker, before.incarnation) not in records.died and event.kind == DIED:
            yield f"{before.worker} was declared dead, and lives"
        elif event.kind == DIED:
            yield from self._died(before, event.detail, hello)
        elif hello is None:
            yield f"{before.worker} came back without it, but said no hello"
        else:
            yield from self._unnamed(before, hello)

    def _silent(self, before: Life) -> Iterator[str]:
        records, worker = self._records, before.worker
        grain = TICKS_UNSEEN * min(1.0, self._lease_seconds / 10)
        listened = records.listened_seconds(worker, grain_seconds=grain)
        heard_at, _ = records.decided[1].get(worker, (0.0, 0.0))
        due = due_seconds(records, worker, heard_at, self._lease_seconds)
        in_vain = records.in_vain.get(worker, 0.0) if heard_at < records.coordinator_since else 0.0
        whole = listened + in_vain >= self._lease_seconds - SLACK_SECONDS
        lives = (worker, before.incarnation) not in records.died
        if lives and self._way_was_free(worker, heard_at):
            records.hasty[before.token] = f"{worker} lived, and nothing stood in its way"
        elif listened >= due - SLACK_SECONDS and whole:
            return
        elif lives:
            text = f"{worker} was silent for {listened:.3f} s of {due:g} s, {in_vain:.3f} s before"
            records.hasty[before.token] = text
        elif before.lease is Lease.HELD and before.token in self._told_spooled(before):
            yield f"after {listened:.3f} s it did not wait for its outcome, told to be spooled"

    def _way_was_free(self, worker: str, since: float) -> bool:
        """Whether only coordinators that died kept a worker from being heard since then."""
        until = (self._records.obstructed.get(host, -1e9) for host in (worker, COORDINATOR))
        return max(until) + OBSTRUCTED_SECONDS < since

    def missed(self, worker: str) -> Iterator[str]:
        """Yield what is wrong with an outage that is counted."""
        records = self._records
        heard_at, _ = records.decided[1].get(worker, (0.0, 0.0))
        listened = records.listened_seconds(worker, grain_seconds=TICKS_UNSEEN)
        if heard_at >= records.coordinator_since:
            yield f"{worker} was counted as missed, and has been heard"
        elif listened < OUTAGE_SECONDS - SLACK_SECONDS:
            yield f"{worker} was counted as missed after {listened:.3f} s"

    def _owes_for_silence(self, before: Life, owed: str) -> Iterator[str]:
        """What had begun costs a loss, what nobody knows of is charged as unheard."""
        token, life = before.token, (before.worker, before.incarnation)
        records = self._records
        told = life in records.testaments and token in records.testaments[life].started
        # A report that is read, and judged after the silence, puts right what that has charged.
        if before.phase is Phase.STARTED or (told and life in records.buried):
            yield from _owing(before, owed, Owed.LOSS, "silence")
        elif told and life in records.believed:
            # It may be judged in this very turn.
            return
        elif token not in self._sessions.begun:
            yield from _owing(before, owed, Owed.UNHEARD, "silence")

    def _told_spooled(self, before: Life) -> Collection[bytes]:
        """Return the tokens that the holder's guard named as spooled, as the turn knew of it."""
        life, records = (before.worker, before.incarnation), self._records
        decided_at, heard = records.decided
        taken_at = records.believed.get(life)
        known = taken_at is not None and taken_at < decided_at - UNDECIDED_SECONDS
        # What was heard since is another life, and says nothing about how long this one is silent.
        heard_at, _ = heard.get(before.worker, (0.0, 0.0))
        return records.testaments[life].spooled if known and heard_at <= records.died[life] else ()

    def _died(self, before: Life, owed: str, hello: WorkerRow | None) -> Iterator[str]:
        worker, token = before.worker, before.token
        told = self._records.testaments.get((worker, before.incarnation))
        unread = self._sessions.unread(worker, before.incarnation)
        if told is None:
            yield f"{worker} was declared dead, and nobody told of it"
            return
        if unread and hello is None:
            # A hello of the next life ends the former one, whatever that has on the way.
            yield f"{worker} was declared dead with {unread} of its frames unread"
        if token in told.spooled and before.lease is Lease.HELD:
            yield "it did not wait for its outcome, which was told to be spooled"
        elif token in told.started:
            yield from _owing(before, owed, Owed.LOSS, "death")
        elif before.phase is Phase.ASSIGNED and token not in self._sessions.begun:
            yield from _owing(before, owed, Owed.FREE, "death")

    def _unnamed(self, before: Life, hello: WorkerRow) -> Iterator[str]:
        worker, token = before.worker, before.token
        if token in self._spooled(worker):
            yield f"run {before.fence}'s outcome rests in the spool of {worker}, which lost it"
        elif hello.incarnation > before.incarnation:
            # A new life came before its guard's word about the former one: nobody knows.
            self._records.unheard[token] = None
        elif self._witness.ran(token):
            yield f"run {before.fence} began on {worker}, which lost it"


def due_seconds(records: Records, worker: str, heard_at: float, lease_seconds: float) -> float:
    """Return for how long a worker, heard last then, may be silent before this coordinator."""
    if heard_at >= records.coordinator_since:
        return lease_seconds
    outages = records.outages_before.get(worker, 0)
    if outages < GIVEN_BACK_MAX:
        return max(lease_seconds, OUTAGE_SECONDS)
    return max(0.0, lease_seconds - OUTAGE_SECONDS * (outages + 1 - GIVEN_BACK_MAX))


def _owing(before: Life, owed: str, due: Owed, why: str) -> Iterator[str]:
    if owed not in (due.text, Owed.NOTHING.text):
        yield f"run {before.fence} owes a {owed} for its worker's {why}, and should a {due.text}"
