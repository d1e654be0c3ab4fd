"""Channels within one event loop: a pair of queues instead of a socket.

For two ends in one process, as tests have them. Bounded like a socket: a sender waits once the
other end is behind.
"""

from __future__ import annotations

import asyncio
from collections import deque

from holdfast.errors import ChannelClosedError

_FRAMES_MAX = 64


class LoopbackChannel:
    """One end of a pair; made by `pair`."""

    __slots__ = ("_changed", "_frames", "_other", "closed", "peer")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.closed = False
        self._frames: deque[bytes] = deque()
        self._changed = asyncio.Condition()
        self._other: LoopbackChannel | None = None

    async def send(self, frame: bytes) -> None:
        """Hand one frame to the other end; waits while it is behind. Raises ChannelClosedError."""
        other = self._other
        assert other is not None
        async with other._changed:
            await other._changed.wait_for(lambda: len(other._frames) < _FRAMES_MAX or other.closed)
            if other.closed:
                raise ChannelClosedError(f"{self.peer}: closed")
            other._frames.append(frame)
            other._changed.notify_all()

    async def receive(self) -> bytes:
        """Return the next frame; what was sent before a close still comes."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._frames) or self.closed)
            if not self._frames:
                raise ChannelClosedError(f"{self.peer}: closed")
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    async def close(self, reason: str = "") -> None:
        """Break both ends; a closed channel stays so."""
        other = self._other
        assert other is not None
        for end in (self, other):
            async with end._changed:
                end.closed = True
                end._changed.notify_all()


def pair(
    *, here: str = "loopback", there: str = "loopback"
) -> tuple[LoopbackChannel, LoopbackChannel]:
    """Return two ends of one conversation; each names the other as its peer."""
    near, far = LoopbackChannel(there), LoopbackChannel(here)
    near._other, far._other = far, near
    return near, far
