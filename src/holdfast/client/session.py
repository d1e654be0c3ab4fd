"""The client's conversation with its coordinator, over one channel after another.

Owns dialling, hello, reading, writing, the heartbeat, and what follows a break: reconnect with
exponential backoff and full jitter, say again what was not answered, watch again what is
outstanding. Async and on one loop; it never blocks, and never runs user code but done callbacks.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.client.book import Book
from holdfast.client.cancelling import Cancelling
from holdfast.client.carriage import Blobs, Carriage
from holdfast.client.exchange import Answer, Exchange
from holdfast.client.future import End, Future, keep_all, settle_all
from holdfast.client.intake import Intake, Submission
from holdfast.client.questions import Questions
from holdfast.core.redial import pause_seconds
from holdfast.core.wire import Wire
from holdfast.errors import (
    ChannelClosedError,
    ConnectionLostError,
    HoldfastError,
    NoCoordinatorError,
    ProtocolError,
)
from holdfast.interpreter import python_version
from holdfast.model.ids import Entropy, TaskId
from holdfast.model.limits import HEARTBEAT_SECONDS, LEASE_SECONDS
from holdfast.model.messages import (
    PROTOCOL,
    Accepted,
    ClientFrame,
    ClientHello,
    ClientWelcome,
    Goodbye,
    Message,
    Refused,
    Reply,
    Settled,
    Watch,
)
from holdfast.observe import TaskSet, logger
from holdfast.ports import Channel, Clock, Dialer

_STEADY_SECONDS = 5.0
"""A session that lasted so long was a good one: the backoff begins anew."""
_GOODBYES_MAX = 5
"""So many in a row, each before a session was steady: it is we who are not understood."""
_WELCOME_SECONDS = 10.0
_SILENCE_SECONDS = LEASE_SECONDS
_QUIET_SECONDS = 3 * HEARTBEAT_SECONDS
_CLOSE_SECONDS = 1.0
_LOG = logger("client")


def _own_name() -> str:
    return f"client {os.getpid()}"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation is made of.

    `dialers` are tried in turn at every connect. The client is the only user of `rng`. Without
    `blobs`, payloads over 64 KiB are refused; `spill_to` is an existing folder for them on their
    way, else that of the system for temporary files. `restart`, for an embedded coordinator only,
    is called on a thread when no dialer reaches one, and may block until one was started.
    `kept_by` tells which embedded coordinator's worker started this process.
    """

    dialers: Sequence[Dialer]
    clock: Clock
    rng: Entropy
    version: str
    name: str = msgspec.field(default_factory=_own_name)
    python: str = msgspec.field(default_factory=python_version)
    spill_to: Path | None = None
    blobs: Blobs | None = None
    restart: Callable[[], None] | None = None
    kept_by: str = ""


class Session:
    """One client's side; every method is for the loop's thread."""

    def __init__(self, terms: Terms, intake: Intake, settling: Any, opened: Answer) -> None:
        self._terms = terms
        self._intake = intake
        self._settling = settling
        self._opened = opened
        self._out: deque[Message] = deque()
        self._book = Book(intake, settling)
        self._exchange = Exchange(self._out)
        self._carriage = Carriage(terms.blobs, terms.spill_to, self._pause)
        self._tasks = TaskSet(_LOG)
        self._wake = asyncio.Event()
        self.cancelling = Cancelling(self._book, self._exchange, self._wake.set)
        self.questions = Questions(self._book, self._exchange, self._wake.set)
        self._beat = False
        self._said = 0.0
        self._silent_seconds = 0.0
        self._attempts = 0
        self._goodbyes = 0
        self._farewell = ""
        self._connected = False
        self._over = False
        self._leaving = False
        self._downloading: set[TaskId] = set()
        self._facts: ClientWelcome | None = None
        self.trouble = ""
        """Why the last dialling failed, for who waits."""

    # For the client, by way of the loop.

    def wake(self) -> None:
        """Something waits in the intake."""
        self._wake.set()

    def leave(self) -> None:
        """Do not connect anew: the task that converses is about to be cancelled."""
        self._leaving = True

    @property
    def over(self) -> bool:
        """Whether it has ended, and nothing will be answered any more."""
        return self._over

    @property
    def idle(self) -> bool:
        """Whether every question and wish is answered."""
        return self._exchange.idle and not self._book.kept_calls and self.cancelling.idle

    @property
    def held_back(self) -> str:
        """Why submissions are not kept now, "" where nothing is in their way."""
        if not self._connected:
            return "the coordinator is not reached"
        return self._book.held_back or self._carriage.held_back

    def not_reached(self, seconds: float) -> NoCoordinatorError:
        """Return what is raised where nobody welcomed us in time."""
        return NoCoordinatorError(
            f"no coordinator answered within {seconds:g} s; is one running at that URL? "
            f"{self.trouble}".rstrip()
        )

    def once_kept(self, future: Future[Any], call: Callable[[], None]) -> None:
        """Call once a future is accepted or done; now, where it is."""
        if future.accepted or future.done():
            call()
        else:
            self._book.once_kept(future, call)

    def holder(self, task_id: TaskId) -> TaskId:
        """Return the id of the task that a submission of ours with a key was found to be."""
        return self._book.holder(task_id)

    def watch(self, future: Future[Any]) -> None:
        """Watch a task that was submitted elsewhere, or earlier, or that is on its way."""
        self._book.when_kept(future._task_id, lambda: self._watch(future))

    def _watch(self, future: Future[Any]) -> None:
        if self._over:
            settle_all(self._settling, [(future, _closed())])
            return
        future._task_id = self.holder(future._task_id)
        self._book.watch(future)
        keep_all(self._settling, [future])
        if self._facts is not None:
            self._out.append(Watch((future._task_id,)))
            self._wake.set()

    # The conversation.

    async def run(self) -> None:
        """Converse until cancelled, or until the coordinator refuses us for good."""
        try:
            while True:
                channel, wire = await self._connect()
                began = self._terms.clock.monotonic()
                self._connected = True
                try:
                    await self._converse(channel, wire)
                except* (ChannelClosedError, ProtocolError) as broken:
                    _LOG.info("the session broke: %s", broken.exceptions[0])
                finally:
                    self._connected = False
                    await self._leave(channel, wire)
                self._book.channel_lost()
                if self._leaving:
                    # A task group that fails while it is cancelled tells of the failure alone.
                    raise asyncio.CancelledError
                if self._goodbyes >= _GOODBYES_MAX:
                    raise ConnectionLostError(f"the coordinator refuses us: {self._farewell}")
                if self._terms.clock.monotonic() - began >= _STEADY_SECONDS:
                    self._attempts = self._goodbyes = 0
        except HoldfastError as error:
            self._end(error)
        except asyncio.CancelledError:
            if not self._leaving:
                self._end(ConnectionLostError("the client was cancelled; tasks go on without it"))
            raise
        except Exception as error:
            # Whoever waits has to see what broke, and not that somebody closed the client.
            self._end(_broken(error))
            raise
        finally:
            self._end(_closed())
            await self._tasks.cancel()

    def _end(self, error: HoldfastError) -> None:
        """Nothing can be said any more: end all that is outstanding."""
        self._over = True
        self.cancelling.end()
        self._intake.shut(error)
        if not self._opened.done():
            self._opened.set_exception(error)
        for submission in self._book.fail_all(error, unsent=True):
            if submission.path:
                Path(submission.path).unlink(missing_ok=True)
        self._exchange.fail_all(error)

    async def _connect(self) -> tuple[Channel, Wire[ClientFrame]]:
        """Dial until a coordinator welcomes us. Raises ProtocolError where it refuses us."""
        while True:
            if self._attempts:
                await self._pause(self._attempts - 1)
            self._attempts += 1
            for dialer in self._terms.dialers:
                try:
                    return await self._dial(dialer)
                except (ChannelClosedError, TimeoutError) as error:
                    self.trouble = str(error)
                    _LOG.debug("no session: %s", error)
                except ProtocolError as error:
                    self._misunderstood(error)
            if self._terms.restart is not None:
                await self._restart(self._terms.restart)

    def _misunderstood(self, error: ProtocolError) -> None:
        """Bear some nonsense where a coordinator once welcomed us: it may be one that starts."""
        if self._facts is None or self._goodbyes >= _GOODBYES_MAX:
            raise error
        self._goodbyes += 1
        self._farewell = str(error)
        _LOG.info("no session: %s", error)

    async def _dial(self, dialer: Dialer) -> tuple[Channel, Wire[ClientFrame]]:
        terms = self._terms
        channel = await dialer.dial()
        wire: Wire[ClientFrame] = Wire(ClientFrame)
        hello: deque[Message] = deque()
        hello.append(ClientHello(PROTOCOL, terms.name, terms.version, terms.python, terms.kept_by))
        try:
            async with asyncio.timeout(_WELCOME_SECONDS):
                await channel.send(wire.write(hello))
                body = wire.read(await channel.receive()).body
            match body:
                case (ClientWelcome() as welcome, *rest) if welcome.protocol == PROTOCOL:
                    self._welcomed(welcome)
                    self._take(rest)
                case (Goodbye() as goodbye, *_):
                    raise ProtocolError(f"{channel.peer} refused us: {goodbye.text}")
                case _:
                    raise ProtocolError(
                        f"{channel.peer} does not speak protocol {PROTOCOL} of Holdfast "
                        f"{terms.version}: upgrade the older of the two"
                    )
        except BaseException:
            await channel.close()
            raise
        return channel, wire

    def _welcomed(self, welcome: ClientWelcome) -> None:
        former, self._facts = self._facts, welcome
        if former is not None and former.store != welcome.store:
            self._book.fail_all(
                ConnectionLostError(
                    f"the coordinator now serves store {welcome.store}, not {former.store}, which "
                    f"knows these tasks; connect to the former one to have them"
                ),
                unsent=False,
            )
        self._out.clear()
        self._out.extend(self._book.watches())
        self._exchange.say_again()
        self._wake.set()
        if not self._opened.done():
            self._opened.set_result(welcome)

    async def _restart(self, restart: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(restart)
        except (HoldfastError, OSError) as error:
            _LOG.warning("the embedded coordinator could not be started: %s", error)

    async def _converse(self, channel: Channel, wire: Wire[ClientFrame]) -> None:
        self._silent_seconds = 0.0
        self._said = self._terms.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(channel, wire), name="client reads")
            group.create_task(self._write(channel, wire), name="client writes")
            group.create_task(self._heartbeat(), name="client beats")

    async def _leave(self, channel: Channel, wire: Wire[ClientFrame]) -> None:
        """Say goodbye where there is still somebody, and close, within a second."""
        farewell: deque[Message] = deque([Goodbye("closing", "the client leaves")])
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await channel.send(wire.write(farewell))
                await channel.close()
        except (ChannelClosedError, TimeoutError) as error:
            _LOG.debug("%s did not hear our goodbye: %s", channel.peer, error)

    async def _pause(self, tries: int) -> None:
        """Wait before another try, the longer the more have failed."""
        await asyncio.sleep(pause_seconds(tries, self._terms.rng))

    async def _write(self, channel: Channel, wire: Wire[ClientFrame]) -> None:
        out, book = self._out, self._book
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._intake.looks += 1
            while True:
                if not out and wire.writable:
                    book.fill(out, self._upload)
                if not (self._beat or wire.ack_due or (out and wire.writable)):
                    break
                self._beat = False
                await channel.send(wire.write(out))
                self._said = self._terms.clock.monotonic()

    async def _heartbeat(self) -> None:
        """Keep the session alive, and end it where the coordinator is silent for ten seconds.

        A span in which this process was stopped counts as two beats: silence counts only while we
        listened.
        """
        monotonic = self._terms.clock.monotonic
        last = monotonic()
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            now = monotonic()
            self._silent_seconds += min(now - last, 2 * HEARTBEAT_SECONDS)
            last = now
            if self._silent_seconds > _SILENCE_SECONDS:
                raise ChannelClosedError(f"the coordinator was silent for {_SILENCE_SECONDS} s")
            if now - self._said >= _QUIET_SECONDS:
                self._beat = True
                self._wake.set()

    async def _read(self, channel: Channel, wire: Wire[ClientFrame]) -> None:
        while True:
            frame = wire.read(await channel.receive())
            self._silent_seconds = 0.0
            self._take(frame.body)
            if self._out or self._book.waits or wire.ack_due:
                self._wake.set()

    # What comes in.

    def _take(self, body: Sequence[Message]) -> None:
        """Take the messages of one frame; what is settled in it is settled together."""
        ends: list[tuple[TaskId, End]] = []
        refused: dict[float, list[Submission]] = {}
        for message in body:
            if isinstance(message, Settled):
                if message.result is not None and message.result.digest:
                    self._tasks.start("download a result", self._download(message))
                else:
                    ends.append((message.task, message))
            elif isinstance(message, Accepted):
                self._book.accept(message)
            elif isinstance(message, Refused):
                submission = self._book.refuse(message)
                if submission is not None:
                    refused.setdefault(message.retry_after_seconds, []).append(submission)
            elif isinstance(message, Reply):
                self._exchange.reply(message)
            elif isinstance(message, Goodbye):
                self._dismissed(message)
            else:
                raise ProtocolError(f"{type(message).__name__} within a session")
        if ends:
            self._book.settle(ends)
        for seconds, submissions in refused.items():
            self._tasks.start("wait to submit again", self._later(seconds, submissions))

    def _dismissed(self, goodbye: Goodbye) -> None:
        self._goodbyes += 1
        self._farewell = goodbye.text
        raise ChannelClosedError(f"the coordinator says goodbye: {goodbye.text}")

    async def _later(self, seconds: float, submissions: list[Submission]) -> None:
        """Submit again after the time the coordinator asked for, and up to a quarter more."""
        await asyncio.sleep(seconds * (1 + self._terms.rng.random() / 4))
        for submission in submissions:
            self._book.put_fresh(submission)
        self._wake.set()

    def _upload(self, submission: Submission) -> None:
        self._tasks.start("upload a payload", self._uploading(submission))

    async def _uploading(self, submission: Submission) -> None:
        error = await self._carriage.up(submission.path, submission.spec.payload)
        submission.path = ""
        if error is not None:
            self._book.fail(submission, error)
            return
        self._book.put_fresh(submission)
        self._wake.set()

    async def _download(self, settled: Settled) -> None:
        future = self._book.known_kept(settled.task)
        if future is None or settled.task in self._downloading:
            # Nobody waits for it, or a former session told us already.
            return
        self._downloading.add(settled.task)
        try:
            end = await self._carriage.down(settled, future)
        finally:
            self._downloading.discard(settled.task)
        self._book.settle([(settled.task, end)])


def _closed() -> ConnectionLostError:
    return ConnectionLostError("the client was closed; tasks go on without it")


def _broken(error: Exception) -> ConnectionLostError:
    """Return what those who wait are told of a failure of ours, with its own words."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    lost = ConnectionLostError(
        f"the client broke down ({type(cause).__name__}: {cause}); tasks go on without it"
    )
    lost.__cause__ = error
    return lost
