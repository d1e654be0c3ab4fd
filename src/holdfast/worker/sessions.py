"""The sessions of a worker, one after another: whom it dials, with which hello, and for how long.

Owns the present link and the turn of the doors. What is heard goes to `hear`; of all messages only
the welcome is known here, because a session begins with it. It never gives up: whoever runs `keep`
cancels it, and only a failure of ours ends it otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from holdfast.core.outbox import Outbox
from holdfast.core.peer import Origin, Peer, PeerState
from holdfast.core.redial import Redial
from holdfast.errors import HoldfastError
from holdfast.model.ids import Entropy
from holdfast.model.messages import Goodbye, WorkerWelcome
from holdfast.observe import Counters, logger
from holdfast.ports import Channel, Clock, Dialer
from holdfast.worker.backup import Backup
from holdfast.worker.link import Hear, Link

DIAL_SECONDS = 5.0
_LOG = logger("worker")


class Sessions:
    """The worker's end of all its sessions. `dialers` go by the URL of their coordinator.

    `take_back` is called before each hello: what no child has taken up is to wait in line.
    """

    __slots__ = (
        "_backup",
        "_clock",
        "_counters",
        "_dialers",
        "_draining",
        "_hear",
        "_link",
        "_outbox",
        "_peer",
        "_redial",
        "_take_back",
        "_urls",
        "_wake",
        "url",
    )

    def __init__(
        self,
        *,
        dialers: Mapping[str, Dialer],
        rng: Entropy,
        peer: Peer,
        outbox: Outbox,
        backup: Backup,
        clock: Clock,
        counters: Counters,
        hear: Hear,
        take_back: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._dialers = dialers
        self._urls = list(dialers)
        self._redial = Redial(rng, doors=len(self._urls))
        self._peer = peer
        self._outbox = outbox
        self._backup = backup
        self._clock = clock
        self._counters = counters
        self._hear = hear
        self._take_back = take_back
        self._wake = wake
        self._link: Link | None = None
        self._draining = False
        self.url = ""
        """The coordinator that was dialled last."""

    @property
    def connected(self) -> bool:
        """Whether there is a session that was welcomed."""
        return self._peer.state is PeerState.WELCOMED

    def store_now(self) -> Origin | None:
        """Return the store whose session this is; None where there is no session."""
        return self._peer.origin if self.connected else None

    async def keep(self) -> None:
        """Hold one session after another, until cancelled. Raises nothing but a failure of ours."""
        while True:
            await self._connect()

    def welcomed(self, welcome: WorkerWelcome) -> bool:
        """Begin what a welcome begins; False where that session is over already."""
        if not self.connected or self._link is None:
            return False
        self._redial.welcomed()
        self._backup.welcomed()
        self._outbox.welcomed(self._peer.origin)
        if self._draining:
            self._outbox.draining()
        self._link.expect(
            lease_seconds=welcome.lease_seconds, heartbeat_seconds=welcome.heartbeat_seconds
        )
        return True

    def nudge(self, now: float) -> None:
        """Have the link write, where there is anything to say."""
        if self._link is not None and self._outbox.pending(now):
            self._link.wake()

    def say_draining(self) -> None:
        """Say that the worker takes no more, in this session and in each that follows."""
        self._draining = True
        self._outbox.draining()

    async def say_goodbye(self, goodbye: Goodbye) -> None:
        """Write all that is left, and then that we go; returns when it is written."""
        if self._link is not None:
            await self._link.say_goodbye(goodbye)

    async def _connect(self) -> None:
        """Dial the next coordinator, and serve a session if it answers."""
        door, delay = self._redial.next()
        await asyncio.sleep(delay)
        self.url = self._urls[door]
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                channel = await self._dialers[self.url].dial()
        except (TimeoutError, OSError, HoldfastError) as error:
            self._counters.add("worker.dials_failed")
            _LOG.debug("no coordinator at %s: %s", self.url, error)
        else:
            await self._serve(channel)

    async def _serve(self, channel: Channel) -> None:
        """Serve one session to its end; its channel is closed when this returns."""
        # What waits in a lane has not begun, and is not to be named as if it had.
        self._take_back()
        outcomes, owed = self._outbox.rejoin(self._peer.origin)
        hello = self._peer.hello(outcomes=outcomes, owed=owed, draining=self._draining)
        self._link = link = Link(
            channel,
            peer=self._peer,
            outbox=self._outbox,
            clock=self._clock,
            hear=self._hear,
            log=_LOG,
        )
        try:
            await link.run(hello)
        except (HoldfastError, OSError) as error:
            self._counters.add("worker.sessions_ended")
            _LOG.info("the session with %s is over: %s", self.url, error)
        finally:
            self._link = None
            self._peer.closed()
            self._backup.cut_off(self._clock.monotonic())
            self._wake()
