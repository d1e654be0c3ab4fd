"""The calling end of a session over WebSocket: TCP, TLS or a Unix socket.

Owns the only use of the `websockets` library. One binary message is one frame; there are no pings,
because the frames themselves are the heartbeat, and no compression.
"""

from __future__ import annotations

import ssl

import websockets
from websockets.asyncio.client import ClientConnection, connect, unix_connect

from holdfast.errors import ChannelClosedError
from holdfast.model.limits import FRAME_BYTES_MAX
from holdfast.transports.address import Address

OPEN_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_BUFFER_BYTES = 512 * 1024
_QUEUE_FRAMES = 64
_REASON_BYTES_MAX = 120
"""A close frame holds 125 bytes: a code of two, and the reason."""


class WebSocketChannel:
    """One open WebSocket, as a `Channel`."""

    __slots__ = ("_socket", "peer")

    def __init__(self, socket: ClientConnection, peer: str) -> None:
        self._socket = socket
        self.peer = peer

    async def send(self, frame: bytes) -> None:
        """Send one frame; waits while the peer is slow. Raises ChannelClosedError."""
        try:
            await self._socket.send(frame)
        except (websockets.ConnectionClosed, OSError) as error:
            raise ChannelClosedError(f"{self.peer}: {error}") from None

    async def receive(self) -> bytes:
        """Return the next frame. Raises ChannelClosedError."""
        try:
            return await self._socket.recv(decode=False)
        except (websockets.ConnectionClosed, OSError) as error:
            raise ChannelClosedError(f"{self.peer}: {error}") from None

    async def close(self, reason: str = "") -> None:
        """Close with a handshake of at most a second; a closed channel stays so."""
        short = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
        await self._socket.close(reason=short)


class WebSocketDialer:
    """Opens sessions with the coordinator at one address."""

    __slots__ = ("_address", "_open_seconds", "trouble")

    def __init__(self, address: Address, *, open_seconds: float = OPEN_SECONDS) -> None:
        self.trouble = ""
        """Why the last dialling failed, for who waits."""
        self._address = address
        self._open_seconds = open_seconds

    async def dial(self) -> WebSocketChannel:
        """Open a channel. Raises ChannelClosedError where nobody answers in time."""
        peer = self._address.text
        try:
            socket = await self._connect()
        except (websockets.WebSocketException, OSError, TimeoutError) as error:
            self.trouble = _said(error)
            raise ChannelClosedError(f"{peer}: {self.trouble}") from None
        return WebSocketChannel(socket, peer)

    async def _connect(self) -> ClientConnection:
        address = self._address
        if address.unix_path:
            return await unix_connect(
                address.unix_path,
                address.session_url,
                compression=None,
                max_size=FRAME_BYTES_MAX,
                max_queue=_QUEUE_FRAMES,
                write_limit=_BUFFER_BYTES,
                ping_interval=None,
                open_timeout=self._open_seconds,
                close_timeout=_CLOSE_SECONDS,
                user_agent_header=None,
            )
        # A proxy of the environment is not for us: a coordinator is near, and sessions are long.
        return await connect(
            address.session_url,
            compression=None,
            max_size=FRAME_BYTES_MAX,
            max_queue=_QUEUE_FRAMES,
            write_limit=_BUFFER_BYTES,
            ping_interval=None,
            open_timeout=self._open_seconds,
            close_timeout=_CLOSE_SECONDS,
            user_agent_header=None,
            proxy=None,
        )


def _said(error: Exception) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS there: {said}; a coordinator without TLS has an address with http://"
    return said
