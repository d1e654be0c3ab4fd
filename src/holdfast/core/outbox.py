"""What a worker has to say, and the outcomes it keeps until somebody durable has them.

Rules
-----
Control goes first, then what has started, then outcomes; within a lease `Started` comes before
`Ended`. A `Started` waits a moment and is dropped when its `Ended` comes before it was written:
the outcome implies it, so that a short task costs one message. An outcome that cannot be said yet
implies nothing: its `Started` is said.

An outcome stays until it is answered *settled* or *superseded*. With a new hello everything that
was not answered is named in the hello, and not said again as a message. Where a store answers
*unknown* (it is not the one that gave the lease) the outcome stays as *foreign*: it is not said to
other stores, and is said again when its own store welcomes this worker. An outcome whose large
result is not yet in the blob store is *unready*: kept, spooled, but not said; its result is owed to
the store that gave the lease, and to no other. A hello names both as leases that run, so that the
store that gave them does not take them for lost. Where that store tells to stop one, its token
writes no more: nobody wants the result, and the outcome is said without it, to be answered.

The outbox never drops an outcome. Its bound is that the shell hands out no more work while `full`:
too many bytes, or too many unready ones for a hello to name beside all that may be leased.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from holdfast.core.peer import HELLO_HELD_MAX, NO_STORE, Origin
from holdfast.core.wire import FRAME_ROOM_BYTES, MESSAGE_BYTES, size_of
from holdfast.model.ids import TaskId, Token
from holdfast.model.limits import (
    CONCURRENT_SLOTS_MAX,
    ERROR_TEXT_BYTES_MAX,
    EVIDENCE_BYTES_MAX,
    HELLO_BYTES_MAX,
    MESSAGES_PER_FRAME_MAX,
    OUTSTANDING_MAX,
    SLOTS_MAX,
)
from holdfast.model.messages import (
    CodeWanted,
    Draining,
    Ended,
    HeldLease,
    Message,
    Pull,
    Started,
)
from holdfast.model.outcome import Answer, Failure, OutcomeKind
from holdfast.model.task import Phase
from holdfast.model.words import Word

OUTBOX_BYTES_MAX = HELLO_BYTES_MAX // 2
"""From here on no new work is handed out; what is in the lanes already still fits a hello."""
UNREADY_MAX = HELLO_HELD_MAX - max(OUTSTANDING_MAX, SLOTS_MAX) - CONCURRENT_SLOTS_MAX
"""Unready outcomes from which on no new work is handed out: what a store may lease at once is named
in a hello beside them."""
HELLO_OUTCOMES_BYTES_MAX = HELLO_BYTES_MAX * 3 // 4
STARTED_DELAY_SECONDS = 0.025
"""Longer than an order waits in a lane before it is taken back (`lanes.BLOCKED_SECONDS`): of short
work only the end is said, and what was taken back was never said to have started."""


class Stand(Word):
    """Where an outcome stands on its way."""

    QUEUED = 1
    SAID = 2
    FOREIGN = 3
    UNREADY = 4


class Entry(msgspec.Struct, gc=False):
    """One outcome that is not answered yet."""

    ended: Ended
    origin: Origin
    size_bytes: int
    stand: Stand
    spooled: bool = False


class Outbox:
    """All that one worker has to say."""

    __slots__ = (
        "_code",
        "_draining",
        "_entries",
        "_pull",
        "_queued",
        "_resent",
        "_starts",
        "_store",
        "_unready",
        "_unspooled",
        "bytes",
    )

    def __init__(self) -> None:
        self._store = NO_STORE
        self._entries: dict[Token, Entry] = {}
        self._unspooled: dict[Token, Entry] = {}
        self._unready: dict[Token, Entry] = {}
        self._queued: dict[Token, Entry] = {}
        self._starts: dict[Token, tuple[float, TaskId]] = {}
        self._resent: dict[Token, TaskId] = {}
        self._code: dict[bytes, None] = {}
        self._pull: Pull | None = None
        self._draining = False
        self.bytes = 0
        """What the unanswered outcomes take, estimated from above."""

    def __len__(self) -> int:
        """Return how many outcomes are unanswered, foreign ones not counted."""
        return sum(entry.stand is not Stand.FOREIGN for entry in self._entries.values())

    def has(self, token: Token) -> bool:
        """Return whether an outcome of this token is unanswered, a foreign one too."""
        return token in self._entries

    @property
    def full(self) -> bool:
        """Whether so much is unanswered that no new work should be handed out.

        What waits for another store was bounded when that one gave the work, and fills no hello.
        """
        if len(self._unready) > UNREADY_MAX and len(self.unready()) > UNREADY_MAX:
            return True
        if self.bytes <= OUTBOX_BYTES_MAX:
            return False
        foreign = sum(
            entry.size_bytes for entry in self._entries.values() if entry.stand is Stand.FOREIGN
        )
        return self.bytes - foreign > OUTBOX_BYTES_MAX

    # What is said.

    def pull(self, asked: int, concurrent: int) -> None:
        """Ask for tasks, plain ones and concurrent ones; only the newest numbers are said."""
        self._pull = Pull(asked, concurrent)

    def draining(self) -> None:
        """Say that the worker takes no more."""
        self._draining = True

    def code_wanted(self, digest: bytes) -> None:
        """Ask for the bytes of a pickled function, once."""
        self._code[digest] = None

    def started(self, task: TaskId, token: Token, *, now: float) -> None:
        """Say, in a moment, that an attempt was handed to a child."""
        self._starts[token] = (now + STARTED_DELAY_SECONDS, task)

    def started_again(self, task: TaskId, token: Token) -> None:
        """Say at once that an attempt has started: the answer to a recall that came too late."""
        self._starts.pop(token, None)
        self._resent[token] = task

    def not_started(self, token: Token) -> None:
        """Take back a `Started` that was not written yet: it is implied, or was not so."""
        self._starts.pop(token, None)
        self._resent.pop(token, None)

    def ended(self, message: Ended, origin: Origin, *, ready: bool = True) -> None:
        """Keep an outcome until it is answered, and say it once it is ready."""
        token = message.token
        if ready:
            self.not_started(token)
        size = size_of(message)
        if size > FRAME_ROOM_BYTES:
            message = _cut(message)
            size = size_of(message)
        self._forget(token)
        entry = Entry(message, origin, size, Stand.QUEUED if ready else Stand.UNREADY)
        self._entries[token] = self._unspooled[token] = entry
        self.bytes += size
        if ready:
            self._queue(token, entry)
        else:
            self._unready[token] = entry

    def restore(self, outcomes: Sequence[Ended], origin: Origin, *, ready: bool = True) -> None:
        """Take in outcomes that a former incarnation spooled; the first hello names them."""
        for message in outcomes:
            self.ended(message, origin, ready=ready)
        self.spooled([message.token for message in outcomes])

    # What a frame takes.

    def due(self) -> float:
        """Return when the next delayed message is to be said; infinity where none waits."""
        for when, _ in self._starts.values():
            return when
        return math.inf

    def pending(self, now: float) -> bool:
        """Return whether a frame would take anything now."""
        if self._queued or self._resent or self._code or self._pull or self._draining:
            return True
        return self.due() <= now

    def take(self, now: float) -> deque[Message]:
        """Return the messages of the next frame, all of which fit it."""
        batch: deque[Message] = deque()
        self._take_control(batch)
        starts = self._starts
        while starts and len(batch) * MESSAGE_BYTES < FRAME_ROOM_BYTES // 2:
            token = next(iter(starts))
            when, task = starts[token]
            if when > now:
                break
            del starts[token]
            batch.append(Started(task, token))
        room = FRAME_ROOM_BYTES - MESSAGE_BYTES * len(batch)
        queued = self._queued
        while queued and len(batch) < MESSAGES_PER_FRAME_MAX:
            token = next(iter(queued))
            entry = queued[token]
            if batch and entry.size_bytes > room:
                break
            del queued[token]
            entry.stand = Stand.SAID
            room -= entry.size_bytes
            batch.append(entry.ended)
        return batch

    def _take_control(self, batch: deque[Message]) -> None:
        if self._draining:
            self._draining = False
            batch.append(Draining())
        if self._pull:
            batch.append(self._pull)
            self._pull = None
        room = FRAME_ROOM_BYTES // (4 * MESSAGE_BYTES)
        while self._code and len(batch) < room:
            digest = next(iter(self._code))
            del self._code[digest]
            batch.append(CodeWanted(digest))
        while self._resent and len(batch) < room:
            token = next(iter(self._resent))
            batch.append(Started(self._resent.pop(token), token))

    # What is answered.

    def rejoin(self, origin: Origin) -> tuple[list[Ended], list[HeldLease]]:
        """Begin a new hello to the store `origin`: return the outcomes to name, and those owed.

        All control is dropped, because the hello says it. What is owed (unready, foreign, or beyond
        the bytes of a hello) is to be named as a held lease; it is said in a session.
        """
        self._store = origin
        self._starts.clear()
        self._resent.clear()
        self._code.clear()
        self._queued.clear()
        self._pull = None
        self._draining = False
        named: list[Ended] = []
        owed: list[HeldLease] = []
        room = HELLO_OUTCOMES_BYTES_MAX
        for token, entry in self._entries.items():
            stranger = entry.origin != origin
            if not stranger and entry.stand is not Stand.UNREADY and entry.size_bytes <= room:
                entry.stand = Stand.SAID
                room -= entry.size_bytes
                named.append(entry.ended)
                continue
            if entry.stand is not Stand.UNREADY:
                self._queue(token, entry)
            owed.append(HeldLease(entry.ended.task, token, Phase.STARTED, 0, stranger))
        return named, owed

    def welcomed(self, origin: Origin) -> None:
        """Note whose session this is: say what only this store knows, keep back what it does not.

        To be told before the answers of the welcome are.
        """
        self._store = origin
        for token, entry in self._entries.items():
            if entry.stand in (Stand.FOREIGN, Stand.QUEUED):
                self._queue(token, entry)

    def answered(self, token: Token, answer: Answer) -> Entry | None:
        """Take in an answer; return the outcome where it needs to be kept no longer.

        *keep* is said of an owed outcome: this store has the lease, whatever its timeline.
        """
        entry = self._entries.get(token)
        if entry is None:
            return None
        foreign = entry.stand is Stand.FOREIGN
        if answer is Answer.SETTLED or (answer is Answer.SUPERSEDED and not foreign):
            self._forget(token)
            return entry
        if answer is Answer.UNKNOWN and entry.stand is not Stand.UNREADY:
            # Said again where this is the store that gave it: it has the last word.
            self._queue(token, entry)
        elif answer is Answer.KEEP:
            entry.origin = self._store
            if foreign:
                self._queue(token, entry)
        return None

    def ready(self, message: Ended) -> None:
        """The large result of an unready outcome is durable in the blob store: say it."""
        entry = self._unready.pop(message.token, None)
        if entry is not None:
            entry.ended = message
            self.not_started(message.token)
            self._queue(message.token, entry)

    def unwanted(self, token: Token) -> Ended | None:
        """The present store told to stop a lease: return its unready outcome, where it gave that.

        Its result is not to be stored any more. What is said instead is only there to be answered,
        and harmless were it accepted.
        """
        entry = self._unready.get(token)
        if entry is None or entry.origin != self._store:
            return None
        ended = entry.ended
        self.ready(Ended(ended.task, token, OutcomeKind.STOPPED))
        return ended

    def unready(self) -> list[Ended]:
        """Return the outcomes whose large results the present store has to get first."""
        unready = self._unready.values()
        return [entry.ended for entry in unready if entry.origin == self._store]

    def rests(self, digest: bytes) -> bool:
        """Return whether an unready outcome, of whatever store, has the result of this digest."""
        results = (entry.ended.result for entry in self._unready.values())
        return any(result is not None and result.digest == digest for result in results)

    @property
    def has_unspooled(self) -> bool:
        """Whether an unanswered outcome is not on disk yet."""
        return bool(self._unspooled)

    def unspooled(self) -> list[Ended]:
        """Return the unanswered outcomes that are not on disk yet, oldest first."""
        return [entry.ended for entry in self._unspooled.values()]

    def spooled(self, tokens: Sequence[Token]) -> None:
        """Note that the outcomes of these tokens are durable in the spool."""
        for token in tokens:
            if (entry := self._unspooled.pop(token, None)) is not None:
                entry.spooled = True

    @property
    def has_foreign(self) -> bool:
        """Whether an outcome of another store than the present one is kept, unready ones too."""
        return any(entry.origin != self._store for entry in self._entries.values())

    def _queue(self, token: Token, entry: Entry) -> None:
        """Put an outcome in line, or keep it back where another store has to answer it."""
        if entry.origin == self._store:
            entry.stand = Stand.QUEUED
            self._queued[token] = entry
        else:
            entry.stand = Stand.FOREIGN
            self._queued.pop(token, None)

    def _forget(self, token: Token) -> None:
        entry = self._entries.pop(token, None)
        if entry is not None:
            self.bytes -= entry.size_bytes
            self._queued.pop(token, None)
            self._unready.pop(token, None)
            self._unspooled.pop(token, None)


def _cut(message: Ended) -> Ended:
    """Return an outcome too large for a frame, without what only makes it comfortable to read."""
    failure = message.failure
    if failure is not None:
        failure = Failure(
            types=tuple(name[:512] for name in failure.types[:32]),
            message=failure.message[: ERROR_TEXT_BYTES_MAX // 4],
            traceback=failure.traceback[-ERROR_TEXT_BYTES_MAX // 4 :],
            evidence=failure.evidence[-EVIDENCE_BYTES_MAX // 4 :],
        )
        message = replace(message, failure=failure)
    if size_of(message) <= FRAME_ROOM_BYTES:
        return message
    told = Failure(message="the result is too large to travel inline")
    return replace(message, kind=OutcomeKind.INVALID, result=None, failure=told)
