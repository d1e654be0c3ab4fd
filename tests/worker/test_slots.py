"""What the guard is told of orders: only what may have run is named after a sudden death."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.core.lanes import BLOCKED_SECONDS
from holdfast.model.ids import Token
from holdfast.model.outcome import Encoding, OutcomeKind, Payload
from holdfast.ports import Order
from holdfast.worker.slots import Slots
from tests.core.wording import number_of, task, token
from tests.worker.kit import NotedGuard, ScriptedEngine

CONCURRENT = 1


class Play:
    """The lanes of a worker with one slot, and what its guard would name."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine()
        self.taken: list[int] = []
        self.guard = NotedGuard()
        self.slots = Slots(
            engine=self.engine,
            guard=self.guard,
            keeper=self,
            slots=1,
            concurrent_slots=4,
            wake=lambda: None,
            printed=lambda lane, error, data: None,
        )
        asyncio.run(self.slots.open())

    def handed(self, order: Order, now: float) -> None:
        """Nothing is kept of it here."""

    def taken_back(self, token: Token) -> None:
        self.taken.append(number_of(token))

    def hand(self, *numbers: int, concurrent: bool = False) -> None:
        payload = Payload(Encoding.JSON, b"[[],{}]")
        for number in numbers:
            order = Order(task(number), token(number), 1, "m:f", payload, "", b"", "")
            self.slots.add(order, concurrent=concurrent)
        self.slots.dispatch(0.0)

    def learn(self) -> None:
        """Let the function be known as short, so that it is handed ahead."""
        self.hand(900)
        self.engine.end(900)
        self.slots.collect(0.0)
        self.guard.told.clear()

    @property
    def named(self) -> list[int]:
        named: dict[int, None] = {}
        for verb, numbers in self.guard.told:
            for number in numbers:
                if verb == "started":
                    named[number] = None
                else:
                    named.pop(number, None)
        return list(named)


@pytest.fixture
def play() -> Play:
    """Return lanes to which a short function is known."""
    play = Play()
    play.learn()
    return play


def test_what_was_withdrawn_and_its_neighbours_are_not_named(play: Play) -> None:
    play.hand(1, 2, 3)
    assert play.named == [1, 2, 3]
    assert play.slots.withdraw(token(2), 0.0)
    assert play.named == [1]
    play.slots.dispatch(0.0)
    assert play.named == [1, 3]


def test_what_a_blocked_lane_gave_back_is_not_named(play: Play) -> None:
    play.hand(1, 2)
    play.slots.act(BLOCKED_SECONDS)
    assert play.named == [1]


def test_what_a_lane_refused_is_not_named(play: Play) -> None:
    play.engine.room = 0
    play.hand(1, 2)
    assert play.named == [1]
    play.engine.room = 5
    play.slots.lane_writable(0)
    play.slots.collect(0.0)
    play.slots.dispatch(0.0)
    assert play.named == [1, 2]


def test_what_cannot_be_handed_is_over_and_its_neighbours_run(play: Play) -> None:
    play.engine.spoiled[2] = OSError(28, "No space left on device", "/home/code")
    play.hand(1, 2, 3)
    assert play.named == [1, 3]
    (over,) = play.slots.collect(0.0)
    assert (number_of(over.ended.token), over.ended.kind) == (2, OutcomeKind.ENVIRONMENT)
    assert over.ended.failure is not None
    assert "[Errno 28] No space left on device: '/home/code'" in over.ended.failure.message
    assert not play.slots.withdraw(token(2), 0.0)
    play.engine.end(1)
    play.engine.end(3)
    play.slots.collect(0.0)
    assert not play.slots.busy


def test_a_suspect_that_cannot_be_handed_stays_named_until_its_end_is_answered(play: Play) -> None:
    play.hand(1)
    play.hand(2, concurrent=True)
    play.engine.fall()
    assert play.slots.collect(0.0) == []
    play.engine.spoiled[1] = OSError(28, "No space left on device")
    play.slots.dispatch(0.0)
    (over,) = play.slots.collect(0.0)
    assert number_of(over.ended.token) == 1
    assert play.named == [1, 2]
    assert not play.slots.is_suspect(token(1))
    play.slots.dispatch(0.0)
    assert play.engine.runs[2] == 2


def test_what_a_dead_child_had_not_touched_is_not_named(play: Play) -> None:
    play.hand(1, 2)
    play.engine.die(0, signal=11)
    (over,) = play.slots.collect(0.0)
    assert number_of(over.ended.token) == 1
    assert play.named == [1]


def test_suspects_may_have_run_and_those_to_be_stopped_run_no_more(play: Play) -> None:
    play.hand(1, 2, 3, concurrent=True)
    play.slots.stop(token(2), 0.0)
    play.engine.die(CONCURRENT, signal=11)
    (over,) = play.slots.collect(0.0)
    assert (number_of(over.ended.token), over.ended.kind) == (2, OutcomeKind.STOPPED)
    assert play.named == [1, 2, 3]
    play.slots.dispatch(0.0)
    assert play.engine.runs[1] == 2
    assert play.engine.runs[2] == 1


def test_suspects_of_a_fall_run_one_by_one_and_only_who_falls_alone_is_charged(play: Play) -> None:
    play.hand(1, 4)
    play.hand(2, 3, concurrent=True)
    play.slots.stop(token(3), 0.0)
    play.engine.fall()
    (over,) = play.slots.collect(0.0)
    assert (number_of(over.ended.token), over.ended.kind) == (3, OutcomeKind.STOPPED)
    assert play.named == [1, 2, 3]
    play.slots.dispatch(0.0)
    assert play.slots.busy
    assert (play.engine.runs[1], play.engine.runs[2]) == (2, 1)
    play.engine.fall()
    (over,) = play.slots.collect(0.0)
    assert (number_of(over.ended.token), over.ended.kind) == (1, OutcomeKind.CRASHED)
    play.slots.dispatch(0.0)
    # Who did it is known: the others run side by side again.
    assert (play.engine.runs[2], play.engine.runs[4]) == (2, 1)


def test_a_suspect_stays_named_wherever_it_waits(play: Play) -> None:
    play.hand(1)
    play.hand(2, concurrent=True)
    play.engine.fall()
    assert play.slots.collect(0.0) == []
    assert [play.slots.is_suspect(token(number)) for number in (1, 2, 3)] == [True, True, False]
    play.engine.deaf = True
    play.slots.dispatch(0.0)
    assert play.engine.runs == {900: 1, 1: 1, 2: 1}
    play.slots.take_back_all(0.0)
    assert play.named == [1, 2]
    assert play.taken == []
    play.slots.dispatch(0.0)
    for lane in (0, CONCURRENT):
        play.engine.die(lane, signal=11)
    assert play.slots.collect(0.0) == []
    assert play.named == [1, 2]
    assert play.slots.withdraw(token(2), 0.0)
    assert not play.slots.is_suspect(token(2))
    play.engine.deaf = False
    play.slots.dispatch(0.0)
    play.engine.end(1)
    play.slots.collect(0.0)
    assert not play.slots.is_suspect(token(1))


def test_a_fall_of_an_idle_worker_costs_nobody(play: Play) -> None:
    play.engine.fall()
    assert play.slots.collect(0.0) == []
    play.hand(1)
    assert play.engine.runs[1] == 1
