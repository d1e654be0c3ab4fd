"""A short look at a coordinator: a few questions over one session, and no second try.

For who would rather have no answer than a late one. Owns nothing that outlives the look: a session
that breaks, or an answer with an error, ends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from holdfast.core.wire import Wire
from holdfast.errors import RefusedError
from holdfast.interpreter import python_version
from holdfast.model.messages import (
    PROTOCOL,
    Ask,
    ClientFrame,
    ClientHello,
    Goodbye,
    Message,
    Reply,
)
from holdfast.ports import Dialer

Question = tuple[str, dict[str, Any]]


async def glance(dialer: Dialer, questions: Sequence[Question], *, version: str) -> list[Any]:
    """Ask a few questions at once and return their answers in order.

    Raises ChannelClosedError where nobody answers, ProtocolError, and RefusedError where one of
    them is refused. It waits for as long as the coordinator takes: bound it from outside.
    """
    channel = await dialer.dial()
    try:
        wire: Wire[ClientFrame] = Wire(ClientFrame)
        hello: deque[Message] = deque()
        hello.append(ClientHello(PROTOCOL, "glance", version, python_version()))
        await channel.send(wire.write(hello))
        asks: deque[Message] = deque(Ask(ref, *each) for ref, each in enumerate(questions))
        await channel.send(wire.write(asks))
        answers: dict[int, Any] = {}
        while len(answers) < len(questions):
            for message in wire.read(await channel.receive()).body:
                if isinstance(message, Goodbye):
                    raise RefusedError(message.text, code=message.code)
                if isinstance(message, Reply):
                    if message.code:
                        raise RefusedError(message.text, code=message.code)
                    answers[message.ref] = message.data
        return [answers[ref] for ref in range(len(questions))]
    finally:
        await channel.close()
