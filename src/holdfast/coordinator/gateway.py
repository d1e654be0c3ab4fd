"""Where sockets become sessions: frames in, messages to the inbox; messages out, frames.

Owns the reading and the writing of every session, the first frame's rules, and the closing. It
decides nothing about tasks: that is the turn's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from holdfast.coordinator.asking import Questions
from holdfast.coordinator.facts import Closed, Death, Hello, Tick
from holdfast.coordinator.kin import Kindred
from holdfast.coordinator.service import Coordinator
from holdfast.coordinator.sessions import ClientSession, Session, WorkerSession
from holdfast.errors import (
    ChannelClosedError,
    ProtocolError,
    StoreCorruptError,
    StoreDoubtError,
    StoreRefusedError,
)
from holdfast.model.limits import (
    CONCURRENT_SLOTS_MAX,
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    NAME_BYTES_MAX,
    OFFER_WORDS_MAX,
    SESSIONS_MAX,
    SLOTS_MAX,
)
from holdfast.model.messages import (
    PROTOCOL,
    Ask,
    ClientHello,
    ClientWelcome,
    Code,
    CodeWanted,
    Draining,
    Ended,
    Frame,
    Goodbye,
    HelloMore,
    Pull,
    PutCode,
    SetQueue,
    SetWanted,
    Started,
    Submit,
    Watch,
    WorkerHello,
)
from holdfast.observe import TaskSet, logger
from holdfast.ports import Channel

_LOG = logger("gateway")
_HELLO_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_QUESTIONS_MAX = 16
_CODE_READS_MAX = 8
_CODE_WANTED_MAX = 10_000
"""Functions that one worker may wait for: more than it can hold leases."""
_WATCH_MAX = 500
"""Watched tasks that one message names at a time: their results may all come from the store."""
_OWED_MAX = 100
"""Owed results that are read from the store at a time."""
_FROM_WORKER = (Ended, Started, Pull, Draining)
_FROM_CLIENT = (Submit, Watch, SetWanted, SetQueue, PutCode)


class Gateway:
    """All sessions of one coordinator. `kin` watches the workers of its own host, where it can.

    `mark` is what an embedded coordinator is known by to its own workers, "" for another.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        questions: Questions,
        *,
        version: str,
        python: str,
        kin: Kindred | None = None,
        mark: str = "",
    ) -> None:
        self._coordinator = coordinator
        self._questions = questions
        self._version = version
        self._kin = kin
        self._mark = mark
        self._python = python
        self._tasks = TaskSet(_LOG)
        self._sessions: dict[Session, asyncio.Task[None]] = {}
        """Every open session, and the task that writes on its socket."""
        self._channels = 0
        self._hello_bytes = 0
        """What hellos take that are being read."""
        self._code_reads = asyncio.Semaphore(_CODE_READS_MAX)

    @property
    def clients(self) -> int:
        """How many clients have a session, without those that live in tasks of our own workers.

        A task may leave one behind in a process that waits for the next: it ends with us.
        """
        clients = (session for session in self._sessions if isinstance(session, ClientSession))
        return sum(not self._mark or client.kept_by != self._mark for client in clients)

    async def serve(self, channel: Channel) -> None:
        """Converse on one channel until it ends; never raises for what the peer does."""
        session: Session | None = None
        self._channels += 1
        try:
            await self._coordinator.ready.wait()
            if self._channels > SESSIONS_MAX:
                raise ProtocolError(f"more than {SESSIONS_MAX} sessions at once; try again later")
            session = await self._first(channel)
            await self._read(session)
        except ProtocolError as error:
            self._coordinator.counters.add("protocol_errors")
            _LOG.warning("%s: %s", channel.peer, error)
            await self._goodbye(channel, session, str(error))
        except (ChannelClosedError, TimeoutError) as error:
            _LOG.debug("%s: %s", channel.peer, error)
        finally:
            self._channels -= 1
            if session is not None:
                session.close("its socket closed")
                self._sessions.pop(session, None)
                if not (isinstance(session, WorkerSession) and session.superseded):
                    self._coordinator.post(session, Closed())
            else:
                await channel.close()

    async def close(self) -> None:
        """Close all sockets and wait for their ends, within a bound."""
        writers = list(self._sessions.values())
        for session in self._sessions:
            session.close("the coordinator stops")
        if writers:
            await asyncio.wait(writers, timeout=_CLOSE_SECONDS)
        await self._tasks.cancel()
        if self._kin is not None:
            self._kin.close()

    # The first frame.

    async def _first(self, channel: Channel) -> Session:
        now = self._coordinator.clock.monotonic()
        opening = Session(channel, now=now)
        async with asyncio.timeout(_HELLO_SECONDS):
            data = await channel.receive()
            frame = opening.wire.read(data)
            if len(frame.body) != 1:
                raise ProtocolError("a session begins with a hello alone")
            hello = frame.body[0]
            if not isinstance(hello, ClientHello | WorkerHello):
                raise ProtocolError(f"a session begins with a hello, not {type(hello).__name__}")
            if hello.protocol != PROTOCOL:
                raise ProtocolError(
                    f"protocol {hello.protocol}; this coordinator speaks {PROTOCOL}"
                )
            session: Session
            if isinstance(hello, ClientHello):
                session = ClientSession(channel, name=hello.name, now=now, kept_by=hello.kept_by)
                session.wire = opening.wire
                self._open(session)
                facts = self._coordinator.state.facts
                session.send(
                    ClientWelcome(
                        PROTOCOL, facts.store, facts.timeline, self._version, self._python
                    )
                )
                self._coordinator.state.clients[session] = None
                return session
            _check_offer(hello)
            # Its outcomes are held by what waits for the turn, and not for as long as it is here.
            session = WorkerSession(channel, replace(hello, outcomes=()), now=now)
            session.wire = opening.wire
            whole = await self._rest_of_hello(session, hello, size_bytes=len(data))
        if self._kin is not None:
            self._kin.follow(hello)
        self._open(session)
        self._coordinator.state.greeted(hello, self._coordinator.clock.monotonic())
        self._coordinator.inbox.greet(session, whole)
        return session

    async def _rest_of_hello(
        self, session: WorkerSession, hello: WorkerHello, *, size_bytes: int
    ) -> Hello:
        outcomes, more, size = list(hello.outcomes), hello.more, size_bytes
        self._hello_bytes += size
        try:
            self._check_room(hello)
            while more:
                data = await session.channel.receive()
                size += len(data)
                self._hello_bytes += len(data)
                body = session.wire.read(data).body
                long = size > HELLO_BYTES_MAX + size_bytes
                if long or len(body) != 1 or not isinstance(body[0], HelloMore):
                    raise ProtocolError("a hello is too large or is interrupted")
                self._check_room(hello)
                outcomes += body[0].outcomes
                more = body[0].more
                await session.channel.send(session.wire.write(session.out))
        finally:
            self._hello_bytes -= size
        return Hello(session.hello, tuple(outcomes), size)

    def _check_room(self, hello: WorkerHello) -> None:
        """Put a hello off where too many wait: its worker keeps all of it, and dials again."""
        if not self._coordinator.inbox.has_room_for_hello(self._hello_bytes):
            # It spoke all the same, and must not seem silent.
            self._coordinator.state.greeted(hello, self._coordinator.clock.monotonic())
            self._coordinator.counters.add("hellos_put_off")
            raise ProtocolError("too many hellos wait for the store; try again later")

    def _open(self, session: Session) -> None:
        writer = self._tasks.watched(f"write {session.name}", self._write(session))
        self._sessions[session] = writer

    # Reading.

    async def _read(self, session: Session) -> None:
        coordinator, channel, wire = self._coordinator, session.channel, session.wire
        allowed = _FROM_WORKER if isinstance(session, WorkerSession) else _FROM_CLIENT
        while True:
            frame = wire.read(await channel.receive())
            if session.closed and isinstance(session, ClientSession):
                return
            if isinstance(session, WorkerSession) and coordinator.state.is_outdated(session):
                return
            # What a worker said before its socket broke still counts, be it closed for writing.
            session.heard = coordinator.clock.monotonic()
            if session.out or wire.ack_due:
                session.wake.set()
            for message in frame.body:
                if isinstance(message, allowed):
                    for part in _parts(message):
                        coordinator.post(session, part)
                elif not self._aside(session, message):
                    return
            if isinstance(session, WorkerSession):
                self._see(session, frame)
            await coordinator.inbox.space()

    def _see(self, session: WorkerSession, frame: Frame) -> None:
        if frame.view is None:
            raise ProtocolError("a worker's frame says what it holds")
        if frame.view.epoch:
            self._coordinator.post(session, frame.view)
        elif frame.body:
            raise ProtocolError("a worker waits for its welcome")

    def _aside(self, session: Session, message: object) -> bool:
        """Answer what needs no turn; False where the peer says goodbye."""
        if isinstance(message, Goodbye):
            return False
        if isinstance(message, CodeWanted) and isinstance(session, WorkerSession):
            if len(session.code_wanted) >= _CODE_WANTED_MAX:
                raise ProtocolError(f"more than {_CODE_WANTED_MAX} functions at once")
            session.code_wanted[message.digest] = None
            session.wake.set()
        elif isinstance(message, Ask) and isinstance(session, ClientSession):
            if session.questions >= _QUESTIONS_MAX:
                raise ProtocolError(f"more than {_QUESTIONS_MAX} questions at once")
            session.questions += 1
            self._tasks.start("answer", self._answer(session, message))
        else:
            raise ProtocolError(f"{type(message).__name__} is not for this session")
        return True

    async def _answer(self, session: ClientSession, ask: Ask) -> None:
        try:
            session.send(await self._questions.answer(ask))
        finally:
            session.questions -= 1

    async def _code(self, session: WorkerSession) -> None:
        digest = next(iter(session.code_wanted))
        async with self._code_reads:
            try:
                data = await self._coordinator.store.load_code(digest)
            except StoreCorruptError as error:
                self._coordinator.give_up(error)
                return
            except (StoreDoubtError, StoreRefusedError) as error:
                # It asks again after its next hello, when the store may be readable.
                session.close(f"a function could not be read: {error}")
                return
        del session.code_wanted[digest]
        session.code_read = False
        session.send(Code(digest, data or b"", data is not None))

    # Writing.

    async def _write(self, session: Session) -> None:
        channel, wire, out = session.channel, session.wire, session.out
        clock = self._coordinator.clock
        try:
            while True:
                await session.wake.wait()
                session.wake.clear()
                beat = session.beat
                session.beat = False
                while beat or wire.ack_due or (out and wire.writable):
                    beat = False
                    await channel.send(wire.write(out))
                    session.said = clock.monotonic()
                if session.closed:
                    break
                if not out:
                    self._pay(session)
        except ChannelClosedError as error:
            session.close(str(error))
        except ProtocolError as error:
            _LOG.error("%s: %s", session.name, error)
            session.close(str(error))
        finally:
            await channel.close(session.reason)

    def _pay(self, session: Session) -> None:
        """Have read from the store what would be too much to wait in memory: results, functions."""
        if isinstance(session, ClientSession):
            owed = session.drained(_OWED_MAX)
            if owed:
                self._coordinator.post(session, Watch(tuple(owed)))
        elif isinstance(session, WorkerSession) and session.code_wanted and not session.code_read:
            session.code_read = True
            self._tasks.start("code", self._code(session))

    async def _goodbye(self, channel: Channel, session: Session | None, text: str) -> None:
        goodbye = Goodbye("protocol_error", text[: FRAME_BYTES_MAX // 8])
        if session is not None:
            session.send(goodbye)
            return
        opening = Session(channel, now=0.0)
        opening.out.append(goodbye)
        try:
            await channel.send(opening.wire.write(opening.out))
        except ChannelClosedError as error:
            _LOG.debug("%s left before our goodbye: %s", channel.peer, error)

    # Time and deaths.

    def beat(self) -> None:
        """Say something on every session that was silent for a heartbeat."""
        now = self._coordinator.clock.monotonic()
        quiet = self._coordinator.terms.beat_seconds / 2
        for session in self._sessions:
            if now - session.said >= quiet:
                session.beat = True
                session.wake.set()

    async def sweep(self) -> None:
        """Let time pass for the turn, and beat, for ever."""
        seconds = min(1.0, self._coordinator.terms.lease_seconds / 10)
        while True:
            await asyncio.sleep(seconds)
            try:
                self._coordinator.look_at_room()
            except OSError as error:
                # A disk that cannot be asked must not stop the time.
                _LOG.error("the disk's room cannot be seen: %s", error)
            self._coordinator.inbox.tick(Tick(seconds))
            self.beat()

    def no_room_for(self, size_bytes: int) -> str:
        """Return what is told to who brings a payload, "" where the disk has room for it."""
        return self._coordinator.no_room_for(size_bytes)

    @property
    def not_ready(self) -> str:
        """Why new tasks are not kept now, "" where they are."""
        if not self._coordinator.ready.is_set():
            return "the store is being read"
        return "the disk is nearly full" if self._coordinator.short else ""

    async def ready(self) -> None:
        """Wait until the store was read: before that, nothing can be told true from false."""
        await self._coordinator.ready.wait()

    def death(self, report: Death, last_word: str, judged: Callable[[], None]) -> bool:
        """Take a guard's report; False where its one-use token is not the one we gave.

        `judged` is called once what follows from it is committed.
        """
        if not self._questions.last_word_is(report, last_word):
            self._coordinator.counters.add("deaths_refused")
            return False
        self._coordinator.state.report_to(report.identity, report.incarnation, judged)
        self._coordinator.post(None, report)
        return True


def _parts(message: object) -> Iterator[object]:
    """Yield a message in parts that a turn can take; refuse bytes that belie their name."""
    if isinstance(message, Watch) and len(message.tasks) > _WATCH_MAX:
        for first in range(0, len(message.tasks), _WATCH_MAX):
            yield Watch(message.tasks[first : first + _WATCH_MAX])
        return
    if isinstance(message, PutCode) and hashlib.sha256(message.data).digest() != message.digest:
        raise ProtocolError("the bytes of a function do not have their digest")
    yield message


def _check_offer(hello: WorkerHello) -> None:
    """Refuse absurd numbers before they reach a turn."""
    if not (0 < hello.slots <= SLOTS_MAX and 0 <= hello.concurrent_slots <= CONCURRENT_SLOTS_MAX):
        raise ProtocolError(f"slots={hello.slots}, concurrent_slots={hello.concurrent_slots}")
    if not (0 < hello.incarnation < 1 << 62 and 0 < hello.number < 1 << 62):
        raise ProtocolError(f"incarnation={hello.incarnation}, number={hello.number}")
    if not 0 <= hello.pid < 1 << 31:
        raise ProtocolError(f"pid={hello.pid}")
    words = (hello.identity, hello.name, hello.host, hello.boot, *hello.queues, *hello.tags)
    if len(words) > OFFER_WORDS_MAX or any(len(word) > NAME_BYTES_MAX for word in words):
        raise ProtocolError("the names, queues or tags of a worker are too many or too long")
    if not hello.identity or not hello.name or "\x00" in hello.identity + hello.name:
        raise ProtocolError("a worker has an identity and a name")
