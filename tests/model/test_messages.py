"""The words of the wire: each has a number of its own, a direction, and one shape."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import msgspec
import pytest

from holdfast.model import messages
from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import (
    ClientFrame,
    ClientHello,
    Ended,
    Frame,
    FromClient,
    FromPeer,
    FromWorker,
    Goodbye,
    HeldLease,
    Message,
    Refused,
    Started,
    ToClient,
    ToWorker,
    View,
    WorkerFrame,
)
from holdfast.model.outcome import OutcomeKind
from holdfast.model.task import Phase

KINDS = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]
TASK, TOKEN = TaskId(bytes(16)), Token(b"t" * 16)


def tag_of(kind: type[Message]) -> Any:
    return kind.__struct_config__.tag


def test_every_kind_has_a_number_of_its_own() -> None:
    numbers = Counter(tag_of(kind) for kind in KINDS)
    assert all(isinstance(number, int) for number in numbers)
    assert set(numbers.values()) == {1}


def test_every_kind_has_one_direction_but_the_goodbye() -> None:
    directions = [get_args(union) for union in (FromWorker, FromClient, ToWorker, ToClient)]
    said = Counter(kind for direction in directions for kind in direction)
    assert said == {kind: 4 if kind is Goodbye else 1 for kind in KINDS}
    assert set(get_args(FromPeer)) == {*get_args(FromWorker), *get_args(FromClient)}


@pytest.mark.parametrize("kind", [*KINDS, HeldLease, View], ids=lambda kind: kind.__name__)
def test_a_word_is_a_value_without_names_on_the_wire(kind: Any) -> None:
    config = kind.__struct_config__
    assert config.frozen
    assert config.array_like
    assert not config.gc


def test_an_array_begins_with_the_number_of_its_kind() -> None:
    encoded = msgspec.msgpack.encode(Started(TASK, TOKEN))
    assert msgspec.msgpack.decode(encoded) == [10, TASK, TOKEN]
    assert msgspec.msgpack.decode(encoded, type=FromPeer) == Started(TASK, TOKEN)


def test_what_an_older_peer_does_not_say_has_a_default() -> None:
    short = msgspec.msgpack.encode([1, TASK, TOKEN, int(OutcomeKind.SUCCEEDED)])
    ended = msgspec.msgpack.decode(short, type=FromPeer)
    assert ended == Ended(TASK, TOKEN, OutcomeKind.SUCCEEDED)
    assert (ended.result, ended.failure, ended.run_us) == (None, None, 0)
    refused = msgspec.msgpack.decode(msgspec.msgpack.encode([41, TASK, "c", "t"]), type=ToClient)
    assert refused == Refused(TASK, "c", "t", 0.0)
    greeted = msgspec.msgpack.decode(msgspec.msgpack.encode([5, 1, "c", "v", "p"]), type=FromPeer)
    assert greeted == ClientHello(1, "c", "v", "p", "")


def test_what_a_newer_peer_says_beyond_that_is_passed_over() -> None:
    longer = msgspec.msgpack.encode([10, TASK, TOKEN, "of a later release"])
    assert msgspec.msgpack.decode(longer, type=FromPeer) == Started(TASK, TOKEN)


@pytest.mark.parametrize(
    ("frame", "body"),
    [
        (Frame, [[99]]),
        (Frame, [[20, 1, 1]]),
        (WorkerFrame, [[10, TASK, TOKEN]]),
        (ClientFrame, [[10, TASK, TOKEN]]),
        (Frame, [[10, TASK]]),
        (Frame, [[10, TASK, 7]]),
        (Frame, [10]),
    ],
    ids=["unknown", "not ours", "to a worker", "to a client", "too short", "a number", "no array"],
)
def test_what_is_no_word_of_that_direction_is_refused(frame: Any, body: Any) -> None:
    encoded = msgspec.msgpack.encode([1, 0, body])
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encoded, type=frame)


def test_a_view_names_the_wishes_that_it_has_read() -> None:
    view = View(3, 2, (1 << 64) - 1, ((TOKEN, 7),))
    frame = Frame(1, 0, (Started(TASK, TOKEN),), view)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=Frame) == frame
    assert msgspec.convert([TASK, TOKEN, Phase.STARTED, 4], HeldLease).phase is Phase.STARTED
