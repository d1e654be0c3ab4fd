"""Histories of one task: every order of three, playbooks, and two workers who know only their part.

The tables themselves are held against ADR 2 in `test_lifecycle.py`; here it is what follows
from them in a row: *a write is accepted when its token is the newest of its task, not spent, and
the task not terminal; time alone never ends a lease; what surely did not run is free; what may
have run is charged once.*
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.core import invariants, lease
from holdfast.core.lifecycle import Judgement, Wish
from holdfast.errors import IllegalTransitionError
from holdfast.model.ids import NO_TOKEN, Token
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload
from holdfast.model.task import TERMINAL_MIN, Lease, Life, Owed, Phase, State, Wanted
from tests.core.leases import (
    AGAIN_MS,
    NEWEST,
    NEXT,
    NOW_MS,
    OLDER,
    OUTCOMES,
    Event,
    Row,
    perform,
    row_of,
    shapes,
    step,
    unlike,
)

# Every order of three.

STEPS = (
    *(Event(kind) for kind in ("pause", "resume", "cancel", "expire")),
    *(Event(kind) for kind in ("silence", "death", "death_started", "death_spooled", "unnamed")),
    *(Event("outcome", NEWEST, kind) for kind in OUTCOMES),
    Event("started"),
    Event("started", OLDER),
    Event("death_started", OLDER),
    Event("outcome", OLDER, "succeeded"),
    Event("save", number=1, digest=b"one"),
    Event("claim", NEXT),
)
OPENINGS = {
    "queued": (),
    "assigned": (Event("claim", NEWEST),),
    "started": (Event("claim", NEWEST), Event("started")),
    "claimed again": (Event("claim", OLDER), Event("death", OLDER), Event("claim", NEWEST)),
}


@dataclass(slots=True)
class Principle:
    """What one sentence of ADR 2 lets happen, told from the events alone."""

    order: list[bytes] = field(default_factory=list)
    spent: set[bytes] = field(default_factory=set)
    ran: set[bytes] = field(default_factory=set)
    free: set[bytes] = field(default_factory=set)
    lost: set[bytes] = field(default_factory=set)

    def copy(self) -> Principle:
        return Principle(
            [*self.order], set(self.spent), set(self.ran), set(self.free), set(self.lost)
        )

    def see(self, event: Event, before: Life, after: Life, answer: str) -> None:
        """Follow one event; fail where it was not treated as the principle says."""
        newest = self.order[-1] if self.order else NO_TOKEN
        writes = event.token == newest and newest not in self.spent and before.state < TERMINAL_MIN
        if event.kind == "outcome":
            assert (after is not before) == writes
            if writes:
                self.spent.add(newest)
                if after.state < TERMINAL_MIN:
                    charge = (event.detail, before.wanted is Wanted.RUN)
                    self.lost |= {b"stopped"} if charge == ("stopped", True) else set()
                    self.free |= {b"returned"} if charge == ("returned", True) else set()
        elif event.kind == "started":
            assert answer == ("keep" if writes else "stop")
            self._may_have_run(event.token, before)
        elif event.kind == "death_started":
            self._may_have_run(event.token, before)
        elif event.kind == "save":
            assert (answer == "committed") == writes
        elif event.kind == "claim" and answer != "illegal":
            if newest and newest not in self.spent:
                (self.lost if newest in self.ran else self.free).add(newest)
            if after.state is State.RUNNING:
                self.order.append(event.token)
        elif event.kind in ("silence", "death", "unnamed", "death_spooled"):
            # Time alone never ends a lease: only a wish that was there before it ends the task.
            assert after.state < TERMINAL_MIN or before.state >= TERMINAL_MIN or _cancelled(before)
        if after.state >= TERMINAL_MIN and newest:
            self.spent.add(newest)
        if after.state < TERMINAL_MIN:
            assert after.used.losses == len(self.lost)
            assert after.used.free_returns == len(self.free)

    def _may_have_run(self, token: bytes, before: Life) -> None:
        if token in self.order and before.state < TERMINAL_MIN and token not in self.spent:
            self.ran.add(token)
            if token in self.free:
                self.free.discard(token)
                self.lost.add(token)


def _cancelled(life: Life) -> bool:
    return life.wanted is Wanted.CANCEL


@dataclass(slots=True)
class History:
    """A life, the row that ADR 2 gives it, and what the principle saw."""

    life: Life
    row: Row
    principle: Principle
    told: tuple[Event, ...]

    def then(self, event: Event) -> History:
        """Return the history one event later, checked."""
        life, answer = perform(self.life, event)
        row, expected = step(self.row, event)
        told = (*self.told, event)
        wrong = [*invariants.of_life(life), *invariants.of_change(self.life, life)]
        wrong += unlike(row, row_of(life))
        assert (wrong, answer) == ([], expected), told
        if None in (row.used, row.crash_mark, row.wish):
            row = row_of(life)
        principle = self.principle.copy()
        principle.see(event, self.life, life, answer)
        return History(life, row, principle, told)


@pytest.mark.parametrize("opening", OPENINGS)
def test_every_order_of_three(opening: str) -> None:
    history = History(Life(), Row(), Principle(), ())
    for event in OPENINGS[opening]:
        history = history.then(event)
    for first in STEPS:
        after_one = history.then(first)
        for second in STEPS:
            after_two = after_one.then(second)
            for third in STEPS:
                after_two.then(third)


def test_the_shapes_of_the_table_tests_are_those_that_histories_reach() -> None:
    def shape(life: Life) -> tuple[object, ...]:
        claimed = bool(life.token)
        return (life.state, life.wanted, life.lease, life.phase, life.owed, claimed)

    reached: set[tuple[object, ...]] = set()
    frontier = [Life()]
    while frontier:
        life = frontier.pop()
        if shape(life) in reached:
            continue
        reached.add(shape(life))
        token = life.token or NEWEST
        for event in STEPS:
            moved = Event(event.kind, token, event.detail, number=1, digest=b"d")
            frontier.append(perform(life, moved)[0])
    over = {State.SUCCEEDED, State.FAILED, State.CANCELLED}
    told = {shape(life) for life in shapes() if life.state not in over}
    assert told == {key for key in reached if key[0] not in over}


# Playbooks.


def play(life: Life, *events: Event | str) -> Life:
    """Let events happen; a word is the answer that must follow."""
    answer = ""
    for event in events:
        if isinstance(event, str):
            assert answer == event
        else:
            life, answer = perform(life, event)
    return life


def claim(token: Token) -> Event:
    return Event("claim", token)


TOKENS = tuple(Token(n.to_bytes(16, "big")) for n in range(1, 300))


def test_a_lease_that_comes_back_is_not_charged_and_one_that_lapses_again_is_charged_once() -> None:
    life = play(Life(), claim(NEWEST), Event("silence"), Event("named"), "keep", Event("silence"))
    assert life.used == Life().used
    life = play(life, Event("started"), "keep", Event("silence"), claim(NEXT))
    assert (life.used.losses, life.used.free_returns, life.used.unheard) == (1, 0, 0)


def test_silence_before_the_start_was_heard_of_costs_at_most_five_in_a_life() -> None:
    life = Life()
    for token in TOKENS[:6]:
        life = play(life, claim(token), Event("silence", token))
    life = play(life, claim(NEXT))
    assert (life.used.unheard, life.used.free_returns, life.used.losses) == (6, 5, 1)


def test_a_late_start_turns_its_free_charge_into_a_loss_once() -> None:
    life = play(Life(), claim(OLDER), Event("death", OLDER), claim(NEWEST))
    assert (life.used.free_returns, life.freed) == (1, (OLDER,))
    life = play(life, Event("started", OLDER), "stop", Event("started", OLDER), "stop")
    life = play(life, Event("death_started", OLDER))
    assert (life.used.free_returns, life.used.losses, life.freed) == (0, 1, ())
    assert life.token == NEWEST
    assert life.state is State.RUNNING


def test_the_guards_word_after_silence_makes_a_free_charge_a_loss() -> None:
    life = play(Life(), claim(NEWEST), Event("silence"), Event("death_started"))
    assert (life.owed, life.phase) == (Owed.LOSS, Phase.STARTED)
    assert play(life, Event("death_started")) is life
    assert play(life, claim(NEXT)).used.losses == 1


def test_late_starts_over_the_budget_end_the_task_at_its_next_lapse() -> None:
    life = Life()
    for token in TOKENS[:8]:
        life = play(life, claim(token), Event("death", token))
    late = [Event("started", token) for token in TOKENS[:7]]
    life = play(life, claim(NEWEST), *late[:6], Event("death"))
    assert (life.state, life.used.losses) == (State.QUEUED, 6)
    life = play(life, claim(NEXT))
    assert (life.state, life.reason.text, life.token) == (State.FAILED, "lost", NEWEST)
    assert invariants.of_life(life) == []
    assert play(life, late[6], "stop") is life


def test_a_paused_task_that_was_lost_is_charged_when_it_is_claimed_again() -> None:
    life = play(Life(), claim(NEWEST), Event("started"), Event("pause"), "asked", Event("silence"))
    assert (life.state, life.used.losses) == (State.PAUSED, 0)
    life = play(life, Event("resume"), "done", claim(NEXT))
    assert (life.state, life.used.losses) == (State.RUNNING, 1)


def test_a_paused_task_whose_worker_comes_back_runs_on_and_is_asked_again() -> None:
    life = play(Life(), claim(NEWEST), Event("started"), Event("silence"), Event("pause"), "done")
    life = play(life, Event("started"), "keep")
    assert (life.state, life.wanted, life.wish) == (State.RUNNING, Wanted.PAUSE, 1)
    life = play(life, Event("resume"), "done")
    assert (life.wanted, life.wish) == (Wanted.RUN, 2)


def test_a_pause_that_the_worker_obeys_is_never_charged() -> None:
    life = Life()
    for kind in ("returned", "checkpointed", "stopped"):
        for token in TOKENS[:150]:
            life = play(life, claim(token), Event("started", token), Event("pause"), "asked")
            life = play(life, Event("outcome", token, kind), "settled", Event("resume"), "done")
    assert life.used == Life().used


def test_crashes_without_progress_between_them_end_the_task_also_after_progress() -> None:
    life = Life()
    for token in TOKENS[:2]:
        save = Event("save", token, number=1, digest=b"one")
        life = play(life, claim(token), save, Event("outcome", token, "crashed"))
        assert life.used.crashes == 1
    for token in TOKENS[2:5]:
        assert life.state is State.QUEUED
        life = play(life, claim(token), Event("outcome", token, "crashed"))
    assert (life.state, life.reason.text, life.used.crashes) == (State.FAILED, "crashed", 4)


def test_returns_over_their_budget_are_losses_until_those_are_over_too() -> None:
    life = Life()
    for token in TOKENS[:105]:
        life = play(life, claim(token), Event("outcome", token, "returned"))
    assert (life.state, life.used.free_returns, life.used.losses) == (State.QUEUED, 100, 5)
    life = play(life, claim(NEWEST), Event("outcome", NEWEST, "returned"))
    assert (life.state, life.reason.text) == (State.FAILED, "lost")


def test_an_expired_task_that_runs_is_cancelled_for_that_reason() -> None:
    running = play(Life(), claim(NEWEST), Event("expire"), "asked", Event("cancel"), "asked")
    for end in (Event("silence"), Event("unnamed"), Event("outcome", NEWEST, "raised")):
        life = play(running, end)
        assert (life.state, life.reason.text) == (State.CANCELLED, "expired")
    life = play(running, Event("outcome", NEWEST, "succeeded"))
    assert (life.state, life.reason.text) == (State.SUCCEEDED, "none")


def test_an_environment_failure_keeps_off_its_worker_and_a_retry_waits() -> None:
    life = play(Life(), claim(NEWEST), Event("outcome", NEWEST, "environment"))
    assert (life.avoid, life.avoid_until_ms, life.due_ms) == ("w", 9_000, 0)
    life = play(life, claim(NEXT), Event("outcome", NEXT, "raised"))
    assert (life.due_ms, life.failure.message if life.failure else "") == (AGAIN_MS, "raised")


def test_every_worker_that_could_not_run_a_task_is_avoided_for_a_while() -> None:
    life = Life()
    for number in range(3):
        given = bytes([number + 1]) * 16
        life = lease.claim(
            life, token=Token(given), worker=f"w{number % 2}", incarnation=1, epoch=1, now_ms=5
        ).life
        life = lease.ended(
            life, given, OutcomeKind.ENVIRONMENT, now_ms=10, avoid_until_ms=100 + number
        ).life
    # The last one last, once each, all until the latest time.
    assert lease.avoided(life, 101) == ["w1", "w0"]
    assert lease.avoided(life, 102) == []


def test_a_result_is_kept_and_the_failure_before_it_is_not() -> None:
    life = play(Life(), claim(OLDER), Event("outcome", OLDER, "raised"), claim(NEWEST))
    result = Payload(Encoding.JSON, b"1")
    done = lease.ended(life, NEWEST, OutcomeKind.SUCCEEDED, now_ms=NOW_MS, result=result)
    assert (done.life.result, done.life.failure, done.answer) == (result, None, Answer.SETTLED)
    cancelled = play(life, Event("cancel"), Event("silence"))
    assert cancelled.failure is not None


def test_times_are_those_of_the_events() -> None:
    life = lease.claim(Life(), token=NEWEST, worker="w", incarnation=1, epoch=2, now_ms=10).life
    assert (life.claimed_ms, life.incarnation, life.epoch) == (10, 1, 2)
    life = lease.judged(life, NEWEST, Judgement.SILENCE, now_ms=20).life
    named = lease.named_assigned(life, NEWEST, now_ms=30).life
    assert (named.started_ms, named.ended_ms) == (0, 0)
    life = lease.started(life, NEWEST, now_ms=40).life
    assert (life.started_ms, life.ended_ms) == (40, 0)
    life = lease.judged(life, NEWEST, Judgement.SILENCE, now_ms=50).life
    assert lease.started(life, NEWEST, now_ms=60).life.started_ms == 40
    again = lease.ended(life, NEWEST, OutcomeKind.RAISED, now_ms=70, again_ms=0).life
    assert (again.due_ms, again.ended_ms) == (0, 70)


def test_an_event_without_a_row_raises_with_the_story_and_changes_nothing() -> None:
    running = play(Life(), claim(NEWEST))
    with pytest.raises(IllegalTransitionError, match="no row for claim"):
        lease.claim(running, token=NEXT, worker="w", incarnation=1, epoch=1, now_ms=NOW_MS)
    never = Life(state=State.QUEUED, wanted=Wanted.PAUSE)
    with pytest.raises(IllegalTransitionError, match="no row for cancel"):
        lease.wished(never, Wish.CANCEL, now_ms=NOW_MS)


# Two workers, each of which knows only what it was told and did.


@dataclass(slots=True)
class Hand:
    """What a worker knows of one attempt: whether it started it, and its outcome."""

    token: Token
    began: bool = False
    outcome: OutcomeKind | None = None
    dead: bool = False


class TwoWorkers(RuleBasedStateMachine):
    """Workers start and end what they were given whenever; words about it come late or never."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.principle = Principle()
        self.hands: list[Hand] = []
        self.accepted: list[bytes] = []

    def happen(self, event: Event) -> str:
        before = self.life
        self.life, answer = perform(before, event)
        assert invariants.of_change(before, self.life) == []
        row, expected = step(row_of(before), event)
        assert (unlike(row, row_of(self.life)), answer) == ([], expected)
        if event.kind == "outcome" and self.life is not before:
            self.accepted.append(event.token)
        return answer

    def hand(self, number: int) -> Hand:
        return self.hands[number % len(self.hands)]

    @precondition(lambda self: self.life.state is State.QUEUED)
    @rule()
    def claimed(self) -> None:
        token = Token(len(self.hands).to_bytes(16, "big"))
        self.happen(Event("claim", token))
        if self.life.token == token:
            self.hands.append(Hand(token))

    @precondition(lambda self: self.hands)
    @rule(number=st.integers(0, 1))
    def begins(self, number: int) -> None:
        hand = self.hand(-1 - number)
        hand.began = hand.began or not hand.dead

    @precondition(lambda self: self.hands)
    @rule(number=st.integers(0, 3), kind=st.sampled_from(OutcomeKind))
    def ends(self, number: int, kind: OutcomeKind) -> None:
        hand = self.hand(-1 - number)
        if hand.began and hand.outcome is None and not hand.dead:
            hand.outcome = kind

    @precondition(lambda self: self.hands)
    @rule(number=st.integers(0, 3))
    def says_what_it_has(self, number: int) -> None:
        hand = self.hand(-1 - number)
        if hand.outcome is not None:
            answer = self.happen(Event("outcome", hand.token, hand.outcome.text))
            assert answer in ("settled", "superseded")
        else:
            self.happen(Event("started" if hand.began else "named", hand.token))

    @precondition(lambda self: self.hands)
    @rule(number=st.integers(0, 1), saved=st.integers(1, 3))
    def saves(self, number: int, saved: int) -> None:
        hand = self.hand(-1 - number)
        if hand.began and hand.outcome is None:
            event = Event("save", hand.token, number=saved, digest=b"%d" % saved)
            assert self.happen(event) in ("committed", "superseded")

    @precondition(lambda self: self.hands)
    @rule(number=st.integers(0, 1), spooled=st.booleans())
    def dies_and_the_guard_tells(self, number: int, spooled: bool) -> None:
        hand = self.hand(-1 - number)
        hand.dead = True
        if hand.outcome is not None and spooled:
            self.happen(Event("death_spooled", hand.token))
        else:
            self.happen(Event("death_started" if hand.began else "death", hand.token))

    @precondition(lambda self: self.hands)
    @rule(number=st.integers(0, 1), kind=st.sampled_from(("silence", "silence", "unnamed")))
    def is_not_heard(self, number: int, kind: str) -> None:
        hand = self.hand(-1 - number)
        if kind == "silence" or not hand.began:
            self.happen(Event(kind, hand.token))

    @rule(wish=st.sampled_from(("pause", "resume", "resume", "resume", "cancel", "expire")))
    def is_wished(self, wish: str) -> None:
        assert self.happen(Event(wish)) in ("done", "asked", "finished", "being_cancelled")

    @invariant()
    def the_row_is_right(self) -> None:
        assert invariants.of_life(self.life) == []

    @invariant()
    def at_most_one_outcome_of_each_token_is_accepted(self) -> None:
        assert len(self.accepted) == len(set(self.accepted))

    @invariant()
    def what_is_charged_as_free_was_never_said_to_run(self) -> None:
        life = self.life
        if life.lease is Lease.LAPSED and life.phase is Phase.STARTED:
            assert life.owed is Owed.LOSS


TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_history_ends_within_its_budgets_whatever_is_done_to_it() -> None:
    """No path is free of a bound: each way to go wrong, repeated, ends the task."""
    ways: Iterator[tuple[tuple[Event, ...], int]] = iter(
        (
            ((Event("silence"),), 5 + 6),
            ((Event("death"),), 100 + 6),
            ((Event("started"), Event("silence")), 6),
            ((Event("outcome", NEWEST, "crashed"),), 4),
            ((Event("save", number=1, digest=b"d"), Event("outcome", NEWEST, "environment")), 6),
            ((Event("outcome", NEWEST, "out_of_memory"),), 2),
            ((Event("outcome", NEWEST, "checkpointed"),), 4),
            ((Event("outcome", NEWEST, "stopped"),), 6),
        )
    )
    for events, runs in ways:
        life, claims = Life(), 0
        while life.state is State.QUEUED and claims < 200:
            token = TOKENS[claims]
            life = play(life, claim(token))
            if life.state is State.RUNNING:
                claims += 1
                moved = (
                    Event(e.kind, token, e.detail, number=e.number, digest=e.digest) for e in events
                )
                life = play(life, *moved)
        assert (life.state, claims) == (State.FAILED, runs), events
