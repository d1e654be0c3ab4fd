"""The witness: what user code really did, noted by the world outside the system under test.

Owns one record for each time a child took an order up, and the reckoning of how an attempt must
end, so that a result shows by itself which attempt made it. The product never reads it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from holdfast.model.ids import TaskId
from holdfast.model.outcome import Encoding, Failure, OutcomeKind, Payload
from holdfast.ports import Order

BIG_BYTES = 4096
"""What a `big` result weighs here; that it goes by reference is what matters."""


class Behaviour(msgspec.Struct, frozen=True):
    """What the user code of a task does, as its JSON arguments say.

    `do` is done by the first `times` attempts (all, where it is 0), later ones are `ok`; `ms` is
    how long each takes.
    """

    do: str
    ms: int
    times: int = 0


ENDINGS = {
    "ok": OutcomeKind.SUCCEEDED,
    "big": OutcomeKind.SUCCEEDED,
    "poison": OutcomeKind.SUCCEEDED,
    "raise": OutcomeKind.RAISED,
    "environment": OutcomeKind.ENVIRONMENT,
    "invalid": OutcomeKind.INVALID,
    "forever": OutcomeKind.SUCCEEDED,
    "stubborn": OutcomeKind.SUCCEEDED,
}
"""How a behaviour ends by itself; `crash` and `out_of_memory` take their child with them."""
POISON = b'"poison"'


@dataclass(slots=True)
class Run:
    """One time that user code ran. `ended` is negative while it does; `how` says how it ended."""

    task: TaskId
    token: bytes
    fence: int
    worker: str
    incarnation: int
    began: float
    ended: float = -1.0
    how: str = ""


class Witness:
    """All runs of user code, by token."""

    __slots__ = ("robbed", "runs")

    def __init__(self) -> None:
        self.runs: dict[bytes, list[Run]] = {}
        self.robbed: list[Run] = []
        """Those whose large arguments were not there, or did not stay while they ran."""

    def began(self, order: Order, *, worker: str, incarnation: int, now: float) -> Run:
        """Note that a child took an order up."""
        run = Run(order.task, order.token, order.fence, worker, incarnation, now)
        self.runs.setdefault(order.token, []).append(run)
        return run

    def ended(self, run: Run, how: str, now: float) -> None:
        """Note that user code ended, and how: an outcome's word, `interrupted`, `killed`."""
        run.ended = now
        run.how = how

    def ran(self, token: bytes) -> bool:
        """Return whether any child took this token up."""
        return token in self.runs

    def ended_so(self, token: bytes, *hows: str) -> bool:
        """Return whether a run of this token ended in one of these ways."""
        return any(run.how in hows for run in self.runs.get(token, ()))


Blobs = dict[bytes, bytes]
"""What is in the blob store, by SHA-256."""


def arguments(behaviour: Behaviour) -> Payload:
    """Return a task's arguments."""
    return Payload(Encoding.JSON, msgspec.json.encode(behaviour))


def large_arguments(behaviour: Behaviour, blobs: Blobs) -> Payload:
    """Return a task's arguments by reference, after they are in the blob store."""
    data = msgspec.json.encode(behaviour)
    digest = hashlib.sha256(data).digest()
    blobs[digest] = data
    return Payload(Encoding.JSON, digest=digest, size_bytes=len(data))


def behaviour_of(payload: Payload, blobs: Blobs) -> Behaviour:
    """Read a task's arguments."""
    data = blobs[payload.digest] if payload.digest else payload.data
    return msgspec.json.decode(data, type=Behaviour)


def bytes_of(function: str) -> bytes:
    """Return what a function pickles to, where it does."""
    return f"the bytes of {function}".encode()


def doing(payload: Payload, fence: int, blobs: Blobs) -> Behaviour:
    """Return what the attempt of this fence does."""
    asked = behaviour_of(payload, blobs)
    if asked.times and fence > asked.times:
        return Behaviour("ok", asked.ms)
    return asked


def result_of(task: bytes, fence: int, do: str) -> bytes:
    """Return the bytes that this attempt returns, and no other."""
    data = msgspec.json.encode([task.hex(), fence, do])
    return data.ljust(BIG_BYTES) if do == "big" else data


def blob_of(task: bytes, fence: int, do: str) -> Payload:
    """Return a result by reference."""
    data = result_of(task, fence, do)
    return Payload(Encoding.JSON, digest=hashlib.sha256(data).digest(), size_bytes=len(data))


def failure_of(task: bytes, fence: int, do: str) -> Failure:
    """Return the failure that this attempt reports, and no other."""
    return Failure(types=(f"sim.{do}",), message=f"{task.hex()} {fence}")
