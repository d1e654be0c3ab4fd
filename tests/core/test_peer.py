"""The worker's end of a session: what is heard, what it asks of the shell, and what a view says."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import strategies as st

from holdfast.core.peer import (
    HELLO_FRAME_BYTES,
    HELLO_HELD_MAX,
    NO_STORE,
    Heard,
    Offer,
    Peer,
    PeerState,
    check_slots,
)
from holdfast.core.wire import Wire
from holdfast.errors import ConfigurationError, ProtocolError
from holdfast.model.limits import CONCURRENT_SLOTS_MAX, FRAME_BYTES_MAX, SLOTS_MAX
from holdfast.model.messages import (
    Code,
    DrainOrder,
    Ended,
    Frame,
    Goodbye,
    HeldLease,
    HelloMore,
    Message,
    ToWorker,
    View,
    WorkerHello,
)
from holdfast.model.outcome import Answer
from holdfast.model.task import Phase, Wanted
from tests.core.wording import (
    STORE,
    answered,
    assign,
    ended,
    recall,
    said,
    stop,
    task,
    token,
    welcome,
    wish,
)

OTHER = ("store-b", 1)


class Play:
    """One peer: `>>` is what it hears, and `heard` is what that asks of the shell."""

    def __init__(self) -> None:
        self.peer = Peer(Offer("w", 2), identity="me", incarnation=3)

    def hello(self, outcomes: Sequence[Ended] = (), owed: Sequence[HeldLease] = ()) -> WorkerHello:
        first = self.peer.hello(outcomes=outcomes, owed=owed)[0]
        assert isinstance(first, WorkerHello)
        return first

    def __rshift__(self, said: ToWorker | Sequence[ToWorker]) -> Heard:
        heard = Heard()
        self.peer.hear(said if isinstance(said, list | tuple) else [said], heard)
        return heard

    def refuses(self, message: ToWorker, why: str) -> None:
        before = (dict(self.peer.leases), self.peer.view())
        with pytest.raises(ProtocolError, match=why):
            _ = self >> message
        assert (dict(self.peer.leases), self.peer.view()) == before

    def start(self, number: int) -> None:
        self.peer.leases[token(number)].phase = Phase.STARTED

    def holds(self, *numbers: int) -> None:
        """Check the digest: the exclusive-or of the numbers that our tokens begin with."""
        digest = 0
        for number in numbers:
            digest ^= number
        assert self.peer.view().digest == digest


@pytest.fixture
def play() -> Play:
    """Return a peer that is welcomed and holds nothing."""
    play = Play()
    play.hello()
    heard = play >> welcome()
    assert heard.welcome is not None
    return play


def test_every_hello_has_the_next_number_and_names_what_is_held() -> None:
    play = Play()
    hello = play.hello()
    assert (hello.identity, hello.incarnation, hello.number) == ("me", 3, 1)
    assert (hello.store, hello.timeline) == NO_STORE
    assert play.peer.state is PeerState.CONNECTING
    _ = play >> [welcome(), assign(1, 5), assign(2, 6)]
    play.start(5)
    owed = [HeldLease(task(n), token(n), Phase.STARTED, 0, stranger=n == 8) for n in (8, 9)]
    again = play.hello([ended(7)], owed)
    assert again.number == 2
    assert (again.store, again.timeline) == STORE
    assert again.held == (
        HeldLease(task(5), token(5), Phase.STARTED, 0),
        HeldLease(task(6), token(6), Phase.ASSIGNED, 0),
        HeldLease(task(9), token(9), Phase.STARTED, 0),
        HeldLease(task(8), token(8), Phase.STARTED, 0, stranger=True),
    )
    assert again.outcomes == (ended(7),)
    assert not again.more
    assert play.peer.view() == View(0, 0, 0)


def test_a_large_hello_goes_in_frames_that_each_fit() -> None:
    play = Play()
    outcomes = [ended(number, result_bytes=50_000) for number in range(20)]
    messages = play.peer.hello(outcomes=outcomes)
    wire = Wire(Frame)
    for message in messages:
        data = wire_bytes(wire, message)
        assert len(data) <= min(FRAME_BYTES_MAX, HELLO_FRAME_BYTES)
    first, *rest = messages
    assert isinstance(first, WorkerHello)
    assert first.more
    pages = [first.outcomes]
    for message in rest:
        assert isinstance(message, HelloMore)
        pages.append(message.outcomes)
    assert [m.more for m in rest if isinstance(m, HelloMore)] == [True] * (len(rest) - 1) + [False]
    assert [each for page in pages for each in page] == outcomes


def test_a_hello_with_all_leases_that_may_be_fits_a_frame() -> None:
    offer = Offer("w" * 512, SLOTS_MAX, CONCURRENT_SLOTS_MAX)
    check_slots(offer)
    peer = Peer(offer, identity="me" * 16, incarnation=3)
    peer.hello(outcomes=[])
    orders = [assign(number, number, wish=1 << 40) for number in range(1, HELLO_HELD_MAX + 1)]
    peer.hear([welcome(), *orders], Heard())
    for lease in peer.leases.values():
        lease.phase = Phase.STARTED
    owed = HeldLease(task(1 << 41), token(1 << 41), Phase.STARTED, 0)
    first, more = peer.hello(outcomes=[ended(1 << 40)], owed=[owed])
    assert isinstance(first, WorkerHello)
    assert len(first.held) == HELLO_HELD_MAX
    assert len(wire_bytes(Wire(Frame), first)) <= FRAME_BYTES_MAX
    assert isinstance(more, HelloMore)


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        (Offer("w", 0), "slots is 0"),
        (Offer("w", SLOTS_MAX + 1), f"slots is {SLOTS_MAX + 1}"),
        (Offer("w", 1, -1), "concurrent_slots is -1"),
        (
            Offer("w", 1, CONCURRENT_SLOTS_MAX + 1),
            f"concurrent_slots is {CONCURRENT_SLOTS_MAX + 1}",
        ),
    ],
)
def test_slots_beyond_what_a_hello_names_are_refused(offer: Offer, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{said}: give"):
        check_slots(offer)


def wire_bytes(wire: Wire[Frame], message: Message) -> bytes:
    return wire.write(deque([message]))


def test_orders_count_from_one_and_are_held(play: Play) -> None:
    heard = play >> [assign(1, 5), assign(2, 6), stop(3, 5)]
    assert [lease.order.token for lease in heard.orders] == [token(5), token(6)]
    assert heard.stops == [token(5)]
    assert play.peer.view() == View(1, 3, 6)
    assert (play.peer.read, play.peer.assigned) == (3, [2, 0])


def test_an_order_of_another_epoch_or_number_is_refused(play: Play) -> None:
    play.refuses(assign(1, 5, epoch=2), "epoch 2")
    play.refuses(assign(2, 5), "order 2 after order 0")
    _ = play >> assign(1, 5)
    play.refuses(assign(1, 6), "order 1 after order 1")
    play.refuses(stop(3, 5), "order 3 after order 1")
    play.refuses(assign(2, 5), "twice")
    play.refuses(welcome(epoch=9), "second welcome")


def test_nothing_is_heard_before_the_welcome() -> None:
    play = Play()
    play.refuses(welcome(), "before the welcome")
    play.hello()
    for early in (assign(1, 5), stop(1, 5), answered(5), recall(5), wish(5, Wanted.RUN, 1)):
        play.refuses(early, "before the welcome")
    play.refuses(welcome(protocol=99), "protocol 99")
    assert (play >> Goodbye("late", "go")).goodbye == Goodbye("late", "go")
    assert play.peer.state is PeerState.CLOSED


def test_a_goodbye_ends_the_session_and_keeps_the_leases(play: Play) -> None:
    _ = play >> assign(1, 5)
    heard = play >> Goodbye("stopping", "back soon")
    assert heard.goodbye is not None
    assert play.peer.state is PeerState.CLOSED
    assert list(play.peer.leases) == [token(5)]


def test_a_token_leaves_the_view_when_its_outcome_is_written(play: Play) -> None:
    _ = play >> [assign(1, 5), assign(2, 6)]
    lease = play.peer.ended(token(5))
    assert lease is not None
    assert lease.origin == STORE
    play.holds(5, 6)
    play.peer.written(token(5))
    play.holds(6)
    play.peer.written(token(5))
    play.holds(6)
    _ = play >> stop(3, 5)
    play.holds(6)
    assert play.peer.ended(token(5)) is None


def test_a_stop_before_the_outcome_was_written_takes_the_token_out_once(play: Play) -> None:
    _ = play >> [assign(1, 5), assign(2, 6)]
    play.peer.ended(token(5))
    heard = play >> stop(3, 5)
    assert heard.stops == []
    play.holds(6)
    play.peer.written(token(5))
    play.holds(6)


def test_a_welcome_judges_each_lease_that_was_named(play: Play) -> None:
    _ = play >> [assign(order, order) for order in range(1, 7)]
    for number in (1, 2, 6):
        play.start(number)
    play.hello([ended(7)])
    heard = play >> welcome(
        said(1, Answer.KEEP, Wanted.CANCEL, 2),
        said(2, Answer.STOP),
        said(3, Answer.SETTLED),
        said(4, Answer.KEEP),
        said(5, Answer.UNKNOWN),
        said(6, Answer.UNKNOWN),
        said(7, Answer.SETTLED),
        epoch=2,
        store=OTHER,
    )
    assert heard.stops == [token(2), token(3), token(5)]
    assert heard.answered == [(token(7), Answer.SETTLED)]
    assert [lease.order.token for lease in heard.wishes] == [token(1)]
    # 6 runs on for the store that gave it: this one is told in views that it takes a slot.
    assert list(play.peer.leases) == [token(1), token(4), token(6)]
    assert play.peer.view() == View(2, 0, 1 ^ 4, ((token(1), 2),), strangers=1)


def test_a_stranger_is_named_as_one_until_the_store_that_gave_it_answers(play: Play) -> None:
    _ = play >> [assign(1, 5), assign(2, 6, wish=1, concurrent=True)]
    play.start(5)
    play.start(6)
    play.hello()
    unknown = (said(5, Answer.UNKNOWN), said(6, Answer.UNKNOWN))
    assert (play >> welcome(*unknown, epoch=1, store=OTHER)).stops == []
    _ = play >> assign(1, 7)
    for _ in range(2):
        again = play.hello()
        assert (again.store, again.timeline) == OTHER
        assert again.held == (
            HeldLease(task(7), token(7), Phase.ASSIGNED, 0),
            HeldLease(task(5), token(5), Phase.STARTED, 0, stranger=True),
            HeldLease(task(6), token(6), Phase.STARTED, 1, stranger=True),
        )
        kept = said(7, Answer.KEEP)
        assert (play >> welcome(kept, *unknown, epoch=2, store=OTHER)).stops == []
        play.holds(7)
        assert list(play.peer.strangers) == [token(5), token(6)]
        view = play.peer.view()
        assert (view.strangers, view.concurrent_strangers) == (1, 1)
    play.hello()
    strange = (said(5, Answer.KEEP), said(6, Answer.STOP), said(7, Answer.UNKNOWN))
    heard = play >> welcome(*strange, epoch=2)
    # What had not started is dropped, whatever store gave it.
    assert heard.stops == [token(7), token(6)]
    play.holds(5)
    assert play.peer.strangers == {}
    assert play.peer.view().concurrent_strangers == 0
    assert play.hello().held == (HeldLease(task(5), token(5), Phase.STARTED, 0),)


def test_a_stranger_that_its_own_store_does_not_know_is_over(play: Play) -> None:
    _ = play >> assign(1, 5)
    play.start(5)
    play.hello()
    assert (play >> welcome(said(5, Answer.UNKNOWN), store=OTHER)).stops == []
    play.hello()
    assert (play >> welcome(said(5, Answer.UNKNOWN), epoch=2)).stops == [token(5)]
    assert play.peer.leases == {}


def test_a_stranger_that_has_ended_is_none_any_more(play: Play) -> None:
    _ = play >> assign(1, 5)
    play.start(5)
    play.hello()
    _ = play >> welcome(said(5, Answer.UNKNOWN), store=OTHER)
    lease = play.peer.ended(token(5))
    assert lease is not None
    assert lease.origin == STORE
    assert play.peer.strangers == {}


def test_a_welcome_has_to_answer_every_lease(play: Play) -> None:
    _ = play >> [assign(1, 5), assign(2, 6)]
    play.hello()
    play.refuses(welcome(said(5, Answer.KEEP), epoch=2), "1 leases unanswered")


def test_a_kept_lease_whose_outcome_came_meanwhile_is_held_until_that_is_written(
    play: Play,
) -> None:
    _ = play >> [assign(1, 5), assign(2, 6)]
    play.hello()
    play.peer.ended(token(5))
    heard = play >> welcome(said(5, Answer.KEEP), said(6, Answer.KEEP), epoch=2)
    assert heard.answered == [(token(5), Answer.KEEP)]
    play.holds(5, 6)
    play.peer.written(token(5))
    play.holds(6)


def test_outcomes_named_in_the_hello_are_never_held(play: Play) -> None:
    _ = play >> assign(1, 5)
    lease = play.peer.ended(token(5))
    assert lease is not None
    play.hello([ended(5)])
    _ = play >> welcome(said(5, Answer.SETTLED), epoch=2)
    play.holds()


def test_only_a_newer_wish_is_obeyed_and_the_view_tells_the_newest_seen(play: Play) -> None:
    _ = play >> assign(1, 5, wish=3)
    assert play.peer.view().wishes == ((token(5), 3),)
    assert (play >> wish(5, Wanted.CANCEL, 3)).wishes == []
    heard = play >> wish(5, Wanted.CANCEL, 4)
    assert [lease.wanted for lease in heard.wishes] == [Wanted.CANCEL]
    assert (play >> wish(5, Wanted.RUN, 4)).wishes == []
    assert play.peer.view().wishes == ((token(5), 4),)
    assert play.peer.leases[token(5)].wanted is Wanted.CANCEL


def test_a_wish_for_an_ended_lease_is_seen_but_asks_nothing(play: Play) -> None:
    _ = play >> assign(1, 5)
    play.peer.ended(token(5))
    assert (play >> wish(5, Wanted.CANCEL, 1)).wishes == []
    assert play.peer.view().wishes == ((token(5), 1),)
    play.peer.written(token(5))
    assert play.peer.view().wishes == ()
    _ = play >> wish(5, Wanted.CANCEL, 2)
    assert play.peer.view().wishes == ()


def test_an_order_that_is_not_to_run_says_so(play: Play) -> None:
    heard = play >> assign(1, 5, wanted=Wanted.CANCEL, wish=1)
    assert [lease.order.token for lease in heard.wishes] == [token(5)]


def test_recalls_answers_and_code_are_passed_on(play: Play) -> None:
    code = Code(b"d", b"x", True)
    heard = play >> [assign(1, 5), recall(5), answered(9), code, DrainOrder()]
    assert heard.drain
    assert heard.recalls == [token(5)]
    assert heard.answered == [(token(9), Answer.SETTLED)]
    assert heard.code == [code]


class Mirror:
    """What a coordinator believes, written apart from the product: plain sets, no increments."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, int]] = []
        self.ended: list[int] = []
        self.kept: list[int] = []

    def digest(self, read: int) -> int:
        held = set(self.kept)
        for verb, number in self.orders[:read]:
            if verb == "assign":
                held.add(number)
            else:
                held.discard(number)
        total = 0
        for number in held - set(self.ended):
            total ^= number
        return total


@hypothesis.given(st.lists(st.tuples(st.sampled_from("asehw"), st.integers(0, 5)), max_size=60))
def test_the_view_is_what_an_independent_mirror_computes(moves: list[tuple[str, int]]) -> None:
    """Assign, stop, end, hello again, write: in any order both sides agree after each."""
    play, mirror, epoch, fresh = Play(), Mirror(), 1, 0
    play.hello()
    _ = play >> welcome()
    unwritten: list[int] = []
    for verb, which in moves:
        held = [lease.order.token for lease in play.peer.leases.values()]
        chosen = int.from_bytes(held[which % len(held)][:8], "big") if held else 0
        if verb == "a":
            fresh += 1
            mirror.orders.append(("assign", fresh))
            _ = play >> assign(len(mirror.orders), fresh, epoch=epoch)
        elif verb == "s" and chosen:
            mirror.orders.append(("stop", chosen))
            _ = play >> stop(len(mirror.orders), chosen)
        elif verb == "e" and chosen:
            play.peer.ended(token(chosen))
            unwritten.append(chosen)
        elif verb == "w" and unwritten:
            play.peer.written(token(unwritten[0]))
            mirror.ended.append(unwritten.pop(0))
        elif verb == "h":
            epoch += 1
            named = play.hello([ended(number) for number in unwritten]).held
            mirror, unwritten = Mirror(), []
            mirror.kept = [int.from_bytes(each.token[:8], "big") for each in named]
            _ = play >> welcome(*(said(n, Answer.KEEP) for n in mirror.kept), epoch=epoch)
        assert play.peer.view() == View(epoch, len(mirror.orders), mirror.digest(play.peer.read))
