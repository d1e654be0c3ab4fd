"""The inbox: when a turn is due, and how much it holds."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.client.calls import CODE_BYTES_MAX
from holdfast.coordinator.facts import Closed, Hello, Tick
from holdfast.coordinator.inbox import Inbox
from holdfast.coordinator.sessions import WorkerSession
from holdfast.coordinator.turn import Item
from holdfast.model.ids import TaskId, Token
from holdfast.model.limits import ERROR_TEXT_BYTES_MAX, HELLO_BYTES_MAX
from holdfast.model.messages import Ended, PutCode, Submit, Watch, WorkerHello
from holdfast.model.outcome import Failure, OutcomeKind
from holdfast.transports.loopback import pair
from holdfast.wiring.process import loop_factory
from tests.core.wording import hello


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


# Hellos, and parts of turns that failed.


def session_of(said: WorkerHello) -> WorkerSession:
    return WorkerSession(pair()[0], said, now=0.0)


def greet(inbox: Inbox, said: WorkerHello, *, size_bytes: int = 1000) -> WorkerSession:
    session = session_of(said)
    inbox.greet(session, Hello(said, (), size_bytes))
    return session


def told(items: list[Item]) -> list[object]:
    """Return the numbers of hellos, and the kinds of all others."""
    return [
        message.hello.number if isinstance(message, Hello) else type(message).__name__
        for _, message in items
    ]


@pytest.mark.parametrize("where", ["in line", "in a part", "in a turn that fails"])
def test_of_one_life_the_newest_hello_waits(where: str) -> None:
    inbox = Inbox()
    first = greet(inbox, hello(number=1))
    inbox.post(first, Closed())
    inbox.post(None, Watch(()))
    if where == "in a part":
        inbox.again(inbox.gather())
    turn = inbox.gather() if where == "in a turn that fails" else []
    second = greet(inbox, hello(number=2))
    if turn:
        inbox.again(turn)
    assert first.superseded
    assert first.closed
    assert not second.superseded
    waiting = [*(inbox.part() or []), *(inbox.part() or []), *inbox.gather()]
    assert told(waiting) == ["Watch", 2]
    assert inbox.part() is None
    assert inbox._weight == inbox._parts_weight == inbox._hellos_bytes == inbox._stale_bytes == 0
    assert inbox._lives == {}


@pytest.mark.parametrize("size_bytes", [0, 1024 * 1024])
def test_hellos_that_nobody_will_answer_take_little(size_bytes: int) -> None:
    inbox = Inbox()
    greet(inbox, hello(number=1, identity="other"))
    inbox.again(inbox.gather())
    for number in range(1, 5_000):
        session = greet(inbox, hello(number=number), size_bytes=size_bytes)
        inbox.post(session, Closed())
        if number % 7 == 0:
            inbox.ahead((Submit,))
    lying = len(inbox) + sum(len(part.items) for part in inbox._parts)
    assert inbox._hellos_bytes <= 6 * 1024 * 1024 + size_bytes
    assert lying < 2_100
    rest: list[Item] = []
    while (part := inbox.part()) is not None:
        rest += part
    rest += inbox.gather()
    assert told(rest) == [1, 4_999, "Closed"]
    assert inbox._weight == inbox._parts_weight == inbox._hellos_bytes == inbox._stale_bytes == 0


def test_hellos_of_other_lives_and_workers_stay() -> None:
    inbox = Inbox()
    for identity, incarnation, number in (("w", 1, 1), ("x", 1, 1), ("w", 2, 2), ("w", 1, 3)):
        greet(inbox, hello(number=number, identity=identity, incarnation=incarnation))
    lives = [
        (message.hello.identity, message.hello.incarnation, message.hello.number)
        for _, message in inbox.gather()
        if isinstance(message, Hello)
    ]
    assert lives == [("x", 1, 1), ("w", 2, 2), ("w", 1, 3)]


def test_a_hello_that_comes_late_is_left_to_its_turn() -> None:
    inbox = Inbox()
    greet(inbox, hello(number=2))
    late = greet(inbox, hello(number=1))
    assert not late.superseded
    assert told(inbox.gather()) == [2, 1]
    assert inbox._hellos_bytes == 0
    assert inbox._lives == {}


def test_hellos_that_wait_are_bounded_in_bytes() -> None:
    inbox = Inbox()
    number = 0
    while inbox.has_room_for_hello(HELLO_BYTES_MAX):
        number += 1
        greet(inbox, hello(number=1, identity=f"w{number}"), size_bytes=1024 * 1024)
    assert 50 < number <= 64
    turn = inbox.gather()
    assert len(turn) < 16, "a turn holds a few MiB"
    assert inbox.has_room_for_hello(HELLO_BYTES_MAX)
    inbox.again(turn)
    assert not inbox.has_room_for_hello(HELLO_BYTES_MAX)
    empty = Inbox()
    for number in range(40_000):
        if not empty.has_room_for_hello(0):
            break
        greet(empty, hello(number=1, identity=f"w{number}"), size_bytes=0)
    assert number < 40_000 - 1, "small ones have a bound as well"


def test_what_is_put_behind_the_parts_is_bounded_by_its_weight() -> None:
    inbox = Inbox()
    failure = Failure(("E",), "x" * ERROR_TEXT_BYTES_MAX)
    taken = 0
    for number in range(100_000):
        task, token = TaskId(number.to_bytes(16, "big")), Token(number.to_bytes(16, "big"))
        inbox.post(None, Ended(task, token, OutcomeKind.RAISED, None, failure))
        assert inbox.ahead((Submit,)) == []
        if len(inbox):
            taken = number
            break
    assert 0 < taken * ERROR_TEXT_BYTES_MAX < 128 * 1024 * 1024
    parts = 0
    while inbox.part() is not None:
        parts += 1
    assert parts < 20, "small ones are put together"
    assert inbox._parts_weight == 0
    inbox.ahead((Submit,))
    assert len(inbox) == 0


def test_one_tick_waits() -> None:
    inbox = Inbox()
    inbox.tick(Tick(1.0))
    inbox.tick(Tick(1.0))
    inbox.again(turn := inbox.gather())
    assert told(turn) == ["Tick"]
    inbox.tick(Tick(1.0))
    assert len(inbox) == 0
    assert told(inbox.part() or []) == ["Tick"]
    inbox.tick(Tick(1.0))
    assert told(inbox.gather()) == ["Tick"]
