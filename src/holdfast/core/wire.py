"""Frames: how messages become bytes, in bounds, and come back.

One `Wire` serves one end of one session. It numbers the frames of its direction, checks that the
peer's are consecutive, keeps every frame within `FRAME_BYTES_MAX`, and stops writing while
`UNACKED_BYTES_MAX` are unacknowledged, so that nothing waits behind megabytes. It never touches a
socket: bytes come in, bytes go out.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import msgspec

from holdfast.errors import ProtocolError
from holdfast.model.limits import (
    FRAME_BYTES_MAX,
    MESSAGES_PER_FRAME_MAX,
    UNACKED_BYTES_MAX,
)
from holdfast.model.messages import (
    Answered,
    Assign,
    ClientFrame,
    Ended,
    Frame,
    Message,
    Recall,
    Settled,
    Started,
    StopOrder,
    Submit,
    View,
    WishTold,
    WorkerFrame,
)
from holdfast.model.outcome import Failure, Payload
from holdfast.model.task import Spec

F = TypeVar("F", Frame, WorkerFrame, ClientFrame)

_ENCODER = msgspec.msgpack.Encoder()
FRAME_ROOM_BYTES = FRAME_BYTES_MAX // 2
"""How much of a frame is filled by what `size_of` says: estimates may err, frames may not."""
MESSAGE_BYTES = 192
"""What a message or a spec takes beside its payload and its words, at most."""
_ACK_DUE_BYTES = UNACKED_BYTES_MAX // 4


class Wire(Generic[F]):
    """One end of a session's byte stream. `frame_type` is the type of the frames it reads."""

    __slots__ = (
        "_decoder",
        "_read_since_write",
        "_sizes",
        "_unacked_bytes",
        "read_number",
        "written_number",
    )

    def __init__(self, frame_type: type[F]) -> None:
        self._decoder: msgspec.msgpack.Decoder[F] = msgspec.msgpack.Decoder(frame_type)
        self.read_number = 0
        self.written_number = 0
        self._sizes: deque[int] = deque()
        self._unacked_bytes = 0
        self._read_since_write = 0

    def read(self, data: bytes) -> F:
        """Decode the peer's next frame.

        Raises ProtocolError where it is too large, malformed, out of order, or acknowledges what
        was never written. The session must be closed then.
        """
        if len(data) > FRAME_BYTES_MAX:
            raise ProtocolError(f"frame of {len(data)} bytes; at most {FRAME_BYTES_MAX}")
        try:
            frame: F = self._decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeDecodeError) as error:
            raise ProtocolError(f"malformed frame: {error}") from None
        if frame.number != self.read_number + 1:
            raise ProtocolError(f"frame {frame.number} after frame {self.read_number}")
        if len(frame.body) > MESSAGES_PER_FRAME_MAX:
            raise ProtocolError(f"{len(frame.body)} messages in a frame")
        unseen = self.written_number - frame.seen
        if unseen < 0:
            raise ProtocolError(f"frame {frame.seen} acknowledged; {self.written_number} written")
        self.read_number = frame.number
        self._read_since_write += len(data)
        sizes = self._sizes
        while len(sizes) > unseen:
            self._unacked_bytes -= sizes.popleft()
        return frame

    @property
    def writable(self) -> bool:
        """Whether the peer has acknowledged enough for another frame."""
        return self._unacked_bytes < UNACKED_BYTES_MAX

    @property
    def ack_due(self) -> bool:
        """Whether the peer's window wants a frame from us, be it an empty one."""
        return self._read_since_write >= _ACK_DUE_BYTES

    def write(self, outgoing: deque[Message], view: View | None = None) -> bytes:
        """Take as many messages from the left of `outgoing` as one frame holds, and encode it.

        An empty frame is a heartbeat and an acknowledgement. While the window is full every frame
        is empty: were it to wait, two ends with full windows would wait for each other.
        """
        body: list[Message] = []
        if not self.writable:
            outgoing = deque()
        room = FRAME_ROOM_BYTES
        while outgoing and len(body) < MESSAGES_PER_FRAME_MAX:
            size = size_of(outgoing[0])
            if body and size > room:
                break
            room -= size
            body.append(outgoing.popleft())
        self.written_number += 1
        data = _ENCODER.encode((self.written_number, self.read_number, body, view))
        if len(data) > FRAME_BYTES_MAX:
            raise ProtocolError(f"a message of {len(data)} bytes does not fit a frame")
        self._sizes.append(len(data))
        self._unacked_bytes += len(data)
        self._read_since_write = 0
        return data


def size_of(message: Message) -> int:
    """Return the encoded bytes of a message, or an estimate from above for the frequent ones."""
    if isinstance(message, Assign):
        words = _text_bytes(message.function) + _text_bytes(message.python)
        return MESSAGE_BYTES + _payload_bytes(message.payload) + words
    if isinstance(message, Ended | Settled):
        return MESSAGE_BYTES + _payload_bytes(message.result) + _failure_bytes(message.failure)
    if isinstance(message, Submit):
        return MESSAGE_BYTES + sum(map(_spec_bytes, message.specs))
    if isinstance(message, Started | Recall | WishTold | Answered | StopOrder):
        return MESSAGE_BYTES
    # The others are few; some of them hold what only the encoder can measure.
    return len(_ENCODER.encode(message))


def _spec_bytes(spec: Spec) -> int:
    notes = (text for pair in spec.meta for text in pair)
    words = (spec.function, spec.key, spec.queue, spec.python, *spec.tags, *notes)
    return MESSAGE_BYTES + _payload_bytes(spec.payload) + sum(map(_text_bytes, words))


def _payload_bytes(payload: Payload | None) -> int:
    return 0 if payload is None else len(payload.data)


def _failure_bytes(failure: Failure | None) -> int:
    if failure is None:
        return 0
    words = (failure.message, failure.traceback, failure.evidence, *failure.types)
    return len(failure.pickled) + sum(map(_text_bytes, words))


def _text_bytes(text: str) -> int:
    """Return what a text takes at most: four bytes a character in UTF-8, and its length."""
    return 5 + 4 * len(text)
