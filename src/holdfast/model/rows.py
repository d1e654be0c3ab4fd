"""What a store keeps beside tasks, what a turn wants written, and what was refused of it.

The values that `ports.Store` and `ports.StoreReader` speak in. They decide nothing.
"""

from __future__ import annotations

import msgspec

from holdfast.model.ids import TaskId, Token
from holdfast.model.task import Task


class Event(msgspec.Struct, frozen=True, gc=False):
    """One line of a story that the row's own columns cannot tell."""

    task: TaskId
    at_ms: int
    kind: str
    fence: int = 0
    worker: str = ""
    detail: str = ""


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """A former attempt of a task, kept when a newer one takes its place in the row."""

    task: TaskId
    fence: int
    token: Token
    worker: str
    incarnation: int
    claimed_ms: int
    started_ms: int
    ended_ms: int
    ended: str


class Update(msgspec.Struct, frozen=True, gc=False):
    """A row to write over the one at `version`; `token` is set where a worker's write asks it.

    A store accepts it only where the row still has that version, is not terminal, and, with a
    token, where that token is the newest one and not spent: one predicate of one statement.
    """

    task: Task
    version: int
    token: Token | None = None


class WorkerRow(msgspec.Struct, frozen=True, gc=False):
    """What a store keeps of a worker: the pair that only grows, and what it offers."""

    identity: str
    name: str
    incarnation: int
    number: int
    epoch: int
    facts: bytes
    """The offer of its last hello (slots, queues, tags, host, …), MessagePack."""
    said_ms: int
    outages: int = 0
    """How often in a row a coordinator started without a hello of this worker since."""


class CodeRow(msgspec.Struct, frozen=True, gc=False):
    """The bytes of a pickled function, under their SHA-256."""

    digest: bytes
    data: bytes


class Registered(msgspec.Struct, frozen=True, gc=False):
    """A function that was registered under an id of its own; it never changes.

    `function` is its import path, or the name to show for a pickled one, whose bytes are found
    under `code`.
    """

    id: bytes
    name: str
    function: str
    code: bytes
    python: str
    registered_ms: int


class QueueRow(msgspec.Struct, frozen=True, gc=False):
    """What is wanted of a queue; one of which nothing was ever wanted has no row."""

    name: str
    paused: bool


class Changes(msgspec.Struct, gc=False):
    """All that one turn wants written, in one transaction.

    `outages` are the workers whose count of outages grows by one; a worker row written sets it to
    its own. `forgotten` are the workers whose rows are removed, where they still are of the same
    hello. `pruned` are ended tasks to be removed at `pruned_ms`, with all that is kept of them but
    their ids. A refused insert or update takes its own events and attempts with it.
    """

    turn: int
    inserts: list[Task] = []
    updates: list[Update] = []
    workers: list[WorkerRow] = []
    events: list[Event] = []
    attempts: list[Attempt] = []
    code: list[CodeRow] = []
    outages: list[str] = []
    forgotten: list[WorkerRow] = []
    queues: list[QueueRow] = []
    functions: list[Registered] = []
    pruned: list[TaskId] = []
    pruned_ms: int = 0


class Receipt(msgspec.Struct, gc=False):
    """What of a turn was refused because the row was not what the change expected."""

    refused_inserts: list[TaskId] = []
    refused_updates: list[TaskId] = []


class StoreFacts(msgspec.Struct, frozen=True):
    """Who a store is: `timeline` grows when it is restored from a backup."""

    store: str
    timeline: int
    turn: int


class ReadyPage(msgspec.Struct, frozen=True):
    """Claimable tasks of one requirement class, in line order; `more` where the store has more."""

    tasks: list[Task]
    more: bool


class TaskFilter(msgspec.Struct, frozen=True):
    """Which tasks a list shows; empty fields do not filter."""

    states: tuple[int, ...] = ()
    function: str = ""
    queue: str = ""
    tag: str = ""
    key: str = ""
    meta: tuple[tuple[str, str], ...] = ()
    submitted_low_ms: int = 0
    submitted_high_ms: int = 0
    """Submitted at or after the first, and before the second; 0 for no such bound."""
    id_low: bytes = b""
    id_high: bytes = b""


class Depth(msgspec.Struct, frozen=True, gc=False):
    """How many tasks of one requirement class wait, and when the oldest of them was submitted.

    `delayed`: they wait for their time, and not for a worker.
    """

    needs: str
    delayed: bool
    tasks: int
    oldest_ms: int


class FunctionRow(msgspec.Struct, frozen=True):
    """What became of the tasks of one function, of those that ended lately.

    The run times are of their last attempts, from the start where that was told, which it is not
    of a short one, and else from the claim; None where none of them was claimed.
    """

    function: str
    ended: int
    failed: int
    mean_ms: float | None
    max_ms: int | None
