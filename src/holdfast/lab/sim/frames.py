"""What stands in a frame: read by the world, to name crash points and to hear what is said."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.model.messages import ClientFrame, Frame, Message, WorkerFrame

BEAT = "Heartbeat"
"""How a frame without a message is named."""

_FROM_PEER = msgspec.msgpack.Decoder(Frame)
_TO_WORKER = msgspec.msgpack.Decoder(WorkerFrame)
_TO_CLIENT = msgspec.msgpack.Decoder(ClientFrame)


def bodies(sender: str, receiver: str, frame: bytes) -> Sequence[Message]:
    """Return the messages of a frame between two roles."""
    if sender != "coordinator":
        return _FROM_PEER.decode(frame).body
    if receiver == "worker":
        return _TO_WORKER.decode(frame).body
    return _TO_CLIENT.decode(frame).body


def kinds_of(body: Sequence[Message]) -> list[str]:
    """Return the kinds of messages, each once, in their order."""
    if not body:
        return [BEAT]
    return list(dict.fromkeys(type(message).__name__ for message in body))
