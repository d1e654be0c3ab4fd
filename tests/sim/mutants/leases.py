"""Mutants of the lease itself: its token, its rows, and what the user wishes of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.coordinator import deciding, reconcile
from holdfast.coordinator.turn import Turn
from holdfast.core import lease
from holdfast.core.lifecycle import (
    JUDGEMENTS,
    WISHES,
    WRITES,
    Judgement,
    Move,
    Said,
    Standing,
    Wish,
    Write,
)
from holdfast.model.messages import HeldLease, LeaseAnswer, WorkerHello
from holdfast.model.outcome import Answer, OutcomeKind
from holdfast.model.task import Lease, Life, Owed, State, Wanted
from tests.sim.mutants.mutant import Mutant


def token_check_off(patch: pytest.MonkeyPatch) -> None:
    """Law 2: the token is looked at neither in the decision nor in the writing statement.

    The statement alone is not missed while the one coordinator decides by the token, too.
    """
    original = lease.ended

    def ended(life: Life, token: bytes, kind: OutcomeKind, **options: Any) -> lease.Step:
        return original(life, life.token, kind, **options)

    def put_back(self: Turn, task: Any, life: Life, *, token: object = None) -> Any:
        return put_back_by_token(self, task, life)

    put_back_by_token = Turn.put_back
    patch.setattr(lease, "ended", ended)
    patch.setattr(Turn, "put_back", put_back)


def terminal_state_without_spending_the_token(patch: pytest.MonkeyPatch) -> None:
    """Law 3: a task whose lease has lapsed is cancelled, and its token still counts as unspent."""
    original = lease._finish

    def finish(life: Life, state: State, now_ms: int, **options: Any) -> Life:
        after = original(life, state, now_ms, **options)
        return replace(after, lease=life.lease) if life.lease is Lease.LAPSED else after

    patch.setattr(lease, "_finish", finish)


def an_outcome_of_a_lapsed_lease_is_refused(patch: pytest.MonkeyPatch) -> None:
    """Outcome: time ends a lease, so that the outcome of a lapsed one counts as superseded."""
    row = (Write.OUTCOME, Standing.LAPSED)
    patch.setitem(WRITES, row, (Move.NOTHING, Answer.SUPERSEDED))


def late_starts_are_stopped(patch: pytest.MonkeyPatch) -> None:
    """Started: a start that is told twice is answered with a stop."""
    patch.setitem(WRITES, (Write.STARTED, Standing.STARTED), (Move.NOTHING, Answer.STOP))


def a_lapsed_lease_does_not_come_back(patch: pytest.MonkeyPatch) -> None:
    """Started: who comes back in time with a lapsed lease is told to stop."""
    for write in (Write.STARTED, Write.NAMED_ASSIGNED):
        patch.setitem(WRITES, (write, Standing.LAPSED), (Move.NOTHING, Answer.STOP))


def what_is_spooled_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    """Death: what the guard named as spooled lapses at once, and does not wait for the restart."""
    for standing in (Standing.ASSIGNED, Standing.STARTED):
        row = (Judgement.DEATH_SPOOLED, standing)
        patch.setitem(JUDGEMENTS, row, (Move.LAPSE, Owed.LOSS))
    patch.setitem(reconcile._STORIES, Judgement.DEATH_SPOOLED, "worker died")


def a_lapse_forgets_the_wish(patch: pytest.MonkeyPatch) -> None:
    """Cancel, pause: a running task that is to stop is queued again where its worker is lost."""
    original = lease._lapse

    def lapse(life: Life, owed: Owed, judgement: Judgement, now_ms: int) -> Life:
        return original(replace(life, wanted=Wanted.RUN), owed, judgement, now_ms)

    patch.setattr(lease, "_lapse", lapse)


def a_cancel_is_answered_and_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Cancel: a running task's cancel is answered, and nothing is written."""
    row = (Wish.CANCEL, State.RUNNING, Wanted.RUN)
    patch.setitem(WISHES, row, (Move.NOTHING, Said.ASKED))


def a_cancel_gives_way_to_a_claim(patch: pytest.MonkeyPatch) -> None:
    """Cancel: a queued task's cancel is only noted, and it is claimed after that."""
    row = (Wish.CANCEL, State.QUEUED, Wanted.RUN)
    patch.setitem(WISHES, row, (Move.ASK_CANCEL, Said.DONE))


def a_resume_takes_a_cancel_back(patch: pytest.MonkeyPatch) -> None:
    """Resume: what is being cancelled is to run on again."""
    row = (Wish.RESUME, State.RUNNING, Wanted.CANCEL)
    patch.setitem(WISHES, row, (Move.ASK_RUN, Said.DONE))


def wish_not_told_again(patch: pytest.MonkeyPatch) -> None:
    """Frame, hello: a wish that a broken socket swallowed is never told again.

    A wish is told at once, in the answer to a hello, and again with each tick for as long as the
    worker's view does not show it. Sockets keep order, so that the last alone saves nothing that
    the second does not: both are taken away here.
    """
    original = reconcile._lease_answer

    def lease_answer(turn: Turn, said: WorkerHello, held: HeldLease) -> LeaseAnswer:
        answer = original(turn, said, held)
        return LeaseAnswer(answer.task, answer.token, answer.answer)

    patch.setattr(reconcile, "_lease_answer", lease_answer)
    patch.setattr(deciding, "_tell_again", lambda turn, session: None)


def what_is_not_due_is_claimed(patch: pytest.MonkeyPatch) -> None:
    """Claim: a task is claimed before it is due."""
    original = Turn.insert

    def insert(self: Turn, task: Any) -> None:
        original(self, replace(task, life=replace(task.life, due_ms=0)))

    patch.setattr(Turn, "insert", insert)


LEASES = (
    Mutant(token_check_off, 6),
    Mutant(terminal_state_without_spending_the_token, 5),
    Mutant(an_outcome_of_a_lapsed_lease_is_refused, 5),
    Mutant(late_starts_are_stopped, 0),
    Mutant(a_lapsed_lease_does_not_come_back, 5),
    Mutant(what_is_spooled_does_not_wait, 13),
    Mutant(a_lapse_forgets_the_wish, 2),
    Mutant(a_cancel_is_answered_and_forgotten, 0, calm=False),
    Mutant(a_cancel_gives_way_to_a_claim, 0, calm=False),
    Mutant(a_resume_takes_a_cancel_back, 13),
    Mutant(wish_not_told_again, 3),
    Mutant(what_is_not_due_is_claimed, 0, calm=False),
)
