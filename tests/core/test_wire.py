"""Frames are bounded, numbered and acknowledged; what cannot be is a ProtocolError, always."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.wire import Wire, size_of
from holdfast.errors import ProtocolError
from holdfast.model.ids import TaskId, Token
from holdfast.model.limits import (
    FRAME_BYTES_MAX,
    INLINE_BYTES_MAX,
    MESSAGES_PER_FRAME_MAX,
    UNACKED_BYTES_MAX,
)
from holdfast.model.messages import (
    Accepted,
    Answered,
    Ask,
    Assign,
    ClientFrame,
    ClientHello,
    ClientWelcome,
    Code,
    CodeWanted,
    Draining,
    DrainOrder,
    Ended,
    Frame,
    Goodbye,
    HelloMore,
    Message,
    Pull,
    PutCode,
    Recall,
    Refused,
    Reply,
    SetQueue,
    Settled,
    SetWanted,
    Started,
    StopOrder,
    Submit,
    View,
    Watch,
    WishTold,
    WorkerFrame,
    WorkerHello,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload

TASK, TOKEN = TaskId(bytes(range(16))), Token(bytes(range(16, 32)))
KINDS = (
    *(Accepted, Answered, Ask, Assign, ClientHello, ClientWelcome, Code, CodeWanted, Draining),
    *(DrainOrder, Ended, Goodbye, HelloMore, Pull, PutCode, Recall, Refused, Reply, Settled),
    *(SetQueue, SetWanted, Started, StopOrder, Submit, Watch, WishTold, WorkerHello, WorkerWelcome),
)


def encoded(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def ends() -> tuple[Wire[Frame], Wire[ClientFrame]]:
    """Return the coordinator's and the client's end of one session."""
    return Wire(Frame), Wire(ClientFrame)


# Numbers and acknowledgements.


def test_frames_are_numbered_and_acknowledge_what_was_read() -> None:
    here, there = ends()
    assert there.read(here.write(deque())) == ClientFrame(1, 0, ())
    assert here.read(there.write(deque([Pull(3)]))) == Frame(1, 1, (Pull(3),))
    assert there.read(here.write(deque())) == ClientFrame(2, 1, ())
    assert (here.written_number, here.read_number) == (2, 1)


def test_a_view_travels_with_its_frame() -> None:
    here, _ = ends()
    worker = Wire(WorkerFrame)
    view = View(3, 2, (1 << 64) - 1, ((TOKEN, 7),))
    assert here.read(worker.write(deque(), view)).view == view


@pytest.mark.parametrize("number", [-1, 0, 1, 3, 1 << 40])
def test_a_frame_out_of_order_is_refused(number: int) -> None:
    here, there = ends()
    here.read(there.write(deque()))
    with pytest.raises(ProtocolError, match=f"frame {number} after frame 1"):
        here.read(encoded((number, 0, (), None)))
    assert here.read_number == 1


def test_an_acknowledgement_of_what_was_never_written_is_refused() -> None:
    here, _ = ends()
    here.write(deque())
    with pytest.raises(ProtocolError, match="frame 2 acknowledged; 1 written"):
        here.read(encoded((1, 2, (), None)))


# Bounds.


def blob(size: int) -> Code:
    return Code(b"", b"x" * size, True)


def test_a_frame_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ProtocolError, match="at most 262144"):
        Wire(Frame).read(b"\xc1" * (FRAME_BYTES_MAX + 1))


def test_a_frame_of_too_many_messages_is_refused() -> None:
    body = [Draining()] * MESSAGES_PER_FRAME_MAX
    assert len(Wire(Frame).read(encoded((1, 0, body))).body) == MESSAGES_PER_FRAME_MAX
    with pytest.raises(ProtocolError, match="4097 messages"):
        Wire(Frame).read(encoded((1, 0, [*body, Draining()])))


def test_a_frame_takes_as_many_messages_as_it_may() -> None:
    worker = Wire(WorkerFrame)
    outgoing: deque[Message] = deque([Draining()] * (MESSAGES_PER_FRAME_MAX + 1))
    worker.write(outgoing)
    assert len(outgoing) == 1


def test_a_frame_takes_no_more_bytes_than_half_its_bound_but_always_one_message() -> None:
    here, _ = ends()
    sizes = (100_000, 20_000, 20_000, 200_000, 10)
    outgoing: deque[Message] = deque(map(blob, sizes))
    left = []
    while outgoing:
        assert len(here.write(outgoing)) <= FRAME_BYTES_MAX
        left.append(len(outgoing))
    assert left == [3, 2, 1, 0]


def test_a_message_that_no_frame_holds_is_refused() -> None:
    here, _ = ends()
    with pytest.raises(ProtocolError, match="does not fit a frame"):
        here.write(deque([blob(FRAME_BYTES_MAX)]))


def test_writing_stops_while_too_much_is_unacknowledged() -> None:
    here, there = Wire(Frame), Wire(WorkerFrame)
    size, sent = 100_000, []
    while here.writable:
        sent.append(here.write(deque([blob(size)])))
    assert len(sent) == UNACKED_BYTES_MAX // size + 1
    waiting: deque[Message] = deque([blob(1)])
    sent.append(here.write(waiting))
    assert len(waiting) == 1
    for data in sent[:2]:
        there.read(data)
    assert there.ack_due
    here.read(there.write(deque()))
    assert not there.ack_due
    assert here.writable
    for data in sent[2:]:
        frame = there.read(data)
    assert frame.body == ()


def test_an_older_acknowledgement_gives_nothing_back() -> None:
    here, there = ends()
    first = here.write(deque())
    here.write(deque([blob(UNACKED_BYTES_MAX // 4)]))
    early = there.write(deque())
    there.read(first)
    here.read(early)
    here.read(there.write(deque()))
    before = here.writable
    here.read(encoded((3, -5, (), None)))
    assert here.writable == before


# What is not a frame.

MALFORMED = {
    "nothing": b"",
    "no array": encoded({"number": 1}),
    "too short": encoded((1, 0)),
    "an unknown message": encoded((1, 0, [[99]])),
    "a message without its tag": encoded((1, 0, [[]])),
    "a message with a field missing": encoded((1, 0, [[10, b"task"]])),
    "a text for a number": encoded(("1", 0, [])),
    "an unknown outcome": encoded((1, 0, [[1, TASK, TOKEN, 99]])),
    "a message of the other direction": encoded((1, 0, [[26]])),
    "a list longer than the frame": b"\x93\x01\x00\xdd\xff\xff\xff\xff",
    "a text that is no UTF-8": b"\x93\x01\x00\x91\x93\x07\xa1\xff\xa0",
    "a timestamp that cannot be": b"\x93\x01\x00\x91\x94\x22\x01\xa1a\x81\xa1a\xd7\xff"
    + b"\xff" * 8,
    "a map as a key": b"\x93\x01\x00\x91\x94\x22\x01\xa1a\x81\xa1a\x81\x80\x01",
    "lists without end": b"\x93\x01\x00\x91\x94\x22\x01\xa1a\x81\xa1a" + b"\x91" * 200_000,
    "bytes after the end": encoded((1, 0, [])) + b"\xc0",
    "a view that is none": encoded((1, 0, [], [1])),
    "a digest beyond 64 bits": b"\x94\x01\x00\x90\x94\x01\x01\xc7\x09\x05" + bytes(9) + b"\x90",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_frame_is_a_protocol_error(case: str) -> None:
    wire = Wire(Frame)
    with pytest.raises(ProtocolError):
        wire.read(MALFORMED[case])
    assert wire.read_number == 0


def refuses_or_reads(data: bytes) -> None:
    for kind in (Frame, WorkerFrame, ClientFrame):
        wire: Wire[Any] = Wire(kind)
        try:
            wire.read(data)
        except ProtocolError:
            assert wire.read_number == 0
        else:
            assert wire.read_number == 1


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    refuses_or_reads(data)


TEXT = st.text(max_size=40)
DATA = st.binary(max_size=60)
IDS = st.binary(min_size=16, max_size=16)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bytes: DATA,
    int: st.integers(-(1 << 63), (1 << 63) - 1),
    float: st.floats(allow_nan=False),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for any type that messages are made of; ids have their 16 bytes."""
    if kind in BY_TYPE:
        return BY_TYPE[kind]
    told = msgspec.inspect.type_info(kind)
    if isinstance(told, msgspec.inspect.StructType):
        fields = {
            field.name: IDS if field.name in ("id", "task", "token") else of_type(field.type)
            for field in told.fields
        }
        return st.builds(told.cls, **fields)
    return of_type(told)


def of_type(told: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    inspect = msgspec.inspect
    if isinstance(told, inspect.StructType):
        return values(told.cls)
    if isinstance(told, inspect.EnumType):
        return st.sampled_from(list(told.cls))
    if isinstance(told, inspect.UnionType):
        return st.one_of(*map(of_type, told.types))
    if isinstance(told, inspect.VarTupleType):
        return st.lists(of_type(told.item_type), max_size=3).map(tuple)
    if isinstance(told, inspect.TupleType):
        return st.tuples(*map(of_type, told.item_types))
    if isinstance(told, inspect.DictType):
        return st.dictionaries(TEXT, of_type(told.value_type), max_size=3)
    plain = {
        inspect.StrType: TEXT,
        inspect.BytesType: DATA,
        inspect.IntType: BY_TYPE[int],
        inspect.FloatType: BY_TYPE[float],
        inspect.BoolType: st.booleans(),
        inspect.NoneType: st.none(),
        inspect.AnyType: st.one_of(st.none(), TEXT, st.lists(st.integers(0, 9), max_size=3)),
    }
    return plain[type(told)]


MESSAGES = st.sampled_from(KINDS).flatmap(values)


@given(MESSAGES, st.data())
def test_a_frame_that_was_altered_on_the_way_is_refused_or_read(
    message: Message, data: st.DataObject
) -> None:
    whole = bytearray(encoded((1, 0, [message], None)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    refuses_or_reads(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    refuses_or_reads(bytes(whole))


@given(st.lists(MESSAGES, max_size=5))
@settings(max_examples=50)
def test_what_is_written_is_read_by_the_end_that_it_is_for(messages: list[Message]) -> None:
    sender: Wire[Any] = Wire(Frame)
    data = sender.write(deque(messages))
    told = msgspec.msgpack.decode(data)
    assert told[2] == [msgspec.msgpack.decode(encoded(message)) for message in messages]


# The estimate.


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_estimate_errs_upward_for_every_kind_of_message(kind: Any) -> None:
    @given(values(kind))
    @settings(max_examples=25)
    def errs_upward(message: Message) -> None:
        assert size_of(message) >= len(encoded(message))

    errs_upward()


@pytest.mark.parametrize(
    "message",
    [
        Ended(TASK, TOKEN, OutcomeKind.SUCCEEDED, Payload(Encoding.JSON, b"x" * INLINE_BYTES_MAX)),
        Goodbye("name_taken", "\U0001f980" * 4_096),
        Accepted((TASK,) * 2_000, ((TASK, TASK),) * 2_000),
        Ask(1, "list", {"a" * 10_000: list(range(10_000))}),
        Answered(TASK, TOKEN, Answer.UNKNOWN),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_estimate_errs_upward_for_large_messages(message: Message) -> None:
    assert len(encoded(message)) <= size_of(message) <= 2 * len(encoded(message)) + 400


def test_every_message_is_estimated() -> None:
    assert set(KINDS) == set(Message.__subclasses__())
