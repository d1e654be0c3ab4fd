"""What comes into the inbox beside messages: hellos that are whole, ends, deaths, and time."""

from __future__ import annotations

import msgspec

from holdfast.model.ids import TaskId
from holdfast.model.messages import Ended, WorkerHello
from holdfast.ports import Registered


class Hello(msgspec.Struct, frozen=True, gc=False):
    """A hello that is whole: with the outcomes of all its frames."""

    hello: WorkerHello
    outcomes: tuple[Ended, ...]
    size_bytes: int = 0
    """What its frames took on the wire."""
    tried: bool = False
    """Whether its outcomes were written ahead of it, because the store refused it whole."""


class Ahead(msgspec.Struct, frozen=True, gc=False):
    """Outcomes of a hello that the store refused whole, to be written ahead of it.

    One of them is the offender; their tokens give the right to write, with or without an epoch.
    """

    hello: WorkerHello
    outcomes: tuple[Ended, ...]


class Register(msgspec.Struct, frozen=True, gc=False):
    """Keep a function under its id. Answered by `Reply` with the same `ref`."""

    ref: int
    row: Registered


class Prune(msgspec.Struct, frozen=True, gc=False):
    """Remove tasks that have ended. Answered by `Reply` with the ids that were removed."""

    ref: int
    tasks: tuple[TaskId, ...]


class Death(msgspec.Struct, frozen=True, gc=False):
    """This incarnation is dead, and all that it said was read. `certain`: its guard told."""

    identity: str
    incarnation: int
    certain: bool
    started: tuple[bytes, ...] = ()
    spooled: tuple[bytes, ...] = ()


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The session's socket was read to its end."""


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time passed: judge silence, claim what waits, tell wishes again."""

    seconds: float
