"""Messages between a worker and its coordinator, made of small numbers."""

from __future__ import annotations

from typing import Any

from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import (
    PROTOCOL,
    Answered,
    Assign,
    Ended,
    LeaseAnswer,
    Recall,
    Started,
    StopOrder,
    WishTold,
    WorkerHello,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload
from holdfast.model.task import Wanted

STORE = ("store-a", 1)
NO_ARGUMENTS = Payload(Encoding.JSON, b"[[],{}]")


def task(number: int) -> TaskId:
    return TaskId(b"task" + number.to_bytes(12, "big"))


def token(number: int) -> Token:
    """Return a token whose first eight bytes tell the number, as its digest does."""
    return Token(number.to_bytes(8, "big") + b"-token--")


def number_of(token: bytes) -> int:
    return int.from_bytes(token[:8], "big")


def hello(identity: str = "w", **parts: Any) -> WorkerHello:
    """Return a hello of a worker with one slot that holds nothing, but for what `parts` say."""
    said: dict[str, Any] = {
        "protocol": PROTOCOL,
        "identity": identity,
        "name": identity,
        "incarnation": 1,
        "number": 1,
        "store": "",
        "timeline": 0,
        "slots": 1,
        "concurrent_slots": 0,
        "pull": False,
        "queues": (),
        "tags": (),
        "host": "h",
        "boot": "b",
        "pid": 1,
        "python": "3.11",
        "version": "0",
        "draining": False,
        "held": (),
        "outcomes": (),
    }
    return WorkerHello(**said | parts)


def assign(
    order: int,
    number: int,
    *,
    epoch: int = 1,
    function: str = "f",
    concurrent: bool = False,
    wanted: Wanted = Wanted.RUN,
    wish: int = 0,
    code: bytes = b"",
    payload: Payload = NO_ARGUMENTS,
) -> Assign:
    return Assign(
        order,
        epoch,
        task(number),
        token(number),
        1,
        function,
        payload,
        code,
        "",
        concurrent,
        wanted,
        wish,
    )


def stop(order: int, number: int) -> StopOrder:
    return StopOrder(order, task(number), token(number))


def recall(number: int) -> Recall:
    return Recall(task(number), token(number))


def wish(number: int, wanted: Wanted, count: int) -> WishTold:
    return WishTold(task(number), token(number), wanted, count)


def started(number: int) -> Started:
    return Started(task(number), token(number))


def ended(
    number: int,
    kind: OutcomeKind = OutcomeKind.SUCCEEDED,
    *,
    result_bytes: int = 4,
    run_us: int = 10,
) -> Ended:
    result = Payload(Encoding.JSON, b"4" * result_bytes) if kind is OutcomeKind.SUCCEEDED else None
    return Ended(task(number), token(number), kind, result, run_us=run_us)


def returned(number: int) -> Ended:
    return Ended(task(number), token(number), OutcomeKind.RETURNED)


def answered(number: int, answer: Answer = Answer.SETTLED) -> Answered:
    return Answered(task(number), token(number), answer)


def said(number: int, answer: Answer, wanted: Wanted = Wanted.RUN, wish: int = 0) -> LeaseAnswer:
    """Return what a welcome says of one lease or outcome."""
    return LeaseAnswer(task(number), token(number), answer, wanted, wish)


def welcome(
    *answers: LeaseAnswer,
    epoch: int = 1,
    store: tuple[str, int] = STORE,
    lease_seconds: float = 10.0,
    heartbeat_seconds: float = 1.0,
    protocol: int = PROTOCOL,
) -> WorkerWelcome:
    return WorkerWelcome(
        protocol, *store, epoch, lease_seconds, heartbeat_seconds, f"word-{epoch}", answers
    )
