"""The worker's end of a session: which leases it has, and what each frame says of them.

Rules
-----
A peer is *closed*, then *connecting* (its hello is on the way), then *welcomed*, then closed again;
one `Peer` lives as long as its worker and goes round for every socket. Every hello has a number one
above the last.

Leases outlive sessions. A lease enters with its `Assign` and leaves when its outcome goes to the
outbox, when a `StopOrder` is read, or when a welcome answers anything but *keep*. A started lease
that a welcome does not know (another store, or one restored from a backup) goes on as a *stranger*:
its outcome is kept for the store that gave it. One that has not started is dropped instead. Every
hello names the strangers too, marked as such: who does not know them leaves them alone, and who
gave them must not take them for lost. They keep their slots, and each view says how many.

The *view* says what is held as of the last order read. A token enters it when its `Assign` is read
or when the welcome answers *keep*; it leaves when its `Ended` is written into a frame of this
session (that frame's view lacks it already) or when its `StopOrder` is read. Outcomes that the
hello itself named are never in it.

Orders (`Assign`, `StopOrder`) count from 1 in each session. A gap, or an order of another epoch, is
a protocol error: the socket is closed and nothing of the message is done.

This room never decides what runs where and never touches a socket: bytes are `core.wire`'s, lanes
are `core.lanes`'s, outcomes are `core.outbox`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from holdfast.core.wire import size_of
from holdfast.errors import ConfigurationError, ProtocolError
from holdfast.model.ids import Token
from holdfast.model.limits import (
    CONCURRENT_SLOTS_MAX,
    FRAME_BYTES_MAX,
    OUTSTANDING_MAX,
    SLOTS_MAX,
)
from holdfast.model.messages import (
    PROTOCOL,
    Answered,
    Assign,
    Code,
    DrainOrder,
    Ended,
    Goodbye,
    HeldLease,
    HelloMore,
    LeaseAnswer,
    Message,
    Recall,
    StopOrder,
    ToWorker,
    View,
    WishTold,
    WorkerHello,
    WorkerWelcome,
)
from holdfast.model.outcome import Answer
from holdfast.model.task import Phase, Wanted
from holdfast.model.words import Word

HELLO_FRAME_BYTES = FRAME_BYTES_MAX // 2
"""What one frame of a hello holds, so that a long hello is read in even bites."""

HELLO_HELD_MAX = OUTSTANDING_MAX + SLOTS_MAX + CONCURRENT_SLOTS_MAX
"""Leases that a hello names: so many, with all their words, fit its first frame."""

Origin = tuple[str, int]
"""The id and the timeline of the store that gave a lease."""

NO_STORE: Origin = ("", 0)


class PeerState(Word):
    """Where the peer stands in its session."""

    CLOSED = 0
    CONNECTING = 1
    WELCOMED = 2


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What a worker says of itself in every hello."""

    name: str
    slots: int
    concurrent_slots: int = 0
    pull: bool = False
    queues: tuple[str, ...] = ("default",)
    tags: tuple[str, ...] = ()
    host: str = ""
    boot: str = ""
    pid: int = 0
    python: str = ""
    version: str = ""


class Held(msgspec.Struct, gc=False):
    """A lease whose attempt has not ended. `phase`, `wanted` and `wish` are kept up to date."""

    order: Assign
    origin: Origin
    phase: Phase
    wanted: Wanted
    wish: int


class Heard(msgspec.Struct):
    """What the frames of one wake-up ask of the shell, to be done in the order of the fields.

    A token's `Assign` is always the first that is said of it, so that kinds may be grouped.
    """

    welcome: WorkerWelcome | None = None
    orders: list[Held] = []
    answered: list[tuple[Token, Answer]] = []
    stops: list[Token] = []
    recalls: list[Token] = []
    wishes: list[Held] = []
    code: list[Code] = []
    drain: bool = False
    goodbye: Goodbye | None = None


class Peer:
    """One worker's end of its sessions, one after another."""

    __slots__ = (
        "_digest",
        "_identity",
        "_incarnation",
        "_named",
        "_offer",
        "_shown",
        "_wishes",
        "assigned",
        "epoch",
        "leases",
        "number",
        "origin",
        "read",
        "state",
        "strangers",
    )

    def __init__(
        self, offer: Offer, *, identity: str, incarnation: int, origin: Origin = NO_STORE
    ) -> None:
        self._offer = offer
        self._identity = identity
        self._incarnation = incarnation
        self.origin = origin
        """The store of the last welcome, or the one that a former incarnation remembered."""
        self.state = PeerState.CLOSED
        self.number = 0
        self.epoch = 0
        self.read = 0
        """The number of the last order read in this session."""
        self.assigned = [0, 0]
        """How many of those were assignments."""
        self.leases: dict[Token, Held] = {}
        self.strangers: dict[Token, Held] = {}
        """Those of them that another store gave than the one of the last welcome."""
        self._named: tuple[HeldLease, ...] = ()
        self._shown: dict[Token, int] = {}
        self._digest = 0
        self._wishes: dict[Token, int] = {}

    def hello(
        self, *, outcomes: Sequence[Ended], owed: Sequence[HeldLease] = (), draining: bool = False
    ) -> list[Message]:
        """Open the next session; return the hello, in as many messages as it takes frames.

        `outcomes` are named as such. `owed` are leases that have ended, but whose outcome cannot
        be said yet: they are named as started, and their `Ended` follows in a session. What is
        beyond `HELLO_HELD_MAX` is not named, and answered when it is said; strangers come last.
        """
        self.closed()
        self.state = PeerState.CONNECTING
        self.number += 1
        held = [
            HeldLease(lease.order.task, token, lease.phase, lease.wish, token in self.strangers)
            for token, lease in self.leases.items()
        ]
        held += owed
        held.sort(key=attrgetter("stranger"))
        del held[HELLO_HELD_MAX:]
        self._named = tuple(held)
        pages = _pages(outcomes, first_room=HELLO_FRAME_BYTES - 4096 - 48 * len(held))
        offer = self._offer
        hello = WorkerHello(
            protocol=PROTOCOL,
            identity=self._identity,
            name=offer.name,
            incarnation=self._incarnation,
            number=self.number,
            store=self.origin[0],
            timeline=self.origin[1],
            slots=offer.slots,
            concurrent_slots=offer.concurrent_slots,
            pull=offer.pull,
            queues=offer.queues,
            tags=offer.tags,
            host=offer.host,
            boot=offer.boot,
            pid=offer.pid,
            python=offer.python,
            version=offer.version,
            draining=draining,
            held=self._named,
            outcomes=tuple(pages[0]),
            more=len(pages) > 1,
        )
        more = [HelloMore(tuple(page), i + 2 < len(pages)) for i, page in enumerate(pages[1:])]
        return [hello, *more]

    def hear(self, body: Sequence[ToWorker], heard: Heard) -> None:
        """Take in the messages of one frame; what they ask is added to `heard`.

        Raises ProtocolError at the first message that cannot be; those before it count.
        """
        for message in body:
            if self.state is not PeerState.WELCOMED:
                self._first(message, heard)
            elif isinstance(message, Assign):
                self._assigned(message, heard)
            elif isinstance(message, Answered):
                heard.answered.append((message.token, message.answer))
            elif isinstance(message, StopOrder):
                self._stopped(message, heard)
            elif isinstance(message, WishTold):
                self._wished(message, heard)
            elif isinstance(message, Recall):
                heard.recalls.append(message.token)
            elif isinstance(message, Code):
                heard.code.append(message)
            elif isinstance(message, DrainOrder):
                heard.drain = True
            elif isinstance(message, Goodbye):
                self._goodbye(message, heard)
            else:
                raise ProtocolError("a second welcome in one session")

    def ended(self, token: Token) -> Held | None:
        """Let a lease go because its outcome goes to the outbox; None where it was not held.

        The view keeps it until `written` is told of that outcome.
        """
        self.strangers.pop(token, None)
        return self.leases.pop(token, None)

    def written(self, token: Token) -> None:
        """Note that the `Ended` of this token goes into the frame that is being made."""
        bits = self._shown.pop(token, None)
        if bits is not None:
            self._digest ^= bits
            self._wishes.pop(token, None)

    def view(self) -> View:
        """Return what the frame that is being made says of the leases held."""
        concurrent = sum(lease.order.concurrent for lease in self.strangers.values())
        plain = len(self.strangers) - concurrent
        wishes = tuple(self._wishes.items())
        return View(self.epoch, self.read, self._digest, wishes, plain, concurrent)

    def closed(self) -> None:
        """Note that the session is over, or that a new one begins with nothing in it."""
        self.state = PeerState.CLOSED
        self.epoch = 0
        self.read = 0
        self.assigned = [0, 0]
        self._named = ()
        self._shown.clear()
        self._wishes.clear()
        self._digest = 0

    # What the messages do.

    def _first(self, message: ToWorker, heard: Heard) -> None:
        """Before the welcome, nothing but the welcome or a refusal can be."""
        if isinstance(message, Goodbye):
            self._goodbye(message, heard)
        elif isinstance(message, WorkerWelcome) and self.state is PeerState.CONNECTING:
            self._welcomed(message, heard)
        else:
            raise ProtocolError(f"{type(message).__name__} before the welcome")

    def _welcomed(self, message: WorkerWelcome, heard: Heard) -> None:
        if message.protocol != PROTOCOL:
            raise ProtocolError(f"protocol {message.protocol}; this worker speaks {PROTOCOL}")
        answers = {answer.token: answer for answer in message.answers}
        unanswered = [lease for lease in self._named if lease.token not in answers]
        if unanswered:
            raise ProtocolError(f"the welcome leaves {len(unanswered)} leases unanswered")
        self.state = PeerState.WELCOMED
        self.epoch = message.epoch
        self.origin = (message.store, message.timeline)
        heard.welcome = message
        for named in self._named:
            self._judged(answers.pop(named.token), heard)
        self.strangers = {
            token: lease for token, lease in self.leases.items() if lease.origin != self.origin
        }
        heard.answered += [(answer.token, answer.answer) for answer in answers.values()]

    def _judged(self, answer: LeaseAnswer, heard: Heard) -> None:
        """Do to one held lease what the welcome says of it."""
        token = answer.token
        lease = self.leases.get(token)
        kept = answer.answer is Answer.KEEP
        if kept:
            self._show(token, answer.wish)
        if lease is None:
            # It has ended since, or was owed: its outcome is said in the session, or kept.
            heard.answered.append((token, answer.answer))
        elif kept:
            lease.origin = self.origin
            self._obey(lease, answer.wanted, answer.wish, heard)
        elif not self._goes_on(lease, answer.answer):
            del self.leases[token]
            heard.stops.append(token)

    def _goes_on(self, lease: Held, answer: Answer) -> bool:
        """Whether a lease that is not kept here stays, for another store."""
        strange = answer is Answer.UNKNOWN and lease.origin != self.origin
        return strange and lease.phase is not Phase.ASSIGNED

    def _assigned(self, message: Assign, heard: Heard) -> None:
        if message.epoch != self.epoch:
            raise ProtocolError(f"an order of epoch {message.epoch} in epoch {self.epoch}")
        token = message.token
        if token in self.leases:
            raise ProtocolError("a token was assigned twice")
        self._count(message.number)
        self.assigned[message.concurrent] += 1
        lease = Held(message, self.origin, Phase.ASSIGNED, message.wanted, message.wish)
        self.leases[token] = lease
        self._show(token, message.wish)
        heard.orders.append(lease)
        if message.wanted is not Wanted.RUN:
            heard.wishes.append(lease)

    def _stopped(self, message: StopOrder, heard: Heard) -> None:
        self._count(message.number)
        self.written(message.token)
        self.strangers.pop(message.token, None)
        if self.leases.pop(message.token, None) is not None:
            heard.stops.append(message.token)

    def _wished(self, message: WishTold, heard: Heard) -> None:
        token = message.token
        if token in self._shown:
            self._wishes[token] = max(message.wish, self._wishes.get(token, 0))
        lease = self.leases.get(token)
        if lease is not None:
            self._obey(lease, message.wanted, message.wish, heard)

    def _goodbye(self, message: Goodbye, heard: Heard) -> None:
        self.closed()
        heard.goodbye = message

    def _obey(self, lease: Held, wanted: Wanted, wish: int, heard: Heard) -> None:
        if wish > lease.wish:
            lease.wanted, lease.wish = wanted, wish
            heard.wishes.append(lease)

    def _count(self, number: int) -> None:
        if number != self.read + 1:
            raise ProtocolError(f"order {number} after order {self.read}")
        self.read = number

    def _show(self, token: Token, wish: int) -> None:
        bits = int.from_bytes(token[:8], "big")
        self._shown[token] = bits
        self._digest ^= bits
        if wish > 0:
            self._wishes[token] = wish


def check_slots(offer: Offer) -> None:
    """Raise ConfigurationError for an offer whose leases a hello could not name, or for none."""
    if not 0 < offer.slots <= SLOTS_MAX:
        raise ConfigurationError(f"slots is {offer.slots}: give 1 to {SLOTS_MAX}")
    if not 0 <= offer.concurrent_slots <= CONCURRENT_SLOTS_MAX:
        raise ConfigurationError(
            f"concurrent_slots is {offer.concurrent_slots}: give 0 to {CONCURRENT_SLOTS_MAX}"
        )


def _pages(outcomes: Sequence[Ended], *, first_room: int) -> list[list[Ended]]:
    """Split outcomes into what one frame each holds; the first page may stay empty."""
    pages: list[list[Ended]] = [[]]
    room = first_room
    for ended in outcomes:
        size = size_of(ended)
        if size > room:
            pages.append([])
            room = HELLO_FRAME_BYTES - 4096
        pages[-1].append(ended)
        room -= size
    return pages
