"""Simulated sockets between hosts: frames in order, with delay, until something breaks them.

Owns every connection, what is in flight on it, and the faults of the way: cut, silence in one
direction or both, delay, corruption, and the frame that comes when its sender has long said hello
again. What a process sent before it died is in the kernel's hands and may still arrive. Frames are
looked into only to name them for crash points, for ambushes and for the judge.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.errors import ChannelClosedError
from holdfast.lab.sim.coverage import AFTER, BEFORE, CrashPoints
from holdfast.lab.sim.frames import bodies, kinds_of
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.model.messages import Message

FRAMES_MAX = 64
"""What one direction holds between a sender and the reader; then the sender waits."""
DELAY_SECONDS = (0.0001, 0.002)
DIAL_SECONDS = (0.0005, 0.003)
NOTICE_SECONDS_MAX = 0.3
"""How much later one end may learn of a cut than the other."""
HELLO = "WorkerHello"
OVERTAKEN_SECONDS = (0.001, 0.003, 0.5)
"""How much later than the hello that overtook it a frame arrives that was held up, at most."""
REST_SECONDS = 1.0
"""How much later than the first frame the rest arrives of what was held up, its end as well."""


class Listener(Protocol):
    """Who watches the sockets: told of each frame as it is sent, and as it is read."""

    def sent(self, by: Party, to: str, body: Sequence[Message]) -> None: ...

    def read(self, end: End, body: Sequence[Message]) -> None: ...


class Way:
    """One direction of a connection."""

    __slots__ = (
        "closing",
        "corrupt",
        "flying",
        "gap",
        "held",
        "last_arrival",
        "late",
        "lost",
        "silent",
        "to",
        "vanishing",
    )

    def __init__(self, to: End) -> None:
        self.to = to
        self.flying = 0
        self.held: deque[tuple[bytes | None, bool]] = deque()
        self.silent = False
        self.late = False
        """Whether what is sent on it arrives only after a later hello of the same host."""
        self.lost = False
        self.closing = False
        self.corrupt = 0
        self.vanishing = False
        """Whether the next frame is lost, and those after it are not."""
        self.gap = False
        """Whether one was: what comes after it counts as nothing heard."""
        self.last_arrival = 0.0


class End:
    """One end of a connection: `ports.Channel` of the party that holds it."""

    __slots__ = ("_inbox", "_net", "_reader", "_room", "closed", "gone", "other", "party", "peer")

    def __init__(self, net: Network, party: Party, peer: str) -> None:
        self._net = net
        self._inbox: deque[tuple[bytes, bool]] = deque()
        """Frames that have come, and whether each is whole: unaltered, and none missing before."""
        self._reader: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self.party = party
        self.peer = peer
        self.closed = False
        self.gone = ""
        """Why nothing more will come."""
        self.other: End = self

    async def send(self, frame: bytes) -> None:
        """Send one frame; waits while the peer is behind. Raises ChannelClosedError."""
        net = self._net
        self.party.alive()
        way = net.way_to(self.other)
        while way.flying + len(self.other._inbox) >= FRAMES_MAX and not self.gone:
            room = net.loop.create_future()
            self._room.append(room)
            await room
            self.party.alive()
        if self.gone or self.closed:
            raise ChannelClosedError(self.gone or "closed here")
        body = net.named(frame, self)
        kinds = kinds_of(body)
        net.points.touch(self.party, kinds, BEFORE)
        net.listener.sent(self.party, self.other.party.name, body)
        net.spring(self, kinds)
        net.launch(way, frame)
        if HELLO in kinds:
            net.overtake(self, way)
        net.points.touch(self.party, kinds, AFTER)

    async def receive(self) -> bytes:
        """Return the next frame. Raises ChannelClosedError."""
        while True:
            self.party.alive()
            if self.closed:
                raise ChannelClosedError("closed here")
            if self._inbox:
                break
            if self.gone:
                raise ChannelClosedError(self.gone)
            self._reader = self._net.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        frame, whole = self._inbox.popleft()
        self.other.wake_senders()
        if whole:
            self._net.listener.read(self, self._net.named(frame, self.other))
        return frame

    async def close(self, reason: str = "") -> None:
        """Close this end; the peer reads what is in flight, then the end."""
        self.party.alive()
        self.shut()

    @property
    def unread(self) -> int:
        """How many frames, or ends of the stream, can still be read at this end."""
        return 0 if self.closed else self._net.way_to(self).flying + len(self._inbox)

    def shut(self) -> None:
        """Close this end as a kernel does for a process, in order."""
        if not self.closed:
            self.closed = True
            self._net.launch(self._net.way_to(self.other), None)
            self.wake()
            self._net.forget(self)

    def arrive(self, frame: bytes | None, *, whole: bool) -> None:
        """A frame, or the end of the stream, has come; `whole`: nothing is altered or missing."""
        if frame is None:
            self.gone = self.gone or "closed by the peer"
        elif not self.closed:
            self._inbox.append((frame, whole))
        self.wake()

    def fail(self, why: str) -> None:
        """The connection is known to be broken here."""
        self.gone = self.gone or why
        self.wake()

    def wake(self) -> None:
        """Let whoever waits at this end look again."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        self.wake_senders()

    def wake_senders(self) -> None:
        """Let senders at this end look for room."""
        rooms, self._room = self._room, []
        for room in rooms:
            if not room.done():
                room.set_result(None)


class Network:
    """All connections of one run. One party listens; all others dial it by the name of its host."""

    def __init__(
        self, loop: SimLoop, rng: random.Random, points: CrashPoints, listener: Listener
    ) -> None:
        self.loop = loop
        self.points = points
        self.listener = listener
        self._rng = rng
        self._ways: dict[End, Way] = {}
        self._serving: Party | None = None
        self._accept: Callable[[End], None] | None = None
        self.slow_until: dict[str, tuple[float, float]] = {}
        """Host → until when, and how many seconds, its frames take longer."""
        self._traps: dict[str, list[tuple[str, Callable[[End], None]]]] = {}
        self.refused: dict[str, bool] = {}
        """Hosts whose dials come to nothing now → whether they hang rather than fail at once."""
        self.outward: dict[str, bool] = {}
        self.inward: dict[str, bool] = {}
        """Hosts from which, and to which, nothing arrives now."""

    # The listening side.

    def listen(self, party: Party, accept: Callable[[End], None]) -> None:
        """Let a party serve: `accept` gets the far end of each dial, as that party."""
        self._serving, self._accept = party, accept

    def drop(self, party: Party) -> None:
        """Close what a dead party held; what it had sent may be lost on the way."""
        if self._serving is party:
            self._serving = self._accept = None
        for end in self.ends_of(party.name):
            if end.party is party:
                if self._rng.random() < 0.5 and not self.way_to(end.other).late:
                    self._lose(self.way_to(end.other))
                    end.other.fail("reset: the peer's process died")
                end.shut()

    async def dial(self, party: Party) -> End:
        """Open a connection to whoever listens. Raises ChannelClosedError."""
        party.alive()
        await asyncio.sleep(self._rng.uniform(*DIAL_SECONDS))
        party.alive()
        if self.refused.get(party.name):
            await self.loop.create_future()
        serving = self._serving
        if serving is None or serving.dead or party.name in self.refused:
            raise ChannelClosedError("nobody answers")
        near, far = End(self, party, serving.name), End(self, serving, party.name)
        near.other, far.other = far, near
        for end, host in ((near, far), (far, near)):
            way = self._ways[end] = Way(end)
            way.silent = host.party.name in self.outward or end.party.name in self.inward
        opened = self.loop.create_future()
        self.loop.call_soon(self._open, far, opened, context=serving.context)
        try:
            await opened
        except BaseException:
            near.shut()
            raise
        return near

    def _open(self, far: End, opened: asyncio.Future[None]) -> None:
        if self._accept is not None and not opened.done():
            self._accept(far)
            opened.set_result(None)

    # Frames on their way.

    def way_to(self, end: End) -> Way:
        """Return the direction that leads to an end."""
        return self._ways.get(end) or Way(end)

    def forget(self, end: End) -> None:
        """Drop a connection of which both ends are closed."""
        if end.closed and end.other.closed:
            self._ways.pop(end, None)
            self._ways.pop(end.other, None)

    def named(self, frame: bytes, end: End) -> Sequence[Message]:
        """Return the messages of a frame that is being sent."""
        return bodies(end.party.role, end.other.party.role, frame)

    def launch(self, way: Way, frame: bytes | None) -> None:
        """Put a frame, or the end of the stream, on its way."""
        if way.closing or way.lost:
            return
        if way.vanishing and frame is not None:
            way.vanishing, way.gap = False, True
            return
        way.closing = frame is None
        now = self.loop.time()
        delay = self._rng.uniform(*DELAY_SECONDS) + self._slowness(way, now)
        way.last_arrival = max(way.last_arrival, now + delay)
        whole = not way.gap
        if way.corrupt and frame:
            way.corrupt -= 1
            frame, whole = self._corrupted(frame), False
        way.flying += 1
        when = way.last_arrival
        self.loop.call_at(when, self._land, way, frame, whole, context=self.loop.world)

    def _land(self, way: Way, frame: bytes | None, whole: bool) -> None:
        if way.lost:
            return
        if way.silent or way.late or way.held:
            way.held.append((frame, whole))
            return
        way.flying -= 1
        way.to.arrive(frame, whole=whole)

    def _slowness(self, way: Way, now: float) -> float:
        slow = 0.0
        for name in (way.to.party.name, way.to.other.party.name):
            until, seconds = self.slow_until.get(name, (0.0, 0.0))
            if now < until:
                slow += self._rng.random() * seconds
        return slow

    def _corrupted(self, frame: bytes) -> bytes:
        """Flip bits in the head of a frame.

        A frame carries no checksum of its own: what is altered in its body is the transport's to
        notice, so that only the head shows what the product does about it.
        """
        place = self._rng.randrange(2)
        flipped = frame[place] ^ (1 << self._rng.randrange(8))
        return frame[:place] + bytes([flipped]) + frame[place + 1 :]

    # Faults.

    def trap(self, name: str, kind: str, spring: Callable[[End], None]) -> None:
        """Have `spring` called when a host is about to send a frame of this kind."""
        self._traps.setdefault(name, []).append((kind, spring))

    def spring(self, end: End, kinds: Sequence[str]) -> None:
        """A frame is about to be sent: let what waits for it happen."""
        traps = self._traps.get(end.party.name, [])
        for trap in traps:
            if trap[0] in kinds:
                traps.remove(trap)
                trap[1](end)
                return

    def hold_up(self, end: End) -> None:
        """Let all that is sent from here on arrive only after a later hello of the same host."""
        self.way_to(end.other).late = True

    def let_go(self, end: End) -> None:
        """Let the first of what is held up on a connection arrive now, and the rest soon."""
        way = self.way_to(end.other)
        if way.held and not way.silent:
            self._deliver(way)
        self.loop.later(REST_SECONDS, self._arrive_late, way)

    def lose(self, end: End) -> None:
        """Lose what is on its way from one end; the other one sees a reset."""
        self._lose(self.way_to(end.other))
        end.other.fail("reset: the peer's process died")

    def swallow(self, end: End) -> None:
        """Let the next frame vanish that is sent at this end, and no other."""
        self.way_to(end.other).vanishing = True

    def break_off(self, end: End) -> None:
        """Break a connection for one end; what that end has sent still arrives."""
        self._lose(self.way_to(end))
        end.fail("reset")
        self.launch(self.way_to(end.other), None)

    def calm(self) -> None:
        """Let nothing be late any more, and nobody be waited for."""
        self._traps.clear()
        self.slow_until.clear()
        for way in list(self._ways.values()):
            self._arrive_late(way)

    def overtake(self, hello: End, by: Way) -> None:
        """A hello is on its way: what was held up on older sockets arrives soon after it."""
        for end in self.ends_of(hello.party.name):
            way = self.way_to(end.other)
            if way.late and way is not by:
                after = self._rng.random() * self._rng.choice(OVERTAKEN_SECONDS)
                when = max(by.last_arrival, self.loop.time()) + after
                self.loop.call_at(when, self._arrive_late, way, context=self.loop.world)

    def _arrive_late(self, way: Way) -> None:
        way.late = False
        self._flush(way)

    def is_clear(self, end: End) -> bool:
        """Return whether nothing is in the way of a connection, in either direction."""
        if end.closed or end.gone or end.other.closed or end.other.gone:
            return False
        ways = (self.way_to(end), self.way_to(end.other))
        slow = any(
            self.slow_until.get(each.party.name, (0.0, 0.0))[0] > self.loop.time()
            for each in (end, end.other)
        )
        return not slow and not any(
            way.silent or way.late or way.lost or way.gap or way.vanishing or way.corrupt
            for way in ways
        )

    def ends_of(self, name: str) -> list[End]:
        """Return the ends that processes of a host hold, in the order of their dialling."""
        return [end for end in self._ways if end.party.name == name]

    def cut(self, name: str) -> int:
        """Cut all connections of a host; return how many. Frames in flight are lost."""
        ends = self.ends_of(name)
        for end in ends:
            self._cut(end)
        return len(ends)

    def corrupt(self, name: str, *, inward: bool) -> int:
        """Corrupt the next frame of each connection of a host; return of how many."""
        ends = self.ends_of(name)
        for end in ends:
            self.way_to(end if inward else end.other).corrupt = 1
        return len(ends)

    def silence(self, name: str, *, outward: bool, inward: bool, hanging: bool) -> None:
        """Let nothing arrive from a host, or to it, until `restore`; its dials come to nothing."""
        self.refused[name] = hanging
        if outward:
            self.outward[name] = True
        if inward:
            self.inward[name] = True
        self._reckon(name)

    def restore(self, name: str, *, cut: bool) -> None:
        """Heal a host's way: what was held back arrives now, or its connections are cut."""
        for table in (self.refused, self.outward, self.inward):
            table.pop(name, None)
        if cut:
            self.cut(name)
        self._reckon(name)

    def _reckon(self, name: str) -> None:
        for end in self.ends_of(name):
            for way in (self.way_to(end), self.way_to(end.other)):
                there, here = way.to.other.party.name, way.to.party.name
                way.silent = there in self.outward or here in self.inward
                self._flush(way)

    def _flush(self, way: Way) -> None:
        while way.held and not way.silent and not way.late:
            self._deliver(way)

    def _deliver(self, way: Way) -> None:
        frame, whole = way.held.popleft()
        way.flying -= 1
        way.to.arrive(frame, whole=whole)

    def _cut(self, end: End) -> None:
        for each in (end, end.other):
            self._lose(self.way_to(each))
            late = self._rng.random() * NOTICE_SECONDS_MAX if self._rng.random() < 0.5 else 0.0
            self.loop.later(late, each.fail, "reset")

    def _lose(self, way: Way) -> None:
        way.lost = True
        way.held.clear()
        way.flying = 0


class SimDialer:
    """`ports.Dialer` of one party."""

    __slots__ = ("_net", "_party")

    def __init__(self, net: Network, party: Party) -> None:
        self._net = net
        self._party = party

    async def dial(self) -> End:
        """Raises ChannelClosedError where nobody answers."""
        return await self._net.dial(self._party)
