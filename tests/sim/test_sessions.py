"""What counts of a worker's words: those on its newest socket, and those that it still can say."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from holdfast.lab.sim.coverage import CrashPoints
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.lab.sim.network import End, Network
from holdfast.lab.sim.sessions import Sessions
from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import Ended, HeldLease, HelloMore, Message, Started, WorkerHello
from holdfast.model.outcome import OutcomeKind
from holdfast.model.task import Phase
from holdfast.ports import WorkerRow

ID = TaskId(bytes(16))
A, B, C = Token(b"a" * 16), Token(b"b" * 16), Token(b"c" * 16)


class Desk:
    """The sessions of one worker, and sockets for it."""

    def __init__(self) -> None:
        loop = SimLoop(steps_max=1, real_seconds_max=1.0)
        self.net = Network(loop, random.Random(1), CrashPoints(self._die), self)
        loop.close()
        self.coordinator = Party("coordinator", "coordinator")
        self.worker = Party("w", "worker")
        self.sessions = Sessions(lease_seconds=10.0, now=lambda: 0.0)

    def _die(self, party: Party, point: object) -> None:
        raise AssertionError("nobody dies here")

    def sent(self, by: Party, to: str, body: Sequence[Message]) -> None:
        raise AssertionError("nothing is sent here")

    def read(self, end: End, body: Sequence[Message]) -> None:
        raise AssertionError("nothing is read here")

    def socket(self) -> End:
        near, far = End(self.net, self.worker, ""), End(self.net, self.coordinator, "w")
        near.other, far.other = far, near
        return far

    def hello(self, number: int, *held: HeldLease, outcomes: tuple[Ended, ...] = ()) -> End:
        end = self.socket()
        words = (1, "w", "w", 1, number, "", 0, 1, 0, False, (), (), "", "", 1, "", "", False)
        self.sessions.read(end, [WorkerHello(*words, held, outcomes)])
        return end


@pytest.fixture
def desk() -> Desk:
    return Desk()


def ended(token: Token) -> Ended:
    return Ended(ID, token, OutcomeKind.SUCCEEDED)


def test_words_on_the_newest_socket_count(desk: Desk) -> None:
    first = desk.hello(1)
    desk.sessions.read(first, [Started(ID, A), ended(A)])
    second = desk.hello(2)
    desk.sessions.read(first, [Started(ID, B), ended(B)])
    desk.sessions.read(second, [ended(C)])
    assert list(desk.sessions.begun) == [A]
    assert list(desk.sessions.ended) == [A, C]


def test_a_hello_that_was_overtaken_says_nothing(desk: Desk) -> None:
    desk.hello(2)
    desk.hello(1, HeldLease(ID, A, Phase.STARTED, 0), outcomes=(ended(B),))
    assert not desk.sessions.named
    assert not desk.sessions.ended


def test_a_hello_names_and_tells(desk: Desk) -> None:
    held = (HeldLease(ID, A, Phase.STARTED, 0), HeldLease(ID, B, Phase.ASSIGNED, 0))
    end = desk.hello(1, *held)
    desk.sessions.read(end, [HelloMore((ended(C),), False)])
    assert list(desk.sessions.named) == [A, B]
    assert list(desk.sessions.begun) == [A]
    assert list(desk.sessions.ended) == [C]
    hello = desk.sessions.hello_of(WorkerRow("w", "w", 1, 1, 1, b"", 1))
    assert hello is not None
    assert hello.held == held


def test_another_coordinator_has_read_nothing(desk: Desk) -> None:
    desk.hello(2)
    desk.sessions.coordinator_started()
    desk.hello(1, HeldLease(ID, A, Phase.STARTED, 0))
    assert list(desk.sessions.named) == [A]


def test_a_worker_is_welcome_until_it_closes_the_socket(desk: Desk) -> None:
    near = desk.socket().other
    assert not desk.sessions.is_welcome(desk.worker)
    desk.sessions.welcome_read(near)
    assert desk.sessions.is_welcome(desk.worker)
    assert not desk.sessions.is_welcome(Party("w", "worker"))
    near.closed = True
    assert not desk.sessions.is_welcome(desk.worker)
