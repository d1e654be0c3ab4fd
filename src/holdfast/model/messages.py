"""What the two ends of a session say to each other, as tagged values (MessagePack arrays).

Owns the vocabulary of the wire; `core.wire` owns its encoding and its bounds. A message is
idempotent by (token, kind, number): after a reconnect it may be said again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.model.ids import TaskId, Token
from holdfast.model.outcome import Answer, Failure, OutcomeKind, Payload, Reason
from holdfast.model.task import Phase, Spec, State, Wanted

PROTOCOL = 1


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages; it carries only the encoding options."""


# --- Hello and welcome -------------------------------------------------------------------------


class HeldLease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One lease that a worker names in its hello.

    A `stranger` was given by another store, or timeline, than the one that the hello names.
    """

    task: TaskId
    token: Token
    phase: Phase
    wish: int
    stranger: bool = False


class Ended(Message, frozen=True, array_like=True, gc=False, tag=1):
    """The outcome of one attempt. `run_us` is how long user code ran, in microseconds."""

    task: TaskId
    token: Token
    kind: OutcomeKind
    result: Payload | None = None
    failure: Failure | None = None
    run_us: int = 0


class WorkerHello(Message, frozen=True, array_like=True, gc=False, tag=2):
    """A worker opens a session. (incarnation, number) must be above the last pair seen.

    `store` and `timeline` name the store that welcomed it last ("" at first): it gave the leases
    and outcomes, but for those that are marked. `more` says that `HelloMore` frames with further
    outcomes follow before the hello is whole.
    """

    protocol: int
    identity: str
    name: str
    incarnation: int
    number: int
    store: str
    timeline: int
    slots: int
    concurrent_slots: int
    pull: bool
    queues: tuple[str, ...]
    tags: tuple[str, ...]
    host: str
    boot: str
    pid: int
    python: str
    version: str
    draining: bool
    held: tuple[HeldLease, ...]
    outcomes: tuple[Ended, ...]
    more: bool = False


class HelloMore(Message, frozen=True, array_like=True, gc=False, tag=3):
    """Further outcomes of the outbox and the spool that belong to the hello before it."""

    outcomes: tuple[Ended, ...]
    more: bool


class LeaseAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What becomes of one lease, or of one outcome, that a hello named."""

    task: TaskId
    token: Token
    answer: Answer
    wanted: Wanted = Wanted.RUN
    wish: int = 0


class WorkerWelcome(Message, frozen=True, array_like=True, gc=False, tag=4):
    """The hello was accepted: a new epoch. `last_word` is the guard's one-use token.

    `orders` of this session count from 1; leases kept here count as read at 0.
    """

    protocol: int
    store: str
    timeline: int
    epoch: int
    lease_seconds: float
    heartbeat_seconds: float
    last_word: str
    answers: tuple[LeaseAnswer, ...]


class ClientHello(Message, frozen=True, array_like=True, gc=False, tag=5):
    """A submitter or a person opens a session.

    `kept_by` is the mark of the embedded coordinator in whose tasks this client lives, "" for none.
    """

    protocol: int
    name: str
    version: str
    python: str
    kept_by: str = ""


class ClientWelcome(Message, frozen=True, array_like=True, gc=False, tag=6):
    """The client's hello was accepted."""

    protocol: int
    store: str
    timeline: int
    version: str
    python: str


class Goodbye(Message, frozen=True, array_like=True, gc=False, tag=7):
    """The session is refused or closed by the sender, who says why; the socket closes next."""

    code: str
    text: str


# --- Worker to coordinator ---------------------------------------------------------------------


class Started(Message, frozen=True, array_like=True, gc=False, tag=10):
    """The attempt was handed to a child: it may have run from here on."""

    task: TaskId
    token: Token


class Pull(Message, frozen=True, array_like=True, gc=False, tag=11):
    """A worker in pull mode asks for so many tasks in all since its hello (never falls).

    `concurrent` are those of functions that share a child, `asked` all others.
    """

    asked: int
    concurrent: int = 0


class Draining(Message, frozen=True, array_like=True, gc=False, tag=12):
    """The worker takes no more; what has not started is to be recalled."""


class CodeWanted(Message, frozen=True, array_like=True, gc=False, tag=13):
    """The worker lacks the bytes of a pickled function."""

    digest: bytes


# --- Coordinator to worker ---------------------------------------------------------------------


class Assign(Message, frozen=True, array_like=True, gc=False, tag=20):
    """An order: run this attempt. `number` counts the orders of this session, from 1."""

    number: int
    epoch: int
    task: TaskId
    token: Token
    fence: int
    function: str
    payload: Payload
    code: bytes
    python: str
    concurrent: bool
    wanted: Wanted
    wish: int


class StopOrder(Message, frozen=True, array_like=True, gc=False, tag=21):
    """The lease is not yours any more: stop the attempt. Numbered like `Assign`."""

    number: int
    task: TaskId
    token: Token


class Recall(Message, frozen=True, array_like=True, gc=False, tag=22):
    """Give the attempt back if it has not started; else its `Started` is the answer."""

    task: TaskId
    token: Token


class WishTold(Message, frozen=True, array_like=True, gc=False, tag=23):
    """The user's wish for a lease; obeyed where `wish` is above the last one seen."""

    task: TaskId
    token: Token
    wanted: Wanted
    wish: int


class Answered(Message, frozen=True, array_like=True, gc=False, tag=24):
    """The answer to an outcome, after the commit that makes it true."""

    task: TaskId
    token: Token
    answer: Answer


class Code(Message, frozen=True, array_like=True, gc=False, tag=25):
    """The bytes of a pickled function; `data` empty and `blob` true where it rests as a blob."""

    digest: bytes
    data: bytes
    found: bool


class DrainOrder(Message, frozen=True, array_like=True, gc=False, tag=26):
    """Take no more, return what has not started, finish what runs, and leave."""


# --- Client to coordinator ---------------------------------------------------------------------


class Submit(Message, frozen=True, array_like=True, gc=False, tag=30):
    """Tasks to keep. `again` is set on a repetition whose first answer may have been lost."""

    specs: tuple[Spec, ...]
    again: bool = False


class PutCode(Message, frozen=True, array_like=True, gc=False, tag=31):
    """The bytes of a pickled function, before the first task that names its digest (SHA-256).

    It is not answered. A task of it that is refused for now may be so because the function was not
    kept either: both are said again.
    """

    digest: bytes
    data: bytes


class Watch(Message, frozen=True, array_like=True, gc=False, tag=32):
    """Tell me when these tasks are settled; at once for those that are."""

    tasks: tuple[TaskId, ...]


class SetWanted(Message, frozen=True, array_like=True, gc=False, tag=33):
    """A wish for one task. Answered by `Reply` with the same `ref`.

    With `waiting` it is for a task that no worker has yet, with `version` above 0 for one that
    still has it; of another one it changes nothing.
    """

    ref: int
    task: TaskId
    wanted: Wanted
    waiting: bool = False
    version: int = 0


class SetQueue(Message, frozen=True, array_like=True, gc=False, tag=35):
    """Pause a queue, or let it go on. Answered by `Reply` with the same `ref`.

    Of a paused queue nothing is claimed; what a worker holds of it goes on.
    """

    ref: int
    queue: str
    paused: bool


class Ask(Message, frozen=True, array_like=True, gc=False, tag=34):
    """A question of a person (`status`, `list`, `story`, `why`, …). Answered by `Reply`."""

    ref: int
    question: str
    parameters: dict[str, Any]


# --- Coordinator to client ---------------------------------------------------------------------


class Accepted(Message, frozen=True, array_like=True, gc=False, tag=40):
    """These submissions are committed. `known` pairs (submitted id, id that holds its key)."""

    tasks: tuple[TaskId, ...]
    known: tuple[tuple[TaskId, TaskId], ...] = ()


class Refused(Message, frozen=True, array_like=True, gc=False, tag=41):
    """This submission was not kept, surely. `code` is stable; `text` says the mend.

    `retry_after_seconds` above 0: say it again then; nothing is wrong with the task.
    """

    task: TaskId
    code: str
    text: str
    retry_after_seconds: float = 0.0


class Settled(Message, frozen=True, array_like=True, gc=False, tag=42):
    """A watched task is terminal."""

    task: TaskId
    state: State
    reason: Reason
    result: Payload | None
    failure: Failure | None


class Reply(Message, frozen=True, array_like=True, gc=False, tag=43):
    """The answer to `Ask` or `SetWanted`; `code` is "" where it went well."""

    ref: int
    data: Any
    code: str = ""
    text: str = ""


# --- Frames ------------------------------------------------------------------------------------


class View(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a worker's frame says of its leases, as of the last order it read.

    `digest` is the exclusive-or of the first eight bytes of the tokens held; `wishes` are the
    wish numbers above 0, as (token, number). The strangers are in none of these, but their
    attempts go on: so many plain ones, and so many concurrent ones, each in a slot.
    """

    epoch: int
    read: int
    digest: int
    wishes: tuple[tuple[Token, int], ...] = ()
    strangers: int = 0
    concurrent_strangers: int = 0


FromWorker = WorkerHello | HelloMore | Ended | Started | Pull | Draining | CodeWanted | Goodbye
ToWorker = (
    WorkerWelcome | Assign | StopOrder | Recall | WishTold | Answered | Code | DrainOrder | Goodbye
)
FromClient = ClientHello | Submit | PutCode | Watch | SetWanted | SetQueue | Ask | Goodbye
ToClient = ClientWelcome | Accepted | Refused | Settled | Reply | Goodbye
FromPeer = FromWorker | FromClient


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One unit on the socket, read by a coordinator.

    `number` counts the frames of one direction of a session from 1; `seen` is the number of the
    last frame read from the peer, so that both ends can bound what is unacknowledged.
    """

    number: int
    seen: int
    body: tuple[FromPeer, ...]
    view: View | None = None


class WorkerFrame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One unit on the socket, read by a worker."""

    number: int
    seen: int
    body: tuple[ToWorker, ...]


class ClientFrame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One unit on the socket, read by a client."""

    number: int
    seen: int
    body: tuple[ToClient, ...]
