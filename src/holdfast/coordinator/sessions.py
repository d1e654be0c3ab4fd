"""The conversations of a coordinator: one object for each open socket.

A session queues what is to be said; the gateway writes it. Sessions hold no truth: all that a
worker has is in the store, and what a client watches the client repeats after a reconnect.
"""

from __future__ import annotations

import asyncio
from collections import deque

from holdfast.core.dispatch import Offer
from holdfast.core.session import Ledger
from holdfast.core.wire import Wire, size_of
from holdfast.model.ids import TaskId
from holdfast.model.messages import Frame, Message, Settled, View, WorkerHello
from holdfast.ports import Channel

OUT_MESSAGES_MAX = 100_000
"""Messages that may wait for one socket; a peer that reads so slowly is closed."""
RESULTS_BYTES_MAX = 8 * 1024 * 1024
"""Results that may wait for one client; of further ones only the ids are kept."""


class Session:
    """One open socket: what is to be written on it, and whether it still counts."""

    __slots__ = (
        "beat",
        "channel",
        "closed",
        "heard",
        "name",
        "out",
        "reason",
        "said",
        "wake",
        "wire",
    )

    def __init__(self, channel: Channel, *, now: float) -> None:
        self.channel = channel
        self.wire: Wire[Frame] = Wire(Frame)
        self.out: deque[Message] = deque()
        self.wake = asyncio.Event()
        self.beat = False
        """Whether a frame is due although there is nothing to say."""
        self.closed = False
        self.reason = ""
        self.heard = now
        self.said = now
        self.name = ""

    def send(self, message: Message) -> None:
        """Queue a message; nothing is said on a closed session."""
        if self.closed:
            return
        if len(self.out) >= OUT_MESSAGES_MAX:
            self.close("it reads too slowly")
            return
        self.out.append(message)
        self.wake.set()

    def close(self, reason: str) -> None:
        """Let the gateway write what is queued and close the socket."""
        if not self.closed:
            self.closed = True
            self.reason = reason
            self.wake.set()


class WorkerSession(Session):
    """A worker's socket, from its hello on."""

    __slots__ = (
        "code_read",
        "code_wanted",
        "epoch",
        "hello",
        "identity",
        "incarnation",
        "last_word",
        "ledger",
        "offer",
        "superseded",
        "view",
    )

    def __init__(self, channel: Channel, hello: WorkerHello, *, now: float) -> None:
        super().__init__(channel, now=now)
        self.hello = hello
        self.name = hello.name
        self.identity = hello.identity
        self.incarnation = hello.incarnation
        self.epoch = 0
        self.last_word = ""
        self.code_wanted: dict[bytes, None] = {}
        """Functions that it asked for: read from the store when there is nothing else to say."""
        self.code_read = False
        """Whether the first of them is being read."""
        self.superseded = False
        """Whether a newer hello took the place of its own, before that was decided."""
        self.ledger = Ledger()
        self.view: View | None = None
        self.offer = Offer(
            hello.identity,
            slots=hello.slots,
            concurrent_slots=hello.concurrent_slots,
            queues=hello.queues,
            tags=hello.tags,
            pull=hello.pull,
            open=not hello.draining,
        )


class ClientSession(Session):
    """A submitter's socket, and which tasks it waits for."""

    __slots__ = ("kept_by", "owed", "questions", "results_bytes", "watched")

    watches_own = True
    """Whether it is told of the end of all that it submits."""

    def __init__(self, channel: Channel, *, name: str, now: float, kept_by: str = "") -> None:
        super().__init__(channel, now=now)
        self.name = name
        self.kept_by = kept_by
        self.watched: dict[bytes, None] = {}
        self.questions = 0
        self.results_bytes = 0
        """Results queued since the queue was last empty."""
        self.owed: dict[TaskId, None] = {}
        """Settled tasks whose results are read from the store when the queue is empty."""

    def settle(self, message: Settled) -> None:
        """Queue a result, or only its id where too much is queued already."""
        if self.closed:
            return
        if self.results_bytes >= RESULTS_BYTES_MAX:
            self.owed[message.task] = None
            return
        self.results_bytes += size_of(message)
        self.send(message)

    def drained(self, tasks_max: int) -> list[TaskId]:
        """Note that all was written; return results that are owed, the oldest first."""
        self.results_bytes = 0
        owed = list(self.owed)[:tasks_max]
        for task in owed:
            del self.owed[task]
        return owed
