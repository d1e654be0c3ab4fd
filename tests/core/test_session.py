"""Who is let in, and that the ledger and an honest worker never differ, whatever crosses."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from holdfast.core.session import Admission, Known, Ledger, admit, patience_seconds, token_digest
from holdfast.model.ids import Token
from holdfast.model.messages import View
from tests.core.wording import hello


def known(identity: str, *, incarnation: int = 3, number: int = 5, present: bool = True) -> Known:
    return Known(identity, "north", incarnation, number, epoch=1, present=present)


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize(
    ("incarnation", "number", "verdict"),
    [
        (3, 4, Admission.LATE),
        (3, 5, Admission.LATE),
        (2, 9, Admission.LATE),
        (3, 6, Admission.WELCOME),
        (4, 1, Admission.WELCOME),
    ],
)
def test_only_a_pair_above_the_stored_one_takes_the_place_of_a_session(
    incarnation: int, number: int, verdict: Admission, present: bool
) -> None:
    same = known("a", present=present)
    said = hello("a", name="north", incarnation=incarnation, number=number)
    assert admit(said, same=same, namesake=same) is verdict


def test_a_name_belongs_to_the_worker_that_is_present_with_it() -> None:
    assert admit(hello("b", name="north"), same=None, namesake=None) is Admission.WELCOME
    assert admit(hello("b", name="north"), same=None, namesake=known("a")) is Admission.NAME_TAKEN
    gone = known("a", present=False)
    assert admit(hello("b", name="north"), same=None, namesake=gone) is Admission.WELCOME


def test_a_late_hello_is_late_also_where_its_name_is_taken() -> None:
    said = hello("a", name="north", incarnation=1)
    assert admit(said, same=known("a"), namesake=known("b")) is Admission.LATE


# The ledger. `>>` is what the coordinator sends or reads, `<<` whether the two agree then.

A, B, C = (Token(bytes([n]) * 16) for n in (1, 2, 3))


def view(read: int, *held: Token, wishes: tuple[tuple[Token, int], ...] = ()) -> View:
    digest = 0
    for token in held:
        digest ^= token_digest(token)
    return View(1, read, digest, wishes)


@pytest.mark.parametrize(
    ("lease_seconds", "left"),
    [(10.0, [10.0, 10.0, 7.0, 4.0, 1.0, 0.0, 0.0]), (1.0, [3.0, 3.0, 0.0])],
)
def test_outages_are_given_back_twice_in_a_row(lease_seconds: float, left: list[float]) -> None:
    assert [patience_seconds(lease_seconds, outages) for outages in range(len(left))] == left


def test_leases_that_the_welcome_keeps_are_held_from_the_first_frame_on() -> None:
    ledger = Ledger()
    ledger.keep(A, b"task")
    ledger.keep(A, b"task")
    assert ledger.agrees(view(0, A))
    assert not ledger.agrees(view(0))


def test_a_view_is_compared_as_of_the_order_that_it_names() -> None:
    ledger = Ledger()
    assert ledger.assign(A, b"a") == 1
    assert ledger.assign(B, b"b") == 2
    assert ledger.agrees(view(0))
    assert ledger.agrees(view(1, A))
    assert not ledger.agrees(view(1, A, B))
    assert ledger.agrees(view(2, A, B))
    assert not ledger.agrees(view(2, A))


def test_a_view_that_goes_back_or_knows_what_was_not_sent_is_a_difference() -> None:
    ledger = Ledger()
    ledger.assign(A, b"a")
    assert ledger.agrees(view(1, A))
    assert not ledger.agrees(view(0))
    assert not ledger.agrees(view(2, A))


def test_an_outcome_that_crosses_a_stop_order() -> None:
    ledger = Ledger()
    ledger.keep(B, b"b")
    ledger.assign(A, b"a")
    assert ledger.stop(A) == 2
    assert ledger.agrees(view(1, A, B))
    # The worker let go of it before it read the order to stop: its frame says both at once.
    ledger.ended(A)
    assert ledger.agrees(view(1, B))
    assert ledger.agrees(view(2, B))


def test_a_stop_order_that_was_read_before_the_outcome_was_written() -> None:
    ledger = Ledger()
    ledger.assign(A, b"a")
    ledger.stop(A)
    assert ledger.agrees(view(2))
    ledger.ended(A)
    assert ledger.agrees(view(2))


def test_a_stop_order_for_a_lease_that_is_not_held_is_numbered_and_changes_nothing() -> None:
    ledger = Ledger()
    ledger.assign(A, b"a")
    assert ledger.stop(B) == 2
    assert ledger.stop(A) == 3
    assert ledger.stop(A) == 4
    assert ledger.agrees(view(2, A))
    assert ledger.agrees(view(4))


def test_an_outcome_is_counted_once() -> None:
    ledger = Ledger()
    ledger.assign(A, b"a")
    ledger.ended(A)
    ledger.ended(A)
    assert ledger.agrees(view(1))
    assert ledger.tokens == {}


def test_a_wish_is_told_again_until_it_was_seen_and_while_the_lease_is_held() -> None:
    ledger = Ledger()
    ledger.assign(A, b"a")
    assert ledger.unheard_wishes(view(1, A)) == []
    ledger.tell(A, 1)
    ledger.tell(B, 1)
    assert ledger.unheard_wishes(view(1, A)) == [A]
    ledger.tell(A, 2)
    assert ledger.unheard_wishes(view(1, A, wishes=((A, 1),))) == [A]
    assert ledger.unheard_wishes(view(1, A, wishes=((A, 2),))) == []
    ledger.ended(A)
    assert ledger.unheard_wishes(view(1)) == []
    ledger.keep(C, b"c")
    ledger.tell(C, 1)
    ledger.stop(C)
    assert ledger.unheard_wishes(view(2)) == []


# A worker at the other end of two pipes that keep their order.


@dataclass(slots=True)
class Worker:
    """What an honest worker shows: a lease from its order on, to its outcome or its stop."""

    read: int = 0
    shown: dict[bytes, int] = field(default_factory=dict)

    def view(self) -> View:
        wishes = tuple((Token(token), wish) for token, wish in self.shown.items() if wish)
        digest = 0
        for token in self.shown:
            digest ^= token_digest(token)
        return View(1, self.read, digest, wishes)


class TwoEnds(RuleBasedStateMachine):
    """Orders and wishes go one way, outcomes and views the other; both are read late."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.worker = Worker()
        self.down: deque[tuple[str, Token, int]] = deque()
        self.up: deque[tuple[tuple[Token, ...], View]] = deque()
        self.made = 0
        self.last = self.worker.view()

    def token(self) -> Token:
        self.made += 1
        return Token(self.made.to_bytes(8, "big") * 2)

    def pick(self, number: int) -> Token:
        """Return one of the newest tokens, 0 for the last one made."""
        return Token(max(self.made - number, 0).to_bytes(8, "big") * 2)

    @initialize(count=st.integers(0, 3))
    def welcomed_with(self, count: int) -> None:
        for token in [self.token() for _ in range(count)]:
            self.ledger.keep(token, b"task")
            self.worker.shown[token] = 0

    @rule()
    def assigns(self) -> None:
        token = self.token()
        self.down.append(("assign", token, self.ledger.assign(token, b"task")))

    @rule(number=st.integers(0, 3))
    def stops(self, number: int) -> None:
        token = self.pick(number)
        self.down.append(("stop", token, self.ledger.stop(token)))

    @rule(number=st.integers(0, 3), wish=st.integers(1, 5))
    def wishes(self, number: int, wish: int) -> None:
        token = self.pick(number)
        if wish > self.ledger.wishes.get(token, 0):
            self.ledger.tell(token, wish)
            self.down.append(("wish", token, wish))

    @precondition(lambda self: self.down)
    @rule()
    def worker_reads(self) -> None:
        kind, token, number = self.down.popleft()
        shown = self.worker.shown
        if kind == "wish":
            if token in shown:
                shown[token] = max(number, shown[token])
            return
        assert number == self.worker.read + 1
        self.worker.read = number
        if kind == "assign":
            shown[token] = 0
        else:
            shown.pop(token, None)

    @rule(ends=st.sets(st.integers(0, 3), max_size=3))
    def worker_writes(self, ends: set[int]) -> None:
        ended = tuple(token for token in map(self.pick, ends) if token in self.worker.shown)
        for token in ended:
            del self.worker.shown[token]
        self.up.append((ended, self.worker.view()))

    @precondition(lambda self: self.up)
    @rule()
    def coordinator_reads(self) -> None:
        ended, seen = self.up.popleft()
        for token in ended:
            self.ledger.ended(token)
        assert self.ledger.agrees(seen)
        self.last = seen

    @precondition(lambda self: not self.up and not self.down and self.worker.shown)
    @rule(number=st.integers(0, 9))
    def a_lease_that_the_worker_lost_is_noticed(self, number: int) -> None:
        assert self.ledger.agrees(self.worker.view())
        token = list(self.worker.shown)[number % len(self.worker.shown)]
        wish = self.worker.shown.pop(token)
        assert not self.ledger.agrees(self.worker.view())
        self.worker.shown[token] = wish

    @precondition(lambda self: not self.up and not self.down)
    @rule()
    def told_again_every_wish_is_seen(self) -> None:
        for token in self.ledger.unheard_wishes(self.worker.view()):
            self.worker.shown[token] = self.ledger.wishes[token]
        assert self.ledger.unheard_wishes(self.worker.view()) == []

    @invariant()
    def wishes_are_of_leases_held(self) -> None:
        assert set(self.ledger.wishes) <= set(self.ledger.tokens)


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
