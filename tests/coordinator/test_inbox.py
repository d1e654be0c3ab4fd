"""The inbox: when a turn is due, and how much it holds."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.client.calls import CODE_BYTES_MAX
from holdfast.coordinator.inbox import Inbox
from holdfast.model.ids import TaskId, Token
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX
from holdfast.model.messages import Ended, PutCode
from holdfast.model.outcome import Failure, OutcomeKind
from holdfast.wiring.process import loop_factory


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, loop_factory()])
@pytest.mark.parametrize("wishes", [(0.0, 0.0), (-1.0, 60.0), (60.0, 0.0), (60.0, 0.001)])
def test_the_earliest_of_several_wishes_counts(make_loop, wishes: tuple[float, float]) -> None:
    async def scene() -> None:
        inbox = Inbox()
        for seconds in wishes:
            inbox.wake_in(seconds)
        async with asyncio.timeout(5):
            await inbox.arrival()
        inbox.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scene())


def test_functions_weigh_by_their_bytes() -> None:
    async def scene() -> None:
        inbox = Inbox()
        for number in range(600):
            inbox.post(None, PutCode(number.to_bytes(32, "big"), bytes(CODE_BYTES_MAX)))
        space = asyncio.ensure_future(inbox.space())
        await asyncio.sleep(0)
        assert not space.done(), "110 MiB are more than may wait"
        turn = inbox.gather()
        assert len(turn) * CODE_BYTES_MAX < 16 * 1024 * 1024
        while not space.done():
            assert inbox.gather()
            await asyncio.sleep(0)

    asyncio.run(scene())


def test_a_small_function_weighs_as_one_message() -> None:
    inbox = Inbox()
    for number in range(3_000):
        inbox.post(None, PutCode(number.to_bytes(32, "big"), bytes(600)))
    assert len(inbox.gather()) == 2_000


def test_a_failure_weighs_by_its_texts() -> None:
    inbox = Inbox()
    text = "x" * ERROR_TEXT_BYTES_MAX
    failure = Failure(("E",), text, text)
    for number in range(1_000):
        task, token = TaskId(number.to_bytes(16, "big")), Token(number.to_bytes(16, "big"))
        inbox.post(None, Ended(task, token, OutcomeKind.RAISED, None, failure))
    assert len(inbox.gather()) * 2 * ERROR_TEXT_BYTES_MAX < 16 * 1024 * 1024
