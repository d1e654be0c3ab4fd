"""A task: what was asked (`Spec`) and how far it is (`Life`), as one durable row."""

from __future__ import annotations

import msgspec

from holdfast.model.ids import NO_TOKEN, TaskId, Token
from holdfast.model.limits import AGEING_MS_PER_PRIORITY
from holdfast.model.outcome import Failure, Payload, Reason
from holdfast.model.words import Word


class State(Word):
    """Where a task is. The last three are terminal and never change."""

    QUEUED = 0
    RUNNING = 1
    PAUSED = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5


TERMINAL_MIN = State.SUCCEEDED
"""States from here on are terminal."""


class Wanted(Word):
    """What the user wants of a task."""

    RUN = 0
    PAUSE = 1
    CANCEL = 2


class Phase(Word):
    """How far the newest attempt is."""

    NONE = 0
    ASSIGNED = 1
    STARTED = 2
    ENDED = 3


class Lease(Word):
    """What became of the newest token. From `SPENT` on it writes nothing any more."""

    NONE = 0
    HELD = 1
    LAPSED = 2
    SPENT = 3


class Owed(Word):
    """What the next claim charges for a lapsed lease."""

    NOTHING = 0
    FREE = 1
    UNHEARD = 2
    LOSS = 3


class Spec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the client asked for; it never changes.

    `function` is an import path `module:qualname`, or the name to show for a pickled one, whose
    bytes are found under `code` (SHA-256). `due_ms` 0 means at once. `python` is set where the
    payload or the function is pickled: `3.11`.
    """

    id: TaskId
    function: str
    payload: Payload
    submitted_ms: int
    due_ms: int = 0
    queue: str = "default"
    tags: tuple[str, ...] = ()
    priority: int = 0
    key: str = ""
    code: bytes = b""
    python: str = ""
    concurrent: bool = False
    """An `async def` function: many of them share one child."""
    likeness: bytes = b""
    """Where there is a key and something is pickled: what tells equal contents of it from others.

    The SHA-256 of what the function holds (`code`), then that of the arguments (`payload`), each
    the same in every process; zeros for what has none.
    """
    meta: tuple[tuple[str, str], ...] = ()
    """What the submitter notes on it: names and values, by name. Nothing is decided by them."""


class Charges(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Budgets used, each counted by itself (law 4)."""

    retries: int = 0
    losses: int = 0
    crashes: int = 0
    out_of_memory: int = 0
    environment: int = 0
    free_returns: int = 0
    unheard: int = 0


NO_CHARGES = Charges()


class Life(msgspec.Struct, frozen=True, gc=False):
    """What changes about a task. `version` grows by one at every write and guards the next one.

    `freed` are the superseded tokens whose lapse was charged as free: a late `started` of one of
    them turns that charge into a loss. `mark` is the progress mark (grows with each accepted
    checkpoint or step, task-wide), `crash_mark` its value at the last crash. `saved` is the
    number and the digest of the newest save under the newest token. `avoid` are the identities of
    the workers that lately could not run it, with spaces between them; all of them are avoided
    until `avoid_until_ms`.
    """

    version: int = 1
    state: State = State.QUEUED
    wanted: Wanted = Wanted.RUN
    wish: int = 0
    due_ms: int = 0
    fence: int = 0
    token: Token = NO_TOKEN
    lease: Lease = Lease.NONE
    phase: Phase = Phase.NONE
    owed: Owed = Owed.NOTHING
    worker: str = ""
    incarnation: int = 0
    epoch: int = 0
    claimed_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    used: Charges = NO_CHARGES
    freed: tuple[Token, ...] = ()
    mark: int = 0
    crash_mark: int = 0
    saved_number: int = 0
    saved_digest: bytes = b""
    avoid: str = ""
    avoid_until_ms: int = 0
    reason: Reason = Reason.NONE
    result: Payload | None = None
    failure: Failure | None = None


class Task(msgspec.Struct, frozen=True, gc=False):
    """One durable row."""

    spec: Spec
    life: Life


def needs_of(spec: Spec) -> str:
    """Return the requirement class of a task: what a worker must offer to run it.

    `queue`, then `+tag` for each tag in order, then `~` for a concurrent function. Tasks of one
    class are interchangeable to a worker, so that a class nobody serves costs nothing.
    """
    if not spec.tags and not spec.concurrent:
        return spec.queue
    return "+".join((spec.queue, *spec.tags)) + ("~" if spec.concurrent else "")


def queue_of(needs: str) -> str:
    """Return the queue of a requirement class."""
    return needs.removesuffix("~").partition("+")[0]


def rank_of(spec: Spec) -> int:
    """Return the place in line: lower goes first.

    Submission time in milliseconds, moved ahead by ten minutes for each level of priority: FIFO
    within a priority, priorities first, and a long wait outweighs a low priority (ageing).
    """
    return spec.submitted_ms - spec.priority * AGEING_MS_PER_PRIORITY
