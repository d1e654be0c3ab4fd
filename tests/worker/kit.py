"""The world of an agent under test: virtual time, channels in memory, a scripted coordinator, a
scripted engine, and disks that outlive an agent."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from holdfast.core.peer import Offer, PeerState
from holdfast.core.wire import Wire
from holdfast.errors import BlobMissingError, ChannelClosedError, HoldfastError
from holdfast.model.ids import Token
from holdfast.model.messages import (
    Answered,
    Assign,
    Ended,
    Frame,
    Goodbye,
    HelloMore,
    LeaseAnswer,
    Message,
    Started,
    StopOrder,
    WorkerHello,
)
from holdfast.model.outcome import Answer, Encoding, OutcomeKind, Payload
from holdfast.model.task import Wanted
from holdfast.observe import Counters, TaskSet, logger
from holdfast.ports import EngineListener, LaneDeath, Order, Spool, WorkerHome
from holdfast.worker.agent import Agent, World
from tests.core.wording import STORE, assign, ended, number_of, stop, task, token, welcome, wish

T = TypeVar("T")


# --- Time --------------------------------------------------------------------------------------


class JumpingSelector(selectors.SelectSelector):
    """Where the loop would wait, time jumps instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("nothing will ever happen any more")
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when there is nothing to do."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class LoopClock:
    """`ports.Clock` that reads the running loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return 0


# --- Channels and the coordinator --------------------------------------------------------------


class End:
    """One end of a channel in memory."""

    def __init__(self) -> None:
        self.other: End = self
        self.inbox: deque[bytes] = deque()
        self.closed = False
        self._news = asyncio.Event()

    @property
    def peer(self) -> str:
        return "memory"

    async def send(self, frame: bytes) -> None:
        if self.closed or self.other.closed:
            raise ChannelClosedError("closed")
        self.other.inbox.append(frame)
        self.other._news.set()

    async def receive(self) -> bytes:
        while not self.inbox or self.closed:
            if self.closed or self.other.closed:
                raise ChannelClosedError("closed")
            self._news.clear()
            await self._news.wait()
        return self.inbox.popleft()

    async def close(self, reason: str = "") -> None:
        self.cut()

    def cut(self) -> None:
        self.closed = True
        self._news.set()
        self.other._news.set()


class Session:
    """The coordinator's end of one session; it checks every view against plain sets."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.wire = Wire(Frame)
        self.epoch = 0
        self.read: deque[Message] = deque()
        self.frames = 0
        self.last: Frame | None = None
        self._orders: list[tuple[bool, bytes]] = []
        self._kept: dict[bytes, None] = {}
        self._ended: dict[bytes, None] = {}

    async def hello(self) -> tuple[WorkerHello, list[Ended]]:
        """Read a hello to its end."""
        first = await self._next()
        assert isinstance(first, WorkerHello)
        outcomes, more = list(first.outcomes), first.more
        while more:
            page = await self._next()
            assert isinstance(page, HelloMore)
            outcomes += page.outcomes
            more = page.more
            await self.end.send(self.wire.write(deque()))
        return first, outcomes

    async def welcome(
        self,
        *answers: LeaseAnswer,
        epoch: int,
        store: tuple[str, int] = STORE,
        lease_seconds: float = 10.0,
    ) -> None:
        self.epoch = epoch
        self._kept = {each.token: None for each in answers if each.answer is Answer.KEEP}
        message = welcome(*answers, epoch=epoch, store=store, lease_seconds=lease_seconds)
        await self.say(message)

    async def say(self, *messages: Message) -> None:
        """Say messages in one frame; orders are noted for the mirror."""
        for message in messages:
            if isinstance(message, Assign | StopOrder):
                self._orders.append((isinstance(message, Assign), message.token))
        await self.end.send(self.wire.write(deque(messages)))

    async def assign(self, *numbers: int, **options: Any) -> None:
        first = len(self._orders) + 1
        options.setdefault("epoch", self.epoch)
        orders = [assign(first + i, number, **options) for i, number in enumerate(numbers)]
        await self.say(*orders)

    async def stop(self, number: int) -> None:
        await self.say(stop(len(self._orders) + 1, number))

    async def wish(self, number: int, wanted: Wanted, count: int) -> None:
        await self.say(wish(number, wanted, count))

    async def settle(self, *numbers: int) -> None:
        await self.say(*(Answered(task(n), token(n), Answer.SETTLED) for n in numbers))

    async def hear(self, kind: type[T]) -> T:
        """Return the next message, which must be of this kind."""
        message = await self._next()
        assert isinstance(message, kind), message
        return message

    async def hear_ended(self, number: int, kind: OutcomeKind = OutcomeKind.SUCCEEDED) -> Ended:
        """Return the next message but for `Started`; it must be this outcome."""
        while isinstance(message := await self._next(), Started):
            pass
        assert isinstance(message, Ended), message
        assert (number_of(message.token), message.kind) == (number, kind)
        return message

    async def frame(self) -> Frame:
        """Read one frame, and check what it says of the leases."""
        frame = self.wire.read(await self.end.receive())
        self.frames += 1
        for message in frame.body:
            if isinstance(message, Ended):
                self._ended[message.token] = None
        if self.epoch:
            assert frame.view is not None
            assert frame.view.epoch == self.epoch
            assert frame.view.digest == self._digest(frame.view.read)
        self.last = frame
        return frame

    async def gone(self) -> None:
        """Read until the worker has closed this session."""
        try:
            while True:
                self.read.extend((await self.frame()).body)
        except ChannelClosedError:
            self.end.cut()

    async def _next(self) -> Message:
        while not self.read:
            self.read.extend((await self.frame()).body)
        return self.read.popleft()

    def _digest(self, read: int) -> int:
        held = set(self._kept)
        for given, each in self._orders[:read]:
            held = held | {each} if given else held - {each}
        digest = 0
        for each in held - set(self._ended):
            digest ^= number_of(each)
        return digest


class Coordinator:
    """A dialer, and the sessions that it opened. `down` refuses to answer."""

    def __init__(self) -> None:
        self.down = False
        self.dials = 0
        self._opened: deque[Session] = deque()
        self._news = asyncio.Event()

    async def dial(self) -> End:
        self.dials += 1
        if self.down:
            raise ChannelClosedError("nobody answers")
        ours, theirs = End(), End()
        ours.other, theirs.other = theirs, ours
        self._opened.append(Session(ours))
        self._news.set()
        return theirs

    async def session(self) -> Session:
        """Return the next session that the worker opens."""
        while not self._opened:
            self._news.clear()
            await self._news.wait()
        return self._opened.popleft()

    async def welcomed(self, *answers: LeaseAnswer, epoch: int = 1, **options: Any) -> Session:
        """Return the next session, welcomed with these answers."""
        session = await self.session()
        await session.hello()
        await session.welcome(*answers, epoch=epoch, **options)
        return session


# --- The engine --------------------------------------------------------------------------------


class Child:
    """One lane: what its child has taken up, and what waits."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.begun: dict[Token, Order] = {}
        self.queue: dict[Token, Order] = {}

    def take_up(self) -> None:
        while self.queue and len(self.begun) < self.at_once:
            first = next(iter(self.queue))
            self.begun[first] = self.queue.pop(first)


class ScriptedEngine:
    """`ports.Engine` whose attempts end when the test says so. `log` tells all that was done."""

    def __init__(self, *, room: int = 1000) -> None:
        self.room = room
        self.log: list[tuple[str, int]] = []
        self.runs: dict[int, int] = {}
        """How often each task was taken up by a child."""
        self.orders: dict[int, Order] = {}
        self.children: list[Child] = []
        self.closed = False
        self.farewell = False
        """Whether the guard was told that this end is an orderly one."""
        self.deaf = False
        """While it is, no child takes anything up."""
        self.spoiled: dict[int, OSError] = {}
        """What handing these raises."""
        self._news = asyncio.Event()

    async def open(self, listener: EngineListener, *, lanes: int) -> None:
        self.listener = listener
        self.children = [Child(1) for _ in range(lanes)] + [Child(1000)]

    def hand(self, lane: int, order: Order) -> bool:
        assert not self.closed
        child = self.children[lane]
        if len(child.queue) >= self.room and child.begun:
            return False
        number = number_of(order.token)
        if number in self.spoiled:
            raise self.spoiled[number]
        child.queue[order.token] = order
        self.orders[number] = order
        self._begin(child)
        self.note("hand", number)
        return True

    def take_back(self, lane: int) -> list[Token]:
        assert not self.closed
        tokens = list(self.children[lane].queue)
        self.children[lane].queue.clear()
        return tokens

    def interrupt(self, lane: int, token: Token) -> None:
        assert not self.closed
        assert token in self.children[lane].begun
        self.note("interrupt", number_of(token))

    def kill(self, lane: int) -> None:
        assert not self.closed
        self.note("kill", lane)
        assert not self.children[lane].queue, "a neighbour would die with it"
        self.die(lane, signal=9, killed=True)

    async def close(self, *, farewell: bool = True) -> None:
        self.closed = True
        self.farewell = farewell
        self.note("close", 0)

    def note(self, verb: str, number: int) -> None:
        self.log.append((verb, number))
        self._news.set()

    async def did(self, verb: str, number: int) -> None:
        """Wait until the agent has asked this of the engine."""
        while (verb, number) not in self.log:
            self._news.clear()
            await self._news.wait()

    def lane_of(self, number: int) -> int:
        return next(i for i, c in enumerate(self.children) if token(number) in c.begun)

    def end(self, *numbers: int, run_us: int = 10, **options: Any) -> None:
        """Let attempts end by themselves."""
        for number in numbers:
            self.report(ended(number, run_us=run_us, **options))

    def report(self, message: Ended, result_path: str = "") -> None:
        lane = self.lane_of(number_of(message.token))
        child = self.children[lane]
        del child.begun[message.token]
        self._begin(child)
        self.listener.attempt_ended(lane, message, result_path)

    def die(self, lane: int, **options: Any) -> None:
        child = self.children[lane]
        begun, untouched = tuple(child.begun), tuple(child.queue)
        child.begun.clear()
        child.queue.clear()
        facts = {"signal": 0, "exit_code": 0, "killed": False, "out_of_memory": False}
        death = LaneDeath(begun, untouched, last_words="last words", **(facts | options))
        self.listener.lane_died(lane, death)

    def fall(self) -> None:
        """Let the children of all lanes die at once."""
        deaths = []
        for lane, child in enumerate(self.children):
            facts = {"signal": 9, "exit_code": 0, "killed": False, "out_of_memory": False}
            death = LaneDeath(tuple(child.begun), tuple(child.queue), last_words="", **facts)
            child.begun.clear()
            child.queue.clear()
            deaths.append((lane, death))
        self.listener.all_died(deaths)

    def _begin(self, child: Child) -> None:
        if self.deaf:
            return
        before = dict(child.begun)
        child.take_up()
        for each in child.begun:
            if each not in before:
                number = number_of(each)
                self.runs[number] = self.runs.get(number, 0) + 1


# --- The rest of the world ---------------------------------------------------------------------


class NotedGuard:
    """`ports.Guard` that notes what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[int, ...]]] = []
        self.sessions: list[tuple[str, int, str]] = []
        self.broken = False

    def _tell(self, verb: str, tokens: Sequence[Token]) -> None:
        if self.broken:
            raise BrokenPipeError("the guard is gone")
        self.told.append((verb, tuple(number_of(each) for each in tokens)))

    def started(self, tokens: Sequence[Token]) -> None:
        self._tell("started", tokens)

    def spooled(self, tokens: Sequence[Token]) -> None:
        self._tell("spooled", tokens)

    def done(self, tokens: Sequence[Token]) -> None:
        self._tell("done", tokens)

    def session(self, *, url: str, identity: str, incarnation: int, last_word: str) -> None:
        self.sessions.append((url, incarnation, last_word))

    def named(self, verb: str) -> list[int]:
        return [number for said, numbers in self.told if said == verb for number in numbers]


class MemorySpool:
    """`ports.Spool` that outlives an agent."""

    def __init__(self) -> None:
        self.kept: dict[Token, Ended] = {}
        self.saves = 0
        self.failures = 0
        """How many of the next saves fail."""
        self.forget_failures = 0
        self.broken: Exception | None = None
        self.gate: asyncio.Event | None = None
        """A save takes until it is set."""
        self.saving = asyncio.Event()
        """A save has begun."""
        self._news = asyncio.Event()

    def load(self) -> list[Ended]:
        return list(self.kept.values())

    async def save(self, outcomes: Sequence[Ended]) -> None:
        self.saving.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        if self.failures:
            self.failures -= 1
            raise HoldfastError("no disk")
        self.saves += 1
        self.kept.update((each.token, each) for each in outcomes)
        self._news.set()

    async def forget(self, tokens: Sequence[Token]) -> None:
        if self.forget_failures:
            self.forget_failures -= 1
            raise HoldfastError("no disk")
        for each in tokens:
            self.kept.pop(each, None)
        self._news.set()

    async def holds(self, count: int) -> None:
        """Wait until so many outcomes are spooled."""
        while len(self.kept) != count:
            self._news.clear()
            await self._news.wait()


class MemoryHome:
    """`ports.WorkerHome` that outlives an agent."""

    def __init__(self) -> None:
        self.identity = "the-same"
        self.incarnation = 0
        self.remembered = ("", 0)

    @property
    def path(self) -> Path:
        return Path("home")

    def next_incarnation(self) -> int:
        self.incarnation += 1
        return self.incarnation

    def store(self) -> tuple[str, int]:
        return self.remembered

    def remember_store(self, store: str, timeline: int) -> None:
        self.remembered = (store, timeline)


class MemoryFiles:
    """`Transfers` and `Shelf` over dictionaries: local files, shelf, and the blob store."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.blobs: dict[bytes, bytes] = {}
        self.shelf: dict[bytes, bytes] = {}
        self.failures: list[Exception] = []
        """What the next fetches and stores raise; the shelf does not fail."""
        self.kept = 0
        self.gate: asyncio.Event | None = None
        self.sessions: list[str] = []

    def session(self, url: str) -> None:
        self.sessions.append(url)

    async def fetch(self, digest: bytes, path: str) -> None:
        await self._pass()
        if digest not in self.blobs:
            raise BlobMissingError("no such blob")
        self.files[path] = self.blobs[digest]

    async def store(self, path: str, encoding: Encoding) -> Payload:
        await self._pass()
        data = self.shelf[path.encode()] if path.encode() in self.shelf else self.files[path]
        self.blobs[data] = data
        return Payload(encoding, digest=data, size_bytes=len(data))

    def discard(self, path: str) -> None:
        self.files.pop(path, None)
        self.shelf.pop(path.encode(), None)

    async def keep(self, path: str, encoding: Encoding) -> Payload:
        if self.gate is not None:
            await self.gate.wait()
        data = self.files.pop(path)
        self.shelf[data] = data
        self.kept += 1
        return Payload(encoding, digest=data, size_bytes=len(data))

    def path_of(self, digest: bytes) -> str:
        return digest.decode() if digest in self.shelf else ""

    async def _pass(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)


class Stage:
    """One worker's world, and the agents that live in it one after another."""

    def __init__(
        self, *, home: WorkerHome | None = None, spool: Spool | None = None, **offer: Any
    ) -> None:
        self.offer = Offer("w", **({"slots": 2, "concurrent_slots": 4} | offer))
        self.coordinator = Coordinator()
        self.engine = ScriptedEngine()
        self.guard = NotedGuard()
        self.spool = MemorySpool()
        self.home = MemoryHome()
        self._real_spool = spool
        self._real_home = home
        self.files = MemoryFiles()
        self.counters = Counters()
        self.printed: list[tuple[int, bool, bytes]] = []
        self._tasks = TaskSet(logger("test"))

    def start(self) -> asyncio.Task[None]:
        """Start an agent with a fresh engine; cancelling its task is its sudden death."""
        self.engine = ScriptedEngine(room=self.engine.room)
        world = World(
            dialers={"memory": self.coordinator},
            engine=self.engine,
            guard=self.guard,
            spool=self._real_spool or self.spool,
            shelf=self.files,
            transfers=self.files,
            home=self._real_home or self.home,
            clock=LoopClock(),
            rng=random.Random(7),
            printed=lambda lane, error, data: self.printed.append((lane, error, data)),
        )
        self.agent = Agent(self.offer, world, counters=self.counters)
        return self._tasks.watched("agent", self.agent.run())

    async def welcomed(self, *answers: LeaseAnswer, epoch: int = 1, **options: Any) -> Session:
        """Return the next session, welcomed with these answers."""
        return await self.coordinator.welcomed(*answers, epoch=epoch, **options)

    async def cut_off(self) -> None:
        """Wait until the agent has noticed that its session is over."""
        for _ in range(1000):
            if self.agent.session is not PeerState.WELCOMED:
                return
            await asyncio.sleep(0.001)
        raise AssertionError("the agent still believes in its session")

    async def end(self) -> None:
        """End whatever agent still runs, suddenly."""
        await self._tasks.cancel()


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]], **offer: Any) -> None:
    """Play a scene in virtual time, with one agent that has been started."""

    async def main() -> None:
        stage = Stage(**offer)
        try:
            async with asyncio.timeout(3600):
                await scene(stage)
        finally:
            await stage.end()

    run_virtually(main())


async def begin(stage: Stage) -> Session:
    """Start an agent and return its first session."""
    stage.start()
    return await stage.welcomed()


async def learn(stage: Stage, session: Session) -> None:
    """Let the agent know that the function is short."""
    await session.assign(900)
    await stage.engine.did("hand", 900)
    stage.engine.end(900)
    await session.hear_ended(900)
    await session.settle(900)


async def two_in_a_lane(stage: Stage) -> Session:
    """Start an agent with one order that runs in a lane, and one behind it; return its session."""
    session = await begin(stage)
    await learn(stage, session)
    await session.assign(1, 2)
    await stage.engine.did("hand", 2)
    return session


async def cut(stage: Stage, session: Session) -> None:
    """Take the coordinator away, and wait until the agent has noticed."""
    stage.coordinator.down = True
    session.end.cut()
    await stage.cut_off()


def goodbye_of(session: Session) -> Goodbye | None:
    """Return the goodbye among what was read of a session."""
    return next((each for each in session.read if isinstance(each, Goodbye)), None)
