"""Mutants of sessions: who is let in, who still counts, and what silence and death mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from holdfast.coordinator import deciding, performing, reconcile, service, tasks
from holdfast.coordinator.deciding import Terms
from holdfast.coordinator.facts import Death, Tick
from holdfast.coordinator.gateway import Gateway
from holdfast.coordinator.sessions import ClientSession, WorkerSession
from holdfast.coordinator.state import CoordinatorState
from holdfast.coordinator.turn import PLACING, Turn
from holdfast.core import redial
from holdfast.core.session import Admission, Known, Ledger, admit
from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import Ended, Started, View, WorkerHello
from holdfast.model.task import TERMINAL_MIN, Task
from holdfast.stores import statements
from tests.sim.mutants.mutant import Mutant


def one_way_reconcile(patch: pytest.MonkeyPatch) -> None:
    """Law 5: what a hello does not name is not put back."""
    patch.setattr(reconcile, "_lapse_unnamed", lambda turn, said, settled: None)


def epoch_ignored(patch: pytest.MonkeyPatch) -> None:
    """Frame: what comes on an older socket counts like what comes on the newest one.

    It is neither read on, once a newer hello was read, nor decided, once that is committed.
    """
    original = deciding._from_worker
    patch.setattr(CoordinatorState, "is_outdated", lambda self, session: False)

    def from_worker(turn: Turn, session: WorkerSession, message: object, terms: Terms) -> None:
        if isinstance(message, Ended):
            tasks.ended(turn, session, message)
        elif isinstance(message, Started):
            tasks.started(turn, session, message)
        else:
            original(turn, session, message, terms)

    patch.setattr(deciding, "_from_worker", from_worker)


def late_hello_accepted(patch: pytest.MonkeyPatch) -> None:
    """Hello: the pair (incarnation, n) is compared neither in the decision nor by the store.

    Either alone refuses the hello, and the other is then not missed.
    """

    def welcome(hello: WorkerHello, *, same: Known | None, namesake: Known | None) -> Admission:
        verdict = admit(hello, same=same, namesake=namesake)
        return Admission.WELCOME if verdict is Admission.LATE else verdict

    upsert, _, _ = statements.UPSERT_WORKER.partition("WHERE")
    patch.setattr(reconcile, "admit", welcome)
    patch.setattr(statements, "UPSERT_WORKER", upsert)


def digest_compared_past_the_last_assignment_read(patch: pytest.MonkeyPatch) -> None:
    """Frame: a worker's digest is compared with what is held now, not as of what it had read."""
    original = Ledger.agrees

    def agrees(self: Ledger, view: View) -> bool:
        return original(self, view) and self._digest == view.digest

    patch.setattr(Ledger, "agrees", agrees)


def late_death_report_accepted(patch: pytest.MonkeyPatch) -> None:
    """Death: a report on a former incarnation is taken for one on the present one."""
    original = reconcile.death

    def death(turn: Turn, fact: Death) -> None:
        row = turn.workers.get(fact.identity) or turn.state.workers.get(fact.identity)
        original(turn, fact if row is None else replace(fact, incarnation=row.incarnation))

    patch.setattr(reconcile, "death", death)


def deaths_do_not_wait_for_the_inbox(patch: pytest.MonkeyPatch) -> None:
    """Death: it is judged before all that the dead one said was read."""
    patch.setattr(deciding, "_death", lambda turn, death: reconcile.death(turn, death))


def the_kernels_word_replaces_the_guards(patch: pytest.MonkeyPatch) -> None:
    """Death: what its guard named is forgotten when the kernel tells of it as well."""

    def death(turn: Turn, told: Death) -> None:
        session = turn.session(told.identity)
        if session is not None and session.incarnation == told.incarnation:
            turn.state.reported[told.identity] = told
            return
        turn.state.buried.pop(told.identity, None)
        reconcile.death(turn, told)

    patch.setattr(deciding, "_death", death)


def the_dead_are_served(patch: pytest.MonkeyPatch) -> None:
    """Death: a hello that was read after the death of its worker is answered like any other."""
    patch.setattr(CoordinatorState, "death_of", _reported_only)


def _reported_only(self: CoordinatorState, identity: str, incarnation: int) -> Death | None:
    told = self.reported.get(identity)
    return told if told is not None and told.incarnation == incarnation else None


def a_closed_session_gets_work(patch: pytest.MonkeyPatch) -> None:
    """Silence, death: tasks are claimed for a worker that the same turn gives up."""
    original = Turn.is_current

    def is_current(self: Turn, session: WorkerSession) -> bool:
        given_up = self.item is PLACING and session in self.dismissed
        return given_up or original(self, session)

    patch.setattr(Turn, "is_current", is_current)


def half_a_lease_is_a_lease(patch: pytest.MonkeyPatch) -> None:
    """Silence: a worker is given up after a third of its lease."""
    original = deciding._tick

    def tick(turn: Turn, message: Tick, terms: Terms) -> None:
        original(turn, message, replace(terms, lease_seconds=terms.lease_seconds / 3))

    patch.setattr(deciding, "_tick", tick)


def silence_is_never_judged(patch: pytest.MonkeyPatch) -> None:
    """Silence: who is lost without a word keeps its leases for ever."""
    patch.setattr(reconcile, "silence", lambda turn, identity: None)


def outages_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    """Restart: the time of an outage counts as silence of the workers."""
    patch.setattr(service, "patience_seconds", lambda lease_seconds, outages: 0.05)


def outages_are_given_back_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Restart: each outage begins a lease anew, however many come in a row without a hello."""
    patch.setattr(service, "patience_seconds", lambda lease_seconds, outages: lease_seconds)


def each_start_is_an_outage(patch: pytest.MonkeyPatch) -> None:
    """Restart: a coordinator counts a worker as missed before it could have come."""
    patch.setattr(deciding, "OUTAGE_SECONDS_MIN", 0.0)


def outages_are_never_counted(patch: pytest.MonkeyPatch) -> None:
    """Restart: no coordinator counts that it has listened to a worker in vain."""
    patch.setattr(deciding, "OUTAGE_SECONDS_MIN", 1e9)


def a_worker_dials_too_late(patch: pytest.MonkeyPatch) -> None:
    """Restart: a worker waits for longer between two dials than a coordinator waits for it."""
    patch.setattr(redial, "CAP_SECONDS", 15.0)


def silence_takes_three_leases(patch: pytest.MonkeyPatch) -> None:
    """Silence: who is lost without a word keeps its leases for three times as long."""
    original = deciding._tick

    def tick(turn: Turn, message: Tick, terms: Terms) -> None:
        original(turn, message, Terms(3 * terms.lease_seconds, terms.beat_seconds))

    patch.setattr(deciding, "_tick", tick)


def what_was_spooled_counts_as_not_begun(patch: pytest.MonkeyPatch) -> None:
    """Death: what its guard names as started and as spooled is charged as if nobody knew."""
    original = reconcile._wait

    def wait(turn: Turn, task: Task, token: Token, *, begun: bool) -> None:
        original(turn, task, token, begun=False)

    patch.setattr(reconcile, "_wait", wait)


def guards_are_answered_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Law 1: a guard is told that its report was judged before that is committed."""
    original = Gateway.death

    def death(self: Gateway, report: Death, last_word: str, judged: Callable[[], None]) -> bool:
        known = original(self, report, last_word, lambda: None)
        if known:
            judged()
        return known

    patch.setattr(Gateway, "death", death)


def stalls_count_as_silence(patch: pytest.MonkeyPatch) -> None:
    """Law 7: time in which the coordinator was frozen counts as silence of the workers."""
    original = deciding._tick

    def tick(turn: Turn, message: Tick, terms: Terms) -> None:
        turn.state.swept = turn.now - message.seconds
        original(turn, message, terms)

    patch.setattr(deciding, "_tick", tick)


def a_watch_of_what_ended_is_not_answered(patch: pytest.MonkeyPatch) -> None:
    """Law 5: a client that comes back to a task which has ended is told nothing of it."""

    def watch(turn: Turn, client: ClientSession, task_id: TaskId) -> None:
        change = turn.changes.get(task_id)
        if change is None or change.after.life.state < TERMINAL_MIN:
            turn.state.watch(client, task_id)

    patch.setattr(performing, "_watch", watch)


SESSIONS = (
    Mutant(one_way_reconcile, 2),
    Mutant(epoch_ignored, 30),
    Mutant(late_hello_accepted, 14),
    Mutant(digest_compared_past_the_last_assignment_read, 0, calm=False),
    Mutant(late_death_report_accepted, 0),
    Mutant(deaths_do_not_wait_for_the_inbox, 2),
    Mutant(the_kernels_word_replaces_the_guards, 107),
    Mutant(the_dead_are_served, 40),
    Mutant(a_closed_session_gets_work, 11),
    Mutant(half_a_lease_is_a_lease, 6),
    Mutant(silence_is_never_judged, 2),
    Mutant(outages_are_not_given_back, 3),
    Mutant(outages_are_given_back_for_ever, 52),
    Mutant(each_start_is_an_outage, 2),
    Mutant(outages_are_never_counted, 2),
    Mutant(a_worker_dials_too_late, 74),
    Mutant(silence_takes_three_leases, 2),
    Mutant(what_was_spooled_counts_as_not_begun, 14),
    Mutant(guards_are_answered_before_the_commit, 13),
    Mutant(stalls_count_as_silence, 10),
    Mutant(a_watch_of_what_ended_is_not_answered, 5),
)
