"""A short look: all answers over one session, or an error and nothing left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.client.glance import Question, glance
from holdfast.errors import ChannelClosedError, RefusedError
from holdfast.model.messages import Ask, ClientHello, Goodbye
from tests.client.scripted import Conversation, LoopbackDialer, Scripted

BOTH: list[Question] = [("workers", {}), ("list", {"limit": 3})]


def look(scripted: Scripted, questions: list[Question]) -> list[Any]:
    async def main() -> list[Any]:
        dialer = LoopbackDialer(scripted.serve)
        try:
            return await glance(dialer, questions, version="0")
        finally:
            await dialer.close()

    return asyncio.run(asyncio.wait_for(main(), 10))


def test_answers_come_in_the_order_of_the_questions() -> None:
    scripted = Scripted()
    scripted.answers = {"list": [1, 2], "workers": ["w"]}
    assert look(scripted, BOTH) == [["w"], [1, 2]]
    (session,) = scripted.sessions
    assert isinstance(session.read[0], ClientHello)
    assert [(ask.question, ask.parameters) for ask in scripted.read(Ask)] == BOTH


def test_a_refusal_is_an_error() -> None:
    scripted = Scripted()
    scripted.answers = {"workers": ["w"]}
    with pytest.raises(RefusedError, match="list is not one"):
        look(scripted, BOTH)


def test_a_goodbye_is_an_error() -> None:
    scripted = Scripted()

    def leave(session: Conversation, *_: object) -> None:
        session.out.append(Goodbye("protocol_error", "too many sessions"))

    scripted.ask = leave
    with pytest.raises(RefusedError, match="too many sessions"):
        look(scripted, BOTH)


def test_a_coordinator_that_hangs_up_is_an_error() -> None:
    scripted = Scripted()
    scripted.up = False
    with pytest.raises(ChannelClosedError):
        look(scripted, BOTH)
