"""A coordinator on a stage: the real store in memory, a clock that is set, scripted peers.

The peers speak frames of `core.wire` and do only what a test tells them. Nothing here sleeps: a
test waits for messages, within a bound.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from holdfast.coordinator.asking import Questions
from holdfast.coordinator.facts import Tick
from holdfast.coordinator.gateway import Gateway
from holdfast.coordinator.service import Coordinator
from holdfast.core import invariants
from holdfast.core.session import token_digest
from holdfast.core.wire import Wire
from holdfast.errors import ChannelClosedError
from holdfast.model.ids import IdMint, TaskId, Token
from holdfast.model.messages import (
    PROTOCOL,
    Accepted,
    Answered,
    Ask,
    Assign,
    ClientFrame,
    ClientHello,
    ClientWelcome,
    Ended,
    HeldLease,
    LeaseAnswer,
    Message,
    Reply,
    Settled,
    SetWanted,
    Started,
    StopOrder,
    Submit,
    View,
    WorkerFrame,
    WorkerHello,
    WorkerWelcome,
)
from holdfast.model.outcome import Encoding, Failure, OutcomeKind, Payload
from holdfast.model.task import Phase, Spec, Task, Wanted
from holdfast.observe import Counters, TaskSet, logger
from holdfast.ports import Attempt, Changes, Event, Receipt
from holdfast.stores.connections import memory_disk
from holdfast.stores.reader import SQLiteReader
from holdfast.stores.sqlite import SQLiteStore
from holdfast.transports.loopback import LoopbackChannel, pair
from tests.core import wording

WAIT_SECONDS = 5.0
PLAY_SECONDS = 30.0
M = TypeVar("M", bound=Message)
DONE = Payload(Encoding.JSON, b"null")


class StageClock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.ms = 1_800_000_000_000

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return self.ms

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.ms += int(seconds * 1000)


class StageRoom:
    """A disk whose room a test sets."""

    def __init__(self) -> None:
        self.is_short = False
        self.free_bytes = 1 << 30
        self.released = 0
        self.restored = 0

    def short(self, size_bytes: int = 0) -> bool:
        return self.is_short or size_bytes > self.free_bytes

    def needed_bytes(self) -> int:
        return 5 << 19

    def release(self) -> None:
        self.released += 1

    def restore(self) -> None:
        self.restored += 1


class FaultyStore:
    """A store that fails as told, before or after its commit, and that keeps what it was given.

    Every change that it passes on is held against the invariants of the core.
    """

    def __init__(self, inner: SQLiteStore) -> None:
        self.inner = inner
        self.before: deque[Exception] = deque()
        self.after: deque[Exception] = deque()
        self.reads: deque[Exception] = deque()
        self.poison: Callable[[Changes], Exception | None] = lambda changes: None
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()
        """Set when a commit waits at the gate."""
        self.commits: list[Changes] = []
        self.asked_last_turn = 0
        self.code_asked: list[list[bytes]] = []
        """Digests of functions that the store was asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, changes: Changes) -> Receipt:
        if self.gate is not None:
            self.reached.set()
            await self.gate.wait()
        error = self.before.popleft() if self.before else self.poison(changes)
        if error is not None:
            raise error
        await self._check(changes)
        receipt = await self.inner.commit(changes)
        self.commits.append(changes)
        if self.after:
            raise self.after.popleft()
        return receipt

    async def load(self, tasks: list[TaskId]) -> list[Task]:
        if self.reads:
            raise self.reads.popleft()
        return await self.inner.load(tasks)

    async def kept_code(self, digests: list[bytes]) -> list[bytes]:
        self.code_asked.append(digests)
        return await self.inner.kept_code(digests)

    async def last_turn(self) -> int:
        self.asked_last_turn += 1
        return await self.inner.last_turn()

    async def _check(self, changes: Changes) -> None:
        rows = await self.inner.load([update.task.spec.id for update in changes.updates])
        lives = {row.spec.id: row.life for row in rows}
        for task in (*changes.inserts, *(update.task for update in changes.updates)):
            assert invariants.of_life(task.life) == []
        for update in changes.updates:
            before = lives[update.task.spec.id]
            if before.version == update.version:
                assert invariants.of_change(before, update.task.life) == []


class Peer:
    """One scripted end of a session."""

    def __init__(self, channel: LoopbackChannel, wire: Wire[Any]) -> None:
        self.channel = channel
        self.wire = wire
        self.unread: deque[Message] = deque()

    async def send(self, *messages: Message, view: View | None = None) -> None:
        """Write one frame, once the window has room for it."""
        while messages and not self.wire.writable:
            await self.read()
        out = deque(messages)
        await self.channel.send(self.wire.write(out, view))
        assert not out, "too much for one frame"

    async def read(self) -> tuple[Message, ...]:
        """Read one frame, within the bound."""
        async with asyncio.timeout(WAIT_SECONDS):
            frame = self.wire.read(await self.channel.receive())
        for message in frame.body:
            self.take_in(message)
        self.unread.extend(frame.body)
        return tuple(frame.body)

    def take_in(self, message: Message) -> None:
        """Note what a message does to this peer."""

    async def next(self, kind: type[M], where: Callable[[M], bool] = lambda message: True) -> M:
        """Return the first message of a kind that was not returned before."""
        while True:
            for message in self.unread:
                if isinstance(message, kind) and where(message):
                    self.unread.remove(message)
                    return message
            await self.read()

    async def hears(self) -> list[Message]:
        """Return all that has come up to now."""
        for _ in range(100):
            await asyncio.sleep(0)
            while self.channel._frames:
                await self.read()
        heard = list(self.unread)
        self.unread.clear()
        return heard

    async def until_closed(self) -> None:
        """Wait until the coordinator has closed the socket."""
        try:
            while True:
                await self.read()
        except ChannelClosedError:
            return

    async def leave(self) -> None:
        """Close the socket."""
        await self.channel.close()


class Worker(Peer):
    """A scripted worker: it names what it was assigned and has not ended."""

    def __init__(self, channel: LoopbackChannel) -> None:
        super().__init__(channel, Wire(WorkerFrame))
        self.epoch = 0
        self.order = 0
        self.held: dict[Token, TaskId] = {}
        self.wishes: dict[Token, int] = {}
        self.strangers = (0, 0)
        """How many attempts of another store go on here, plain and concurrent."""
        self.welcome: WorkerWelcome | None = None

    def take_in(self, message: Message) -> None:
        if isinstance(message, Assign):
            self.order = message.number
            self.held[message.token] = message.task
        elif isinstance(message, StopOrder):
            self.order = message.number
            self.held.pop(message.token, None)

    def view(self) -> View:
        digest = 0
        for token in self.held:
            digest ^= token_digest(token)
        return View(self.epoch, self.order, digest, tuple(self.wishes.items()), *self.strangers)

    async def say(self, *messages: Message) -> None:
        """Write one frame with the view that belongs to it."""
        for message in messages:
            if isinstance(message, Ended):
                self.held.pop(message.token, None)
                self.wishes.pop(message.token, None)
        await self.send(*messages, view=self.view())

    async def assigned(self) -> Assign:
        return await self.next(Assign)

    async def start(self, order: Assign) -> None:
        await self.say(Started(order.task, order.token))

    async def end(
        self,
        order: Assign,
        kind: OutcomeKind = OutcomeKind.SUCCEEDED,
        *,
        result: Payload | None = None,
        run_us: int = 10,
    ) -> None:
        """Say how an attempt ended, without waiting for the answer."""
        await self.say(ended(order, kind, result=result, run_us=run_us))

    async def settle(self, order: Assign, kind: OutcomeKind = OutcomeKind.SUCCEEDED) -> Answered:
        """Say how an attempt ended, and return the answer."""
        await self.end(order, kind)
        return await self.next(Answered, lambda answered: answered.token == order.token)


def ended(
    order: Assign,
    kind: OutcomeKind = OutcomeKind.SUCCEEDED,
    *,
    result: Payload | None = None,
    run_us: int = 10,
) -> Ended:
    """Return the outcome of an order."""
    if kind is OutcomeKind.SUCCEEDED:
        return Ended(order.task, order.token, kind, result or DONE, None, run_us)
    failure = Failure(("builtins.ValueError",), "it did not work")
    return Ended(order.task, order.token, kind, None, failure, run_us)


def held(order: Assign, phase: Phase = Phase.ASSIGNED) -> HeldLease:
    """Return how a hello names a lease."""
    return HeldLease(order.task, order.token, phase, 0)


class Client(Peer):
    """A scripted submitter."""

    def __init__(self, channel: LoopbackChannel) -> None:
        super().__init__(channel, Wire(ClientFrame))
        self._ref = 0

    async def submit(self, *specs: Spec, again: bool = False) -> None:
        """Submit, without waiting for the answer."""
        await self.send(Submit(specs, again))

    async def keep(self, *specs: Spec) -> Accepted:
        """Submit, and wait until all is kept."""
        await self.submit(*specs)
        return await self.next(Accepted)

    async def settled(self, task: TaskId) -> Settled:
        return await self.next(Settled, lambda message: message.task == task)

    async def want(self, task: TaskId, wanted: Wanted) -> Reply:
        self._ref += 1
        await self.send(SetWanted(self._ref, task, wanted))
        return await self.next(Reply, lambda reply: reply.ref == self._ref)

    async def ask(self, question: str, **parameters: object) -> Reply:
        self._ref += 1
        await self.send(Ask(self._ref, question, parameters))
        return await self.next(Reply, lambda reply: reply.ref == self._ref)


class Stage:
    """One coordinator after another over one disk, and the peers in front of it."""

    def __init__(self, *, lease_seconds: float = 10.0) -> None:
        self.lease_seconds = lease_seconds
        self.clock = StageClock()
        self.room = StageRoom()
        self.disk = memory_disk()
        self.rng = random.Random(7)
        self._mint = IdMint(self.rng)
        self._numbers: dict[str, int] = {}
        self._open()

    def _open(self) -> None:
        self.store = FaultyStore(SQLiteStore(self.disk, inline=True))
        self.reader = SQLiteReader(self.disk, inline=True)
        self.counters = Counters()
        self.coordinator = Coordinator(
            store=self.store,
            clock=self.clock,
            rng=self.rng,
            lease_seconds=self.lease_seconds,
            beat_seconds=1.0,
            room=self.room,
            counters=self.counters,
        )
        questions = Questions(self.coordinator, self.reader)
        self.gateway = Gateway(
            self.coordinator, questions, python="3.11", version="0", mark="our mark"
        )
        self._tasks = TaskSet(logger("stage"))
        self.running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Stage:
        self.raise_curtain()
        async with asyncio.timeout(WAIT_SECONDS):
            await self.coordinator.ready.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._drop()
        finally:
            # Also where a scene has broken the coordinator: what nobody closes is warned of.
            self.disk.close()

    def raise_curtain(self) -> None:
        """Let the coordinator run."""
        self.running = self._tasks.watched("coordinator", self.coordinator.run())

    async def _drop(self) -> None:
        running, self.running = self.running, None
        broken = running.exception() if running is not None and running.done() else None
        await self.gateway.close()
        await self._tasks.cancel()
        await self.store.inner.close()
        await self.reader.close()
        if broken is not None:
            raise broken

    async def restart(self) -> None:
        """Drop the coordinator as in a crash, and open a new one over the same disk."""
        await self._drop()
        self._open()
        await self.__aenter__()

    # Peers.

    def dial(self) -> LoopbackChannel:
        """Open a socket on which nothing was said yet."""
        near, far = pair()
        self._tasks.start("serve", self.gateway.serve(far))
        return near

    async def client(self, name: str = "c", *, kept_by: str = "") -> Client:
        """Return a client that was welcomed."""
        client = Client(self.dial())
        await client.send(ClientHello(PROTOCOL, name, "0", "3.11", kept_by))
        await client.next(ClientWelcome)
        return client

    def hello(self, name: str = "w", **parts: Any) -> WorkerHello:
        """Return the next hello of a worker."""
        identity = parts.pop("identity", f"id-{name}")
        number = parts.pop("number", self._numbers.get(identity, 0) + 1)
        self._numbers[identity] = number
        return wording.hello(identity, **{"name": name, "number": number} | parts)

    async def worker(self, name: str = "w", **parts: Any) -> Worker:
        """Return a worker that was welcomed."""
        worker = Worker(self.dial())
        await worker.send(self.hello(name, **parts))
        worker.welcome = await worker.next(WorkerWelcome)
        worker.epoch = worker.welcome.epoch
        for answer in worker.welcome.answers:
            if answer.answer.text == "keep":
                worker.held[answer.token] = answer.task
        # The windows are filled in the turn after the welcome.
        await self.quiet()
        return worker

    # Time and truth.

    async def quiet(self) -> None:
        """Let the event loop turn until what was said is done."""
        for _ in range(100):
            await asyncio.sleep(0)

    async def tick(self, seconds: float = 1.0, *, deaf: float = 0.0) -> None:
        """Let time pass, of which we did not listen for `deaf` seconds."""
        await self.quiet()
        self.clock.pass_by(seconds + deaf)
        self.coordinator.post(None, Tick(seconds))
        await self.quiet()

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            await self.tick()

    def spec(self, function: str = "m:f", **parts: Any) -> Spec:
        """Return a new submission."""
        now_ms = self.clock.wall_ms()
        payload = parts.pop("payload", Payload(Encoding.JSON, b"[[],{}]"))
        return Spec(self._mint.next(now_ms), function, payload, now_ms, **parts)

    async def row(self, task: bytes) -> Task:
        """Return what the store has of a task."""
        (row,) = await self.store.inner.load([TaskId(task)])
        return row

    async def events(self, task: bytes) -> list[Event]:
        return await self.reader.events(TaskId(task))

    async def attempts(self, task: bytes) -> list[Attempt]:
        return await self.reader.attempts(TaskId(task))

    def written(self) -> tuple[int, int]:
        """Return how many rows of tasks were inserted and updated up to now."""
        commits = self.store.commits
        return (
            sum(len(changes.inserts) for changes in commits),
            sum(len(changes.updates) for changes in commits),
        )


def perform(play: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
    """Run a play on a fresh stage, within a bound."""

    async def main() -> None:
        async with asyncio.timeout(PLAY_SECONDS), Stage(**settings) as stage:
            await play(stage)

    asyncio.run(main())


def answers_to(worker: Worker) -> dict[bytes, LeaseAnswer]:
    """Return what a worker's welcome says of each lease, by token."""
    assert worker.welcome is not None
    return {answer.token: answer for answer in worker.welcome.answers}


async def running(stage: Stage, count: int = 1) -> tuple[Worker, Client, list[Assign]]:
    """Return a worker that was assigned so many tasks of a client."""
    worker, client = await stage.worker(slots=count), await stage.client()
    await client.keep(*(stage.spec() for _ in range(count)))
    return worker, client, [await worker.assigned() for _ in range(count)]
