"""The simulator is judged by mutants: the product is altered a little, and it must notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.coordinator import deciding, reconcile, service, tasks
from holdfast.coordinator.deciding import Terms
from holdfast.coordinator.facts import Tick
from holdfast.coordinator.sessions import ClientSession
from holdfast.coordinator.turn import Turn
from holdfast.core import lease
from holdfast.core.lifecycle import (
    JUDGEMENTS,
    OUTCOMES,
    WISHES,
    WRITES,
    Charge,
    Judgement,
    Move,
    Said,
    Standing,
    Wish,
    Write,
)
from holdfast.core.outbox import Outbox
from holdfast.core.peer import Peer
from holdfast.lab.sim.world import Verdict, run
from holdfast.model.messages import Accepted, Submit
from holdfast.model.outcome import Answer, OutcomeKind
from holdfast.model.task import Life, Owed, State, Wanted

SEEDS = range(40)

Alter = Callable[[pytest.MonkeyPatch], None]


def what_named_as_started_is_free(patch: pytest.MonkeyPatch) -> None:
    for standing in (Standing.ASSIGNED, Standing.STARTED):
        row = (Judgement.DEATH_STARTED, standing)
        patch.setitem(JUDGEMENTS, row, (Move.LAPSE, Owed.FREE))


def what_was_not_started_is_charged(patch: pytest.MonkeyPatch) -> None:
    moves, _, reason = OUTCOMES[OutcomeKind.RETURNED]
    patch.setitem(OUTCOMES, OutcomeKind.RETURNED, (moves, Charge.LOSS, reason))


def crashes_cost_nothing(patch: pytest.MonkeyPatch) -> None:
    moves, _, reason = OUTCOMES[OutcomeKind.CRASHED]
    patch.setitem(OUTCOMES, OutcomeKind.CRASHED, (moves, Charge.NOTHING, reason))


def any_token_writes(patch: pytest.MonkeyPatch) -> None:
    """The token is not looked at, neither in the decision nor in the writing statement."""
    original = lease.ended

    def ended(life: Life, token: bytes, kind: OutcomeKind, **options: Any) -> lease.Step:
        return original(life, life.token, kind, **options)

    def put_back(self: Turn, task: Any, life: Life, *, token: object = None) -> Any:
        return put_back_by_token(self, task, life)

    put_back_by_token = Turn.put_back
    patch.setattr(lease, "ended", ended)
    patch.setattr(Turn, "put_back", put_back)


def late_starts_are_stopped(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(WRITES, (Write.STARTED, Standing.STARTED), (Move.NOTHING, Answer.STOP))


def submissions_are_answered_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    original = tasks.submit

    def submit(turn: Turn, session: ClientSession, message: Submit) -> None:
        original(turn, session, message)
        session.send(Accepted(tuple(spec.id for spec in message.specs)))

    patch.setattr(tasks, "submit", submit)


def a_hello_is_compared_one_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "_lapse_unnamed", lambda turn, said, settled: None)


def half_a_lease_is_a_lease(patch: pytest.MonkeyPatch) -> None:
    original = deciding._tick

    def tick(turn: Turn, message: Tick, terms: Terms) -> None:
        original(turn, message, replace(terms, lease_seconds=terms.lease_seconds / 3))

    patch.setattr(deciding, "_tick", tick)


def outages_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(service, "OUTAGES_IN_A_ROW_MAX", -1)
    patch.setattr(service, "OUTAGE_CREDIT_SECONDS_MIN", 0.05)


def silence_is_never_judged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "silence", lambda turn, identity: None)


def a_cancel_is_answered_and_forgotten(patch: pytest.MonkeyPatch) -> None:
    row = (Wish.CANCEL, State.RUNNING, Wanted.RUN)
    patch.setitem(WISHES, row, (Move.NOTHING, Said.ASKED))


def a_cancel_gives_way_to_a_claim(patch: pytest.MonkeyPatch) -> None:
    row = (Wish.CANCEL, State.QUEUED, Wanted.RUN)
    patch.setitem(WISHES, row, (Move.ASK_CANCEL, Said.DONE))


def workers_forget_outcomes_when_cut_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "rejoin", lambda self, origin: ([], []))


def workers_forget_leases_when_cut_off(patch: pytest.MonkeyPatch) -> None:
    original = Peer.hello

    def hello(self: Peer, **options: Any) -> Sequence[Any]:
        self.leases.clear()
        return original(self, **options)

    patch.setattr(Peer, "hello", hello)


MUTANTS: list[Alter] = [
    what_named_as_started_is_free,
    what_was_not_started_is_charged,
    crashes_cost_nothing,
    any_token_writes,
    late_starts_are_stopped,
    submissions_are_answered_before_the_commit,
    a_hello_is_compared_one_way,
    half_a_lease_is_a_lease,
    outages_are_not_given_back,
    silence_is_never_judged,
    a_cancel_is_answered_and_forgotten,
    a_cancel_gives_way_to_a_claim,
    workers_forget_outcomes_when_cut_off,
    workers_forget_leases_when_cut_off,
]


@pytest.mark.parametrize("alter", MUTANTS, ids=lambda alter: alter.__name__)
def test_a_mutant_is_caught(alter: Alter, monkeypatch: pytest.MonkeyPatch) -> None:
    alter(monkeypatch)
    for seed in SEEDS:
        if run(seed).verdict is Verdict.INVALID:
            return
    pytest.fail(f"{len(SEEDS)} seeds, and nobody noticed")
