"""What a worker has to say: what goes into a frame, what is kept, and what a new hello names."""

from __future__ import annotations

import math
from collections import deque

import pytest

from holdfast.core import outbox as room
from holdfast.core.outbox import OUTBOX_BYTES_MAX, STARTED_DELAY_SECONDS, UNREADY_MAX, Outbox
from holdfast.core.peer import HELLO_HELD_MAX
from holdfast.core.wire import Wire
from holdfast.model.limits import (
    CONCURRENT_SLOTS_MAX,
    FRAME_BYTES_MAX,
    OUTSTANDING_MAX,
    SLOTS_MAX,
)
from holdfast.model.messages import (
    CodeWanted,
    Draining,
    Ended,
    HeldLease,
    Message,
    Pull,
    Started,
    WorkerFrame,
)
from holdfast.model.outcome import Answer, Encoding, Failure, OutcomeKind, Payload
from holdfast.model.task import Phase
from tests.core.wording import STORE, ended, started, task, token

OTHER = ("store-b", 1)
NOW = 50.0
LATER = NOW + STARTED_DELAY_SECONDS


@pytest.fixture
def outbox() -> Outbox:
    """Return an outbox in a session with the usual store."""
    outbox = Outbox()
    outbox.rejoin(STORE)
    outbox.welcomed(STORE)
    return outbox


def owed(number: int, *, stranger: bool = False) -> HeldLease:
    """Return how a hello names an outcome that cannot be said yet."""
    return HeldLease(task(number), token(number), Phase.STARTED, 0, stranger)


def take(outbox: Outbox, now: float = LATER) -> list[Message]:
    return list(outbox.take(now))


def start(outbox: Outbox, number: int) -> None:
    outbox.started(task(number), token(number), now=NOW)


def test_control_goes_first_then_starts_then_outcomes(outbox: Outbox) -> None:
    outbox.ended(ended(1), STORE)
    start(outbox, 2)
    outbox.started_again(task(3), token(3))
    outbox.code_wanted(b"digest")
    outbox.code_wanted(b"digest")
    outbox.pull(4, 1)
    outbox.pull(5, 2)
    outbox.draining()
    assert outbox.pending(LATER)
    assert take(outbox) == [
        Draining(),
        Pull(5, 2),
        CodeWanted(b"digest"),
        started(3),
        started(2),
        ended(1),
    ]
    assert not outbox.pending(LATER)
    assert take(outbox) == []


def test_a_start_waits_a_moment(outbox: Outbox) -> None:
    assert outbox.due() == math.inf
    start(outbox, 1)
    assert outbox.due() == LATER
    assert not outbox.pending(NOW)
    assert take(outbox, NOW) == []
    assert outbox.pending(LATER)
    assert take(outbox) == [started(1)]


def test_an_outcome_implies_a_start_that_was_not_written(outbox: Outbox) -> None:
    start(outbox, 1)
    outbox.started_again(task(2), token(2))
    outbox.ended(ended(1), STORE)
    outbox.ended(ended(2), STORE)
    assert take(outbox) == [ended(1), ended(2)]


def test_a_start_is_said_where_its_outcome_cannot_be_yet(outbox: Outbox) -> None:
    for number in (1, 2):
        start(outbox, number)
        outbox.ended(ended(number), STORE, ready=False)
    outbox.ready(ended(2))
    assert take(outbox) == [started(1), ended(2)]
    outbox.ready(ended(1))
    assert take(outbox) == [ended(1)]


def test_a_start_that_was_taken_back_is_not_said(outbox: Outbox) -> None:
    start(outbox, 1)
    outbox.started_again(task(2), token(2))
    outbox.not_started(token(1))
    outbox.not_started(token(2))
    assert take(outbox) == []


@pytest.mark.parametrize("answer", [Answer.SETTLED, Answer.SUPERSEDED])
def test_an_outcome_stays_until_it_is_answered(outbox: Outbox, answer: Answer) -> None:
    outbox.ended(ended(1), STORE)
    size = outbox.bytes
    assert size > 0
    take(outbox)
    assert (len(outbox), outbox.bytes) == (1, size)
    entry = outbox.answered(token(1), answer)
    assert entry is not None
    assert entry.ended == ended(1)
    assert (len(outbox), outbox.bytes) == (0, 0)
    assert outbox.answered(token(1), answer) is None


def test_an_answer_before_the_outcome_was_written_again_takes_it_out_of_line(
    outbox: Outbox,
) -> None:
    outbox.ended(ended(1), STORE)
    assert outbox.answered(token(1), Answer.SETTLED) is not None
    assert take(outbox) == []


def test_a_frame_takes_what_fits_and_the_rest_follows(outbox: Outbox) -> None:
    for number in range(8):
        outbox.ended(ended(number, result_bytes=60_000), STORE)
    wire, said = Wire(WorkerFrame), 0
    while batch := outbox.take(LATER):
        said += len(batch)
        assert len(wire.write(batch)) <= FRAME_BYTES_MAX
        assert batch == deque(), "the wire left a message that the outbox gave it"
    assert said == 8


def test_starts_and_code_leave_room_in_a_frame_for_outcomes(outbox: Outbox) -> None:
    for number in range(2000):
        start(outbox, number)
        outbox.code_wanted(number.to_bytes(32, "big"))
        outbox.started_again(task(number + 5000), token(number + 5000))
    outbox.ended(ended(9999), STORE)
    first = take(outbox)
    assert first[-1] == ended(9999)
    assert sum(isinstance(message, Started | CodeWanted) for message in first) < 1000
    rest = 0
    while batch := take(outbox):
        rest += len(batch)
    assert len(first) + rest == 6001


def test_a_new_hello_names_what_is_unanswered_and_nothing_is_said_twice(outbox: Outbox) -> None:
    outbox.ended(ended(1), STORE)
    take(outbox)
    outbox.ended(ended(2), STORE)
    start(outbox, 3)
    outbox.pull(1, 0)
    outbox.draining()
    outbox.code_wanted(b"d")
    outbox.started_again(task(4), token(4))
    assert outbox.rejoin(STORE) == ([ended(1), ended(2)], [])
    outbox.welcomed(STORE)
    assert take(outbox) == []
    outbox.ended(ended(5), STORE)
    assert take(outbox) == [ended(5)]


def test_what_a_hello_cannot_hold_is_owed_and_said_in_the_session(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "HELLO_OUTCOMES_BYTES_MAX", 100_000)
    for number in range(3):
        outbox.ended(ended(number, result_bytes=40_000), STORE)
    named, unsaid = outbox.rejoin(STORE)
    assert [each.token for each in named] == [token(0), token(1)]
    assert unsaid == [owed(2)]
    outbox.welcomed(STORE)
    assert outbox.answered(token(2), Answer.KEEP) is None
    assert [each.token for each in take(outbox) if isinstance(each, Ended)] == [token(2)]


@pytest.mark.parametrize("answer", [Answer.KEEP, Answer.STOP, Answer.UNKNOWN])
def test_an_unknown_outcome_is_kept_for_its_own_store(outbox: Outbox, answer: Answer) -> None:
    outbox.ended(ended(1), STORE)
    assert outbox.rejoin(STORE) == ([ended(1)], [])
    outbox.welcomed(OTHER)
    assert outbox.answered(token(1), Answer.UNKNOWN) is None
    assert outbox.has_foreign
    assert len(outbox) == 0
    assert outbox.unspooled() == [ended(1)]
    # The other store does not hear how it ended, and its word would not count.
    assert outbox.rejoin(OTHER) == ([], [owed(1, stranger=True)])
    outbox.welcomed(OTHER)
    assert outbox.answered(token(1), Answer.UNKNOWN) is None
    assert take(outbox) == []
    assert outbox.answered(token(1), Answer.SUPERSEDED) is None
    # Its own store is back: the hello still named the other, so that it is said in the session.
    assert outbox.rejoin(OTHER) == ([], [owed(1, stranger=True)])
    outbox.welcomed(STORE)
    assert outbox.answered(token(1), answer) is None
    assert take(outbox) == [ended(1)]
    assert outbox.answered(token(1), Answer.SUPERSEDED) is not None
    assert not outbox.has_foreign


def test_an_outcome_of_a_stranger_is_kept_back(outbox: Outbox) -> None:
    outbox.ended(ended(1), OTHER)
    assert take(outbox) == []
    assert outbox.has_foreign
    assert outbox.answered(token(1), Answer.SETTLED) is not None


def test_a_store_that_keeps_an_owed_lease_has_it_whatever_its_timeline(outbox: Outbox) -> None:
    """A store restored from a backup: same leases, another timeline."""
    outbox.rejoin(STORE)
    outbox.ended(ended(1), STORE)
    outbox.welcomed(("store-a", 2))
    assert take(outbox) == []
    assert outbox.answered(token(1), Answer.KEEP) is None
    assert take(outbox) == [ended(1)]


def test_an_unready_outcome_is_owed_until_its_result_is_durable(outbox: Outbox) -> None:
    outbox.ended(ended(1), STORE, ready=False)
    assert take(outbox) == []
    assert outbox.unready() == [ended(1)]
    assert outbox.unspooled() == [ended(1)]
    assert outbox.rejoin(STORE) == ([], [owed(1)])
    outbox.welcomed(STORE)
    assert outbox.answered(token(1), Answer.UNKNOWN) is None
    assert outbox.answered(token(1), Answer.KEEP) is None
    stored = ended(1, run_us=11)
    outbox.ready(stored)
    assert take(outbox) == [stored]
    outbox.ready(stored)
    outbox.ready(ended(2))
    assert take(outbox) == []


def test_an_unready_outcome_is_of_one_store_alone(outbox: Outbox) -> None:
    result = Payload(Encoding.JSON, digest=b"d", size_bytes=9)
    message = Ended(task(1), token(1), OutcomeKind.SUCCEEDED, result)
    outbox.ended(message, STORE, ready=False)
    outbox.rejoin(STORE)
    outbox.welcomed(OTHER)
    assert outbox.answered(token(1), Answer.UNKNOWN) is None
    assert outbox.unready() == []
    assert outbox.has_foreign
    assert outbox.rests(b"d")
    assert not outbox.rests(b"e")
    assert outbox.rejoin(OTHER) == ([], [owed(1, stranger=True)])
    outbox.welcomed(STORE)
    assert outbox.unready() == [message]
    outbox.ready(message)
    assert not outbox.rests(b"d")
    assert outbox.has(token(1))


def test_what_is_answered_needs_no_spool(outbox: Outbox) -> None:
    outbox.ended(ended(1), STORE)
    outbox.ended(ended(2), STORE)
    assert outbox.has_unspooled
    outbox.answered(token(1), Answer.SETTLED)
    outbox.spooled([token(2)])
    assert not outbox.has_unspooled
    outbox.ended(ended(2), STORE)
    assert outbox.unspooled() == [ended(2)]


def test_restored_outcomes_are_spooled_already() -> None:
    outbox = Outbox()
    outbox.restore([ended(1), ended(2)], STORE)
    assert outbox.unspooled() == []
    assert outbox.rejoin(STORE) == ([ended(1), ended(2)], [])
    entry = outbox.answered(token(1), Answer.SETTLED)
    assert entry is not None
    assert entry.spooled


def test_what_is_spooled_is_not_spooled_again(outbox: Outbox) -> None:
    outbox.ended(ended(1), STORE)
    outbox.ended(ended(2), STORE)
    outbox.spooled([token(1), token(9)])
    assert outbox.unspooled() == [ended(2)]


def test_what_waits_for_another_store_does_not_keep_this_one_waiting(outbox: Outbox) -> None:
    number = 0
    while outbox.bytes <= OUTBOX_BYTES_MAX:
        number += 1
        outbox.ended(ended(number, result_bytes=120_000), OTHER)
    outbox.welcomed(STORE)
    assert len(outbox) == 0
    assert not outbox.full


def test_a_full_outbox_says_so(outbox: Outbox) -> None:
    outbox.ended(ended(0), STORE)
    assert not outbox.full
    number = 0
    while outbox.bytes <= OUTBOX_BYTES_MAX:
        number += 1
        outbox.ended(ended(number, result_bytes=120_000), STORE)
    assert outbox.full
    outbox.answered(token(number), Answer.SETTLED)
    assert not outbox.full


def test_no_more_is_unready_than_a_hello_names_beside_all_leases(outbox: Outbox) -> None:
    for slots in (1, SLOTS_MAX):
        assert UNREADY_MAX + max(slots, OUTSTANDING_MAX) + CONCURRENT_SLOTS_MAX <= HELLO_HELD_MAX
    for number in range(UNREADY_MAX):
        outbox.ended(ended(number), STORE, ready=False)
        outbox.ended(ended(10_000 + number), STORE)
        outbox.ended(ended(20_000 + number), OTHER, ready=False)
    assert not outbox.full
    outbox.ended(ended(UNREADY_MAX), STORE, ready=False)
    assert outbox.full
    outbox.ready(ended(3))
    assert not outbox.full
    outbox.ended(ended(3), STORE, ready=False)
    assert outbox.full
    assert outbox.answered(token(3), Answer.SETTLED) is not None
    assert not outbox.full


def test_what_its_store_told_to_stop_is_said_without_its_result(outbox: Outbox) -> None:
    result = Payload(Encoding.JSON, digest=b"d", size_bytes=9)
    message = Ended(task(1), token(1), OutcomeKind.SUCCEEDED, result)
    outbox.ended(message, STORE, ready=False)
    outbox.ended(ended(2), OTHER, ready=False)
    outbox.ended(ended(3), STORE)
    outbox.rejoin(STORE)
    outbox.welcomed(STORE)
    assert outbox.answered(token(1), Answer.STOP) is None
    assert outbox.unwanted(token(1)) == message
    assert not outbox.rests(b"d")
    assert take(outbox) == [Ended(task(1), token(1), OutcomeKind.STOPPED)]
    assert [outbox.unwanted(token(number)) for number in (1, 2, 3, 4)] == [None] * 4
    assert outbox.answered(token(1), Answer.SUPERSEDED) is not None
    assert not outbox.has(token(1))


def test_an_outcome_too_large_for_a_frame_loses_its_comforts() -> None:
    outbox = Outbox()
    failure = Failure(("E" * 9999,) * 99, "m" * 99_999, "t" * 99_999, b"p" * 300_000, "e" * 99_999)
    outbox.ended(Ended(task(1), token(1), OutcomeKind.RAISED, failure=failure), STORE)
    outbox.rejoin(STORE)
    (kept,) = outbox.unspooled()
    assert kept.kind is OutcomeKind.RAISED
    assert kept.failure is not None
    assert kept.failure.pickled == b""
    assert kept.failure.message
    assert len(Wire(WorkerFrame).write(deque([kept]))) <= FRAME_BYTES_MAX


def test_a_result_too_large_for_a_frame_is_invalid() -> None:
    outbox = Outbox()
    result = Payload(Encoding.JSON, b"x" * FRAME_BYTES_MAX)
    outbox.ended(Ended(task(1), token(1), OutcomeKind.SUCCEEDED, result), STORE)
    (kept,) = outbox.unspooled()
    assert kept.kind is OutcomeKind.INVALID
    assert kept.result is None
