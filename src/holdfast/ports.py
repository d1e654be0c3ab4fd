"""The ports: what the shells need of the world, as Protocols.

Adapters (stores, blobs, transports, engines) satisfy them; only `wiring` names concrete ones.
The simulator satisfies the same ports, so that the product's own shells run in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import Payload
from holdfast.model.rows import (
    Attempt as Attempt,
)
from holdfast.model.rows import (
    Changes as Changes,
)
from holdfast.model.rows import (
    CodeRow as CodeRow,
)
from holdfast.model.rows import (
    Depth as Depth,
)
from holdfast.model.rows import (
    Event as Event,
)
from holdfast.model.rows import (
    FunctionRow as FunctionRow,
)
from holdfast.model.rows import (
    QueueRow as QueueRow,
)
from holdfast.model.rows import (
    ReadyPage as ReadyPage,
)
from holdfast.model.rows import (
    Receipt as Receipt,
)
from holdfast.model.rows import (
    Registered as Registered,
)
from holdfast.model.rows import (
    StoreFacts as StoreFacts,
)
from holdfast.model.rows import (
    TaskFilter as TaskFilter,
)
from holdfast.model.rows import (
    Update as Update,
)
from holdfast.model.rows import (
    WorkerRow as WorkerRow,
)
from holdfast.model.task import Task


class Clock(Protocol):
    """Reads time; the event loop owns the timers."""

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward and runs during sleep."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the epoch; never goes backward within a process."""
        ...


# --- Store -------------------------------------------------------------------------------------


class Store(Protocol):
    """The only truth. One write verb, a few batch reads; every call may raise `StoreError`."""

    async def open(self) -> StoreFacts: ...

    async def close(self) -> None: ...

    async def commit(self, changes: Changes) -> Receipt:
        """Write one turn in one transaction, durable on return.

        Raises `StoreRefusedError` (definite: nothing was written), `StoreFullError` (definite: no
        room), `StoreDoubtError` (indefinite: ask `last_turn` after reopening), and, as every call
        may, `StoreCorruptError` (the store is damaged for good).
        """
        ...

    async def last_turn(self) -> int:
        """Return the number of the newest committed turn."""
        ...

    async def load(self, tasks: Sequence[TaskId]) -> list[Task]:
        """Return those of the tasks that exist."""
        ...

    async def pruned(self, tasks: Sequence[TaskId]) -> list[TaskId]:
        """Return those of the tasks that were removed of late."""
        ...

    async def load_keys(self, keys: Sequence[str]) -> list[Task]: ...

    async def running(self) -> list[Task]:
        """Return every task in state `running`."""
        ...

    async def classes(self) -> list[str]:
        """Return the requirement classes that have claimable tasks."""
        ...

    async def ready(self, needs: str, *, after: tuple[int, bytes] | None, limit: int) -> ReadyPage:
        """Return claimable tasks of a class that stand after (rank, id) in line."""
        ...

    async def due(self, until_ms: int, *, limit: int) -> list[Task]:
        """Return delayed tasks that fell due at or before `until_ms`, earliest first."""
        ...

    async def next_due_ms(self) -> int:
        """Return when the next delayed task falls due, 0 for never."""
        ...

    async def worker_rows(self) -> list[WorkerRow]: ...

    async def queue_rows(self) -> list[QueueRow]: ...

    async def load_code(self, digest: bytes) -> bytes | None: ...

    async def kept_code(self, digests: Sequence[bytes]) -> list[bytes]:
        """Return those of the digests whose bytes are here."""
        ...


class Room(Protocol):
    """Space on the store's disk: a watermark for submissions, and a ballast for outcomes."""

    def short(self, size_bytes: int = 0) -> bool:
        """Whether free space would be below the watermark: what is new is refused then."""
        ...

    def needed_bytes(self) -> int:
        """Return how much has to be free for submissions to be kept."""
        ...

    def release(self) -> None:
        """Give the ballast up, so that outcomes still commit."""
        ...

    def restore(self) -> None:
        """Make the ballast again, where there is room."""
        ...


class StoreReader(Protocol):
    """Lists and stories, on a connection of their own, so that they never delay a turn."""

    async def page(self, chosen: TaskFilter, *, before: bytes, limit: int) -> list[Task]:
        """Return tasks newest first, with ids below `before` where it is not empty."""
        ...

    async def counts(self) -> dict[str, int]:
        """Return how many tasks are in each state, by its lower-case name."""
        ...

    async def depths(self) -> list[Depth]:
        """Return what waits of each requirement class."""
        ...

    async def queued_by_class(self) -> dict[str, int]:
        """Return how many claimable tasks each requirement class has."""
        ...

    async def functions(self, *, tasks: int, limit: int) -> list[FunctionRow]:
        """Return up to `limit` functions of the last `tasks` that ended.

        First those of which most failed, then those with the longest run.
        """
        ...

    async def events(self, task: TaskId) -> list[Event]: ...

    async def attempts(self, task: TaskId) -> list[Attempt]: ...

    async def is_pruned(self, task: TaskId) -> bool:
        """Whether a task was removed of late."""
        ...

    async def registered(self, id: bytes) -> Registered | None:
        """Return a registered function."""
        ...

    async def all_registered(self, *, name: str, before: bytes, limit: int) -> list[Registered]:
        """Return registered functions, newest first; `name` "" for all."""
        ...

    async def close(self) -> None: ...


# --- Blobs -------------------------------------------------------------------------------------


class BlobStore(Protocol):
    """Payloads outside the database, under their SHA-256. Durable when `put` returns."""

    async def put(self, chunks: AsyncIterator[bytes], *, bytes_max: int) -> Payload:
        """Store a stream; the payload returned names its digest and size (encoding is JSON=1).

        Raises `BlobTooLargeError` past `bytes_max`, `StoreFullError` where there is no room.
        """
        ...

    def get(self, digest: bytes) -> AsyncIterator[bytes]:
        """Yield a blob's bytes; raises `BlobMissingError`, `BlobCorruptError` at its end."""
        ...

    async def has(self, digest: bytes) -> bool: ...


# --- Transport ---------------------------------------------------------------------------------


class Channel(Protocol):
    """A conversation in whole frames, in order, until it breaks. Either end may break it."""

    @property
    def peer(self) -> str: ...

    async def send(self, frame: bytes) -> None:
        """Send one frame; waits while the peer is slow. Raises `ChannelClosedError`."""
        ...

    async def receive(self) -> bytes:
        """Return the next frame. Raises `ChannelClosedError`."""
        ...

    async def close(self, reason: str = "") -> None: ...


class Dialer(Protocol):
    """Opens channels to one coordinator."""

    async def dial(self) -> Channel:
        """Raises `ChannelClosedError` where nobody answers."""
        ...


# --- Engine ------------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True, gc=False):
    """What a child needs to run one attempt.

    `payload` is inline, or `payload_path` names a local file that holds it; `code` likewise is the
    pickled function (empty: import `function`).
    """

    task: TaskId
    token: Token
    fence: int
    function: str
    payload: Payload
    payload_path: str = ""
    code: bytes = b""
    python: str = ""


class LaneDeath(msgspec.Struct, frozen=True, gc=False):
    """A child ended without being asked. `begun` it had taken up, `untouched` surely did not run.

    `signal` is 0 where it exited by itself with `exit_code`; `killed` where we did it;
    `last_words` are the last lines of its stderr.
    """

    begun: tuple[Token, ...]
    untouched: tuple[Token, ...]
    signal: int
    exit_code: int
    killed: bool
    out_of_memory: bool
    last_words: str


class EngineListener(Protocol):
    """The agent's side of an engine. Called on the event loop, never from another thread."""

    def attempt_ended(self, lane: int, ended: Ended, result_path: str) -> None:
        """An attempt ended by itself. `result_path` names a file that holds a large result."""
        ...

    def lane_died(self, lane: int, death: LaneDeath) -> None:
        """The lane's child is gone; a fresh one takes the lane as soon as there is room for it."""
        ...

    def all_died(self, deaths: Sequence[tuple[int, LaneDeath]]) -> None:
        """The children of all lanes died at once, and any attempt may have done it.

        There is one death for each lane. Fresh children take the lanes at once.
        """
        ...

    def lane_writable(self, lane: int) -> None:
        """A lane that refused an order has room again."""
        ...

    def printed(self, lane: int, *, error: bool, data: bytes) -> None:
        """The child wrote to its stdout, or to its stderr."""
        ...

    def failed(self, error: Exception) -> None:
        """The engine broke in a way that it does not know: it tells nothing more, and does nothing.

        Whoever uses it has to end.
        """
        ...


class Engine(Protocol):
    """How a worker runs attempts: lanes, each a child that takes its orders one after another.

    An order waits in the lane until the child takes it; which of the two, child or `take_back`,
    got it is decided by the kernel, so that what was taken back surely did not run.
    """

    async def open(self, listener: EngineListener, *, lanes: int) -> None:
        """Make lanes 0 … `lanes`-1, and lane `lanes` for concurrent functions (made when used)."""
        ...

    def hand(self, lane: int, order: Order) -> bool:
        """Put an order into a lane; False where it has no room (`lane_writable` follows).

        Raises OSError where a child could not read it, as on a full disk: it surely did not start.
        """
        ...

    def take_back(self, lane: int) -> list[Token]:
        """Return the orders that the child has not taken up; they leave the lane."""
        ...

    def interrupt(self, lane: int, token: Token) -> None:
        """Raise `TaskCancelled` inside the attempt, if it is the one that runs."""
        ...

    def kill(self, lane: int) -> None:
        """SIGKILL the child's process group; `lane_died` follows."""
        ...

    async def close(self, *, farewell: bool = True) -> None:
        """End all children and what they left behind.

        Without a farewell the guard tells of it as of a sudden death.
        """
        ...


class Guard(Protocol):
    """The process that outlives the supervisor and tells of its death."""

    def started(self, tokens: Sequence[Token]) -> None:
        """These tokens are about to be handed to a child. Returns when the pipe has them."""
        ...

    def spooled(self, tokens: Sequence[Token]) -> None:
        """The outcomes of these tokens are durable in the spool."""
        ...

    def done(self, tokens: Sequence[Token]) -> None:
        """These tokens are settled; forget them."""
        ...

    def session(self, *, url: str, identity: str, incarnation: int, last_word: str) -> None:
        """Where, and with which one-use token, to tell of our death."""
        ...


class Spool(Protocol):
    """Outcomes on this worker's disk, for the next incarnation to deliver."""

    def load(self) -> list[Ended]:
        """Return what is spooled and verifies, oldest first."""
        ...

    async def save(self, outcomes: Sequence[Ended]) -> None:
        """Append; durable on return."""
        ...

    async def forget(self, tokens: Sequence[Token]) -> None:
        """Drop those that were answered."""
        ...


class WorkerHome(Protocol):
    """A worker's state directory: its identity and the counter of its incarnations."""

    identity: str

    def next_incarnation(self) -> int: ...

    def store(self) -> tuple[str, int]:
        """Return the id and timeline of the store that gave what is spooled; ("", 0) at first."""
        ...

    def remember_store(self, store: str, timeline: int) -> None:
        """Note whose session this is; durable on return."""
        ...

    @property
    def path(self) -> Path: ...
