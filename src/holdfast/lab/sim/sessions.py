"""The sockets of each worker: which one is the newest, what was said on it, and why it ended.

Owns what the judge has to know of sessions to tell a write that counts from one that came too
late, and a session that broke from one that was broken off for nothing. It hears what the
coordinator reads and which hellos are committed, and judges nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.lab.sim.loop import Party
from holdfast.lab.sim.misfortunes import COORDINATOR
from holdfast.lab.sim.network import End
from holdfast.model.messages import Ended, HelloMore, Message, Started, WorkerHello
from holdfast.model.task import Phase
from holdfast.ports import WorkerRow

AFTERMATH_SECONDS = 25.0
"""How long after its repair a fault may still end a session, beside a lease: a handshake, a dial
and the longest pause between dials can follow one another."""

Pair = tuple[int, int]
"""Incarnation of a worker, and the number of its hello."""


class Sessions:
    """What one run's workers said, socket by socket."""

    def __init__(self, *, lease_seconds: float, now: Callable[[], float]) -> None:
        self._aftermath_seconds = lease_seconds + AFTERMATH_SECONDS
        self._now = now
        self._newest: dict[str, tuple[Pair, End]] = {}
        """Worker → the highest pair that the present coordinator has read, and its socket."""
        self._hellos: dict[tuple[str, Pair], WorkerHello] = {}
        self._committed: dict[str, tuple[Pair, float]] = {}
        """Worker → the pair that was committed last, and when."""
        self._welcome: dict[str, End] = {}
        """Worker → the socket on which it was welcomed last."""
        self._troubled_until: dict[str, float] = {}
        self.ended: dict[bytes, None] = {}
        """Tokens whose outcome was said on a socket that was the newest then."""
        self.begun: dict[bytes, None] = {}
        """Tokens that were named on such a socket as started."""
        self.named: dict[bytes, None] = {}
        """Tokens that were named on such a socket at all."""

    # What happens.

    def coordinator_started(self) -> None:
        """What the former coordinator had read and not committed, the new one does not know."""
        self._newest.clear()

    def read(self, end: End, body: Sequence[Message]) -> None:
        """The coordinator has read a whole frame of a worker."""
        for message in body:
            if isinstance(message, WorkerHello):
                self._read_hello(end, message)
        if not self.is_newest(end):
            return
        for message in body:
            if isinstance(message, Ended):
                self.ended[message.token] = None
            elif isinstance(message, Started):
                self.begun[message.token] = self.named[message.token] = None
            elif isinstance(message, HelloMore | WorkerHello):
                self.ended.update((outcome.token, None) for outcome in message.outcomes)

    def _read_hello(self, end: End, hello: WorkerHello) -> None:
        pair = (hello.incarnation, hello.number)
        self._hellos[hello.identity, pair] = hello
        newest = self._newest.get(hello.identity)
        if newest is not None and newest[0] >= pair:
            return
        self._newest[hello.identity] = (pair, end)
        for held in hello.held:
            self.named[held.token] = None
            if held.phase is Phase.STARTED:
                self.begun[held.token] = None

    def welcome_read(self, end: End) -> None:
        """A worker has read its welcome."""
        self._welcome[end.party.name] = end

    def disturbed(self, target: str, *, for_seconds: float) -> None:
        """A fault meets somebody, for so long."""
        until = self._now() + for_seconds + self._aftermath_seconds
        self._troubled_until[target] = max(until, self._troubled_until.get(target, 0.0))

    # What is told of it.

    def is_welcome(self, party: Party) -> bool:
        """Whether a worker's process has been welcomed on a socket that it has not closed."""
        end = self._welcome.get(party.name)
        return end is not None and end.party is party and not end.closed

    def welcome_of(self, worker: str) -> End | None:
        """Return the socket on which a worker was welcomed last."""
        return self._welcome.get(worker)

    def unread(self, worker: str, incarnation: int) -> int:
        """Return how much of the session of one life the coordinator can still read.

        A hello that is read, and not decided, comes after what was told of a death before it.
        """
        pair, end = self._newest.get(worker, ((0, 0), None))
        committed, _ = self._committed.get(worker, ((0, 0), 0.0))
        theirs = end is not None and pair == committed and pair[0] == incarnation
        return end.unread if end is not None and theirs else 0

    def is_newest(self, end: End) -> bool:
        """Whether no later hello of this worker was read than that of this socket."""
        _, newest = self._newest.get(end.other.party.name, (None, None))
        return newest is end

    def hello_of(self, row: WorkerRow) -> WorkerHello | None:
        """Return the hello that a committed row of a worker stands for."""
        return self._hellos.get((row.identity, (row.incarnation, row.number)))

    def welcomed(self, row: WorkerRow) -> str:
        """A hello is committed. Return what is wrong with it, "" where nothing is."""
        pair, now = (row.incarnation, row.number), self._now()
        former, since = self._committed.get(row.identity, ((0, 0), 0.0))
        self._committed[row.identity] = (pair, now)
        if pair <= former:
            return f"{row.identity} was welcomed by hello {pair}, after {former}"
        troubled_until = max(
            self._troubled_until.get(name, 0.0) for name in (row.identity, COORDINATOR)
        )
        if row.incarnation == former[0] and troubled_until < since:
            return f"{row.identity} says hello again, and nothing had gone wrong"
        return ""
