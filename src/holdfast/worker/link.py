"""One session over one channel: frames in, frames out, heartbeats, and the ear for silence.

Owns the channel from the moment it is dialled until it is closed, and never looks into a message:
what is read goes to `hear`, what is written is taken from the outbox at the last moment, so that
one frame carries all that has gathered. A link is used once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from holdfast.core.outbox import Outbox
from holdfast.core.peer import Peer, PeerState
from holdfast.core.wire import Wire
from holdfast.errors import ChannelClosedError, HoldfastError
from holdfast.model.limits import LEASE_SECONDS
from holdfast.model.messages import Ended, Goodbye, Message, ToWorker, WorkerFrame
from holdfast.observe import TaskSet
from holdfast.ports import Channel, Clock

HANDSHAKE_SECONDS = LEASE_SECONDS
CLOSE_SECONDS = 2.0
BEAT_SLACK = 0.9
"""A frame written this part of a heartbeat ago still counts as the heartbeat."""

Hear = Callable[[Sequence[ToWorker]], None]


class Link:
    """One session of a worker. `run` returns by raising why it is over."""

    __slots__ = (
        "_beat_due",
        "_beat_timer",
        "_broken",
        "_channel",
        "_clock",
        "_deadline",
        "_goodbye",
        "_hear",
        "_heartbeat_seconds",
        "_last_read",
        "_last_write",
        "_lease_seconds",
        "_log",
        "_outbox",
        "_peer",
        "_said",
        "_wake",
        "_wire",
    )

    def __init__(
        self,
        channel: Channel,
        *,
        peer: Peer,
        outbox: Outbox,
        clock: Clock,
        hear: Hear,
        log: logging.Logger,
    ) -> None:
        self._channel = channel
        self._peer = peer
        self._outbox = outbox
        self._clock = clock
        self._hear = hear
        self._log = log
        self._wire = Wire(WorkerFrame)
        self._wake = asyncio.Event()
        self._said = asyncio.Event()
        self._goodbye: Goodbye | None = None
        self._broken: Exception | None = None
        self._deadline: asyncio.Timeout | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._beat_due = False
        self._last_read = self._last_write = clock.monotonic()
        self._heartbeat_seconds = 0.0
        self._lease_seconds = 0.0

    async def run(self, hello: Sequence[Message]) -> None:
        """Say hello and serve the session until it is over.

        Raises ChannelClosedError where it broke, was refused, or fell silent, and ProtocolError
        where the coordinator said what cannot be. The channel is closed before it raises.
        """
        tasks = TaskSet(self._log)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS) as self._deadline:
                await self._say(hello)
                while self._peer.state is PeerState.CONNECTING:
                    await self._read()
                self._deadline.reschedule(None)
                tasks.start("write frames", self._write())
                while self._peer.state is PeerState.WELCOMED:
                    await self._read()
            raise ChannelClosedError("the coordinator ended the session")
        except TimeoutError:
            raise self._broken or ChannelClosedError("no welcome in time") from None
        finally:
            self._deadline = None
            if self._beat_timer is not None:
                self._beat_timer.cancel()
            await tasks.cancel()
            await self._close()

    def expect(self, *, lease_seconds: float, heartbeat_seconds: float) -> None:
        """Begin heartbeats, and to count silence, as the welcome asks."""
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._beat()

    def wake(self) -> None:
        """Write what the outbox has, as soon as the channel takes it."""
        self._wake.set()

    def sever(self, why: Exception) -> None:
        """End the session; `run` raises `why`."""
        if self._broken is None:
            self._broken = why
            # The reader waits in the channel: a deadline that is now is what reaches it there.
            if self._deadline is not None:
                self._deadline.reschedule(asyncio.get_running_loop().time())

    async def say_goodbye(self, goodbye: Goodbye) -> None:
        """Write all that is left, and then that we go; returns when it is written."""
        self._goodbye = goodbye
        self._wake.set()
        await self._said.wait()

    # Reading.

    async def _read(self) -> None:
        data = await self._channel.receive()
        frame = self._wire.read(data)
        self._last_read = self._clock.monotonic()
        self._hear(frame.body)
        # What it acknowledges may have opened the window, and it may want to be acknowledged.
        self._wake.set()

    # Writing.

    async def _say(self, hello: Sequence[Message]) -> None:
        """Write a hello, one message to a frame; read acknowledgements where it is long."""
        for message in hello:
            while not self._wire.writable:
                await self._read()
            await self._send(self._wire.write(deque([message])))

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (data := self._next_frame()) is not None:
                    await self._send(data)
                if self._goodbye is not None and not self._outbox.pending(self._last_write):
                    await self._send(self._wire.write(deque([self._goodbye]), self._peer.view()))
                    self._said.set()
                    return
        except Exception as error:
            # Also a fault of ours: a session that is read and not written would only look alive.
            self.sever(error)

    def _next_frame(self) -> bytes | None:
        """Return the next frame to write, None where nothing is to be said or the window is full.

        The view is taken after the outcomes of this very frame have left it.
        """
        wire, peer = self._wire, self._peer
        if peer.state is not PeerState.WELCOMED:
            return None
        batch: deque[Message] = deque()
        if wire.writable:
            batch = self._outbox.take(self._clock.monotonic())
        if not batch and not self._beat_due and not wire.ack_due:
            return None
        for message in batch:
            if isinstance(message, Ended):
                peer.written(message.token)
        data = wire.write(batch, peer.view())
        assert not batch, "the outbox gave more than a frame holds"
        self._beat_due = False
        return data

    async def _send(self, data: bytes) -> None:
        await self._channel.send(data)
        self._last_write = self._clock.monotonic()

    # Time.

    def _beat(self) -> None:
        now = self._clock.monotonic()
        if now - self._last_read > self._lease_seconds:
            self.sever(ChannelClosedError(f"no frame for {self._lease_seconds:g} s"))
            return
        rest = self._last_write + self._heartbeat_seconds - now
        if rest <= self._heartbeat_seconds * (1 - BEAT_SLACK):
            self._beat_due = True
            self._wake.set()
            rest = self._heartbeat_seconds
        self._beat_timer = asyncio.get_running_loop().call_later(rest, self._beat)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._channel.close("session over")
        except (TimeoutError, HoldfastError, OSError) as error:
            self._log.debug("the channel did not close well: %s", error)
