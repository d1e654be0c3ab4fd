"""The oracle of commits: each transaction is held against LEASES.md and against the witness.

Independent of `core`: it re-states the rules in its own words, over the row before and the row
after. The story that a transaction tells (its events) must explain what it does to a lease, and
must be true of the world outside. It never stops a run; it notes violations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from msgspec.structs import replace

from holdfast.lab.sim import charges
from holdfast.lab.sim.history import History
from holdfast.lab.sim.lapses import GIVEN_UP, LAPSES, Lapses
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.sessions import Sessions
from holdfast.lab.sim.witness import Blobs, Witness, behaviour_of, blob_of, doing, result_of
from holdfast.model.ids import TaskId
from holdfast.model.task import TERMINAL_MIN, Lease, Life, Phase, State, Task, Wanted
from holdfast.ports import Changes, Event, Receipt, WorkerRow

TRUE_ENDINGS = {
    # outcome: how a run under its token must have ended
    "raised": ("raised", "interrupted"),
    "crashed": ("crashed", "killed"),
    "out_of_memory": ("out_of_memory",),
    "environment": ("environment",),
    "invalid": ("invalid",),
    "stopped": ("killed", "crashed"),
}
OUTCOMES = (*TRUE_ENDINGS, "returned", "timed_out", "checkpointed")


class Outside(Protocol):
    """What the judge may ask of the world, beside what is said and committed."""

    def spooled(self, worker: str) -> Collection[bytes]:
        """Return the tokens whose outcome is durable on a worker's disk."""
        ...

    def latest_wall_ms(self) -> int:
        """Return the latest time that the coordinator's wall clock can have shown."""
        ...


class Judge:
    """Watches every commit of one run."""

    def __init__(
        self,
        records: Records,
        sessions: Sessions,
        witness: Witness,
        history: History,
        blobs: Blobs,
        outside: Outside,
        *,
        lease_seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._records = records
        self._sessions = sessions
        self._outside = outside
        self._witness = witness
        self._history = history
        self._blobs = blobs
        self._now = now
        self._lapses = Lapses(
            records, sessions, witness, outside.spooled, lease_seconds=lease_seconds
        )

    def deciding(self) -> None:
        """Note that a turn was decided: what comes later, it could not know."""
        self._records.decide(self._now())

    def committed(self, changes: Changes, receipt: Receipt) -> None:
        """Judge one transaction at the moment it is durable."""
        records = self._records
        refused = {*receipt.refused_inserts, *receipt.refused_updates}
        stories: dict[bytes, list[Event]] = {}
        for event in changes.events:
            stories.setdefault(event.task, []).append(event)
        hellos = {row.identity: row for row in changes.workers}
        self._close(changes.events, hellos)
        records.code.update((row.digest, None) for row in changes.code)
        for task in changes.inserts:
            if task.spec.id not in refused:
                self._inserted(task)
        for update in changes.updates:
            task = update.task
            if task.spec.id in refused:
                continue
            before = records.rows.get(task.spec.id)
            if before is None or before.version != update.version:
                self._blame(task, "a row was written over that was not as expected")
                continue
            self._changed(task, before, stories.get(task.spec.id, []), hellos)
            records.rows[task.spec.id] = task.life
        for identity in changes.outages:
            for wrong in self._lapses.missed(identity):
                self._accuse(wrong)
            records.outages[identity] = records.outages.get(identity, 0) + 1
        for row in changes.workers:
            records.outages[row.identity] = 0
            self._welcomed(row)
        self._note(changes, refused)

    def _inserted(self, task: Task) -> None:
        records, life = self._records, task.life
        if task.spec.id in records.rows:
            self._blame(task, "an id was inserted twice")
        if task.spec.code and task.spec.code not in records.code:
            self._blame(task, "it is kept, and its function is nowhere")
        records.specs[task.spec.id] = task.spec
        if life.fence:
            self._claimed(task, Life(due_ms=life.due_ms))
        elif life.state is not State.QUEUED:
            self._blame(task, f"a new task is {life.state.text}")
        records.rows[task.spec.id] = life

    def _changed(
        self, task: Task, before: Life, story: list[Event], hellos: dict[str, WorkerRow]
    ) -> None:
        after = task.life
        if before.state >= TERMINAL_MIN:
            self._blame(task, f"it was {before.state.text}, and changed")
        if after.version <= before.version or after.wish < before.wish:
            self._blame(task, "its version or its wish went back")
        if before.wanted is Wanted.CANCEL and after.wanted is not Wanted.CANCEL:
            self._blame(task, "a cancel was taken back")
        outcome = [event.kind for event in story if event.kind in OUTCOMES]
        lapse = [event for event in story if event.kind in LAPSES]
        if after.state is State.SUCCEEDED:
            outcome.append("succeeded")
        lease = before
        for event in lapse:
            for wrong in self._lapses.faults(lease, event, hellos.get(before.worker)):
                self._blame(task, wrong)
            # What follows in the same turn is judged of a lapsed lease.
            lease = replace(lease, lease=Lease.LAPSED)
        for kind in outcome:
            self._ended(task, before, kind)
        if len(outcome) > 1:
            self._blame(task, f"several outcomes in one turn: {', '.join(outcome)}")
        let_go = after.lease is not Lease.HELD or after.token != before.token
        if before.lease is Lease.HELD and let_go and not outcome and not lapse:
            self._blame(task, "its lease ended and its story does not say why")
        if after.token == before.token and not outcome and not lapse:
            self._went_on(task, before)
        if after.fence != before.fence:
            self._claimed(task, before)
        elif after.token != before.token:
            self._blame(task, "its token changed under one fence")
        elif before.lease is Lease.SPENT and after.lease is not Lease.SPENT:
            self._blame(task, "a spent token came back")
        if after.lease is Lease.SPENT:
            self._records.spent[after.token] = None
        self._bill(task, before, outcome, lapse)
        self._shape(task)

    # Sessions.

    def _close(self, events: list[Event], hellos: dict[str, WorkerRow]) -> None:
        """Note whose session ends with this commit, and whose begins."""
        given_up = self._records.given_up
        given_up.update((e.worker, None) for e in events if e.kind in GIVEN_UP)
        for identity in hellos:
            given_up.pop(identity, None)

    def _welcomed(self, row: WorkerRow) -> None:
        wrong = self._sessions.welcomed(row)
        if wrong:
            self._accuse(wrong)
        hello = self._sessions.hello_of(row)
        for held in hello.held if hello is not None else ():
            life = self._records.rows.get(held.task)
            if life is None or life.state >= TERMINAL_MIN or held.phase is not Phase.STARTED:
                continue
            if held.token in life.freed:
                name = self._history.name_of(held.task)
                self._accuse(f"{name}: a hello told that a former run had begun; it stays free")

    # A claim.

    def _claimed(self, task: Task, before: Life) -> None:
        life, records = task.life, self._records
        if life.fence != before.fence + 1:
            self._blame(task, f"fence {before.fence} became {life.fence}")
        if not life.token or life.token in records.tokens:
            self._blame(task, "a token was used before")
        records.tokens[life.token] = (task.spec.id, life.fence)
        if (life.state, life.lease, life.phase) != (State.RUNNING, Lease.HELD, Phase.ASSIGNED):
            self._blame(task, "a claim does not leave it running and assigned")
        if before.wanted is Wanted.CANCEL:
            self._blame(task, "it was claimed after its cancel was committed")
        if life.worker in records.given_up:
            self._blame(task, f"it was claimed for {life.worker}, whose session is closed")
        if (life.worker, life.incarnation) in records.buried:
            self._blame(task, f"it was claimed for {life.worker}, whose death was judged")
        if task.spec.due_ms > self._outside.latest_wall_ms():
            self._blame(task, "it was claimed before it was due")
        if life.worker in life.avoid.split() and life.avoid_until_ms > life.claimed_ms:
            self._blame(task, f"it was claimed for {life.worker}, which it has to avoid")
        hasty = records.hasty.pop(before.token, "")
        if hasty and self._witness.ran(before.token):
            # A lapse alone does no harm: whoever comes back before the next claim goes on.
            self._blame(task, f"run {before.fence} had begun, and is run again: {hasty}")

    # An outcome.

    def _ended(self, task: Task, before: Life, kind: str) -> None:
        token, spec = before.token, task.spec
        if token in self._records.spent:
            self._blame(task, f"a second outcome, {kind}, under a token that was spent")
        self._records.spent[token] = None
        self._records.hasty.pop(token, None)
        if token not in self._sessions.ended:
            self._blame(task, f"outcome {kind} of run {before.fence} was said too late, or never")
        goes_on = kind == "environment" and task.life.state < TERMINAL_MIN
        if goes_on and before.worker not in task.life.avoid.split():
            self._blame(task, f"it does not avoid {before.worker}, where it could not run")
        if kind == "succeeded":
            self._succeeded(task, before)
        elif kind == "returned":
            neighbour = spec.concurrent and self._witness.ended_so(token, "killed")
            if self._witness.ran(token) and not neighbour:
                self._blame(task, "it was returned as not run, and it had run")
        elif not self._is_true(task, before, kind):
            hows = [run.how or "running" for run in self._witness.runs.get(token, ())]
            self._blame(task, f"outcome {kind} of run {before.fence}, which did: {hows}")

    def _is_true(self, task: Task, before: Life, kind: str) -> bool:
        witness, token = self._witness, before.token
        if witness.ended_so(token, *TRUE_ENDINGS.get(kind, ())):
            return True
        do = behaviour_of(task.spec.payload, self._blobs).do
        if kind == "environment":
            # A large result that could not be brought to the blob store.
            return do == "big" and witness.ended_so(token, "succeeded")
        if kind == "invalid":
            return do == "poison" and witness.ended_so(token, "succeeded")
        return False

    def _succeeded(self, task: Task, before: Life) -> None:
        spec, result = task.spec, task.life.result
        if not self._witness.ended_so(before.token, "succeeded"):
            self._blame(task, f"run {before.fence} succeeded, but never ended so")
        do = doing(spec.payload, before.fence, self._blobs).do
        if do == "big":
            if result is None or result != blob_of(spec.id, before.fence, do):
                self._blame(task, f"the result is not that of run {before.fence}")
            elif result.digest not in self._blobs:
                self._blame(task, "a row names a blob that is not durable")
        elif result is None or result.data != result_of(spec.id, before.fence, do):
            self._blame(task, f"the result is not that of run {before.fence}")

    # The same lease goes on.

    def _went_on(self, task: Task, before: Life) -> None:
        after, said = task.life, self._sessions
        told = self._records.testaments.get((after.worker, after.incarnation))
        # Whose outcome rests in a spool has begun, as its guard told.
        begun = after.token in said.begun or (told is not None and after.token in told.spooled)
        if (before.phase, after.phase) == (Phase.ASSIGNED, Phase.STARTED) and not begun:
            self._blame(task, f"run {after.fence} was told to have begun too late, or never")
        revived = (before.lease, after.lease) == (Lease.LAPSED, Lease.HELD)
        if revived and after.token not in said.named:
            self._blame(task, f"run {after.fence} came back, and nobody named it in time")

    # Charges.

    def _bill(self, task: Task, before: Life, outcome: list[str], lapse: list[Event]) -> None:
        after = task.life
        if any(token not in after.freed for token in before.freed):
            self._records.recharged[task.spec.id] = None
        wrong = charges.fault(before, after, outcome, [event.detail for event in lapse])
        if wrong:
            self._blame(task, wrong)
        wrong = charges.over(after, recharged=task.spec.id in self._records.recharged)
        if wrong:
            self._blame(task, wrong)
        known = before.token not in self._records.unheard
        if before.token in after.freed and self._witness.ran(before.token) and known:
            self._blame(task, f"run {before.fence} had begun, and was charged as free")

    # The row by itself.

    def _shape(self, task: Task) -> None:
        life = task.life
        if (life.state is State.RUNNING) != (life.lease is Lease.HELD):
            self._blame(task, f"{life.state.text} with a lease {life.lease.text}")
        if life.state >= TERMINAL_MIN and life.lease not in (Lease.SPENT, Lease.NONE):
            self._blame(task, f"{life.state.text}, and its token is not spent")
        if life.state is State.QUEUED and life.wanted is not Wanted.RUN:
            self._blame(task, f"queued although {life.wanted.text} is wanted")
        if (life.state is State.FAILED) and not life.reason:
            self._blame(task, "failed without a reason")

    def _blame(self, task: Task, text: str) -> None:
        self._accuse(f"{self._history.name_of(task.spec.id)}: {text}")

    def _accuse(self, text: str) -> None:
        self._records.blame(f"{self._now():.3f} {text}")
        self._history.add("judge", f"VIOLATION {text}")

    def _note(self, changes: Changes, refused: set[TaskId]) -> None:
        name_of = self._history.name_of
        parts = [f"turn {changes.turn}"]
        parts += [f"hello {w.identity} {w.incarnation}.{w.number}" for w in changes.workers]
        for task in [*changes.inserts, *(update.task for update in changes.updates)]:
            life = task.life
            no = "REFUSED " if task.spec.id in refused else ""
            parts.append(
                f"{no}{name_of(task.spec.id)}={life.state.text}/{life.lease.text}/"
                f"{life.phase.text}#{life.fence}@{life.worker}"
            )
        parts += [f"{name_of(event.task)}: {event.kind}" for event in changes.events]
        self._history.add("commit", "; ".join(parts))
