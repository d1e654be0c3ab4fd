"""Where the proxy listens and where it connects to: TCP on an address, or a unix socket.

Owns the making of those sockets. Never keeps one: whoever asked closes it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from pathlib import Path
from typing import TypeAlias

Endpoint: TypeAlias = tuple[str, int] | Path
"""A TCP host and port, or the path of a unix socket."""

BACKLOG = 128
CONNECT_SECONDS_MAX = 5.0
RETRY_SECONDS = 0.005

_LINGER_ZERO = struct.pack("ii", 1, 0)


def reserve(endpoint: Endpoint) -> tuple[Endpoint, socket.socket | None]:
    """Take an address before it is listened on; return it with its real port, and what holds it.

    A TCP port stays ours as long as the returned socket, which never listens, is open. Raise
    OSError when the address is taken.
    """
    if isinstance(endpoint, Path):
        if endpoint.exists():
            raise FileExistsError(errno.EADDRINUSE, "the path of the proxy exists", str(endpoint))
        return endpoint, None
    sock = _bound(endpoint)
    host, port = sock.getsockname()[:2]
    return (host, port), sock


def listening(endpoint: Endpoint, *, buffer_bytes: int) -> socket.socket:
    """Return a non-blocking socket that listens on a reserved address."""
    sock = _bound_path(endpoint) if isinstance(endpoint, Path) else _bound(endpoint)
    try:
        # Accepted sockets inherit the buffer; it has to be set before the window is agreed on.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def prepare(side: socket.socket, *, buffer_bytes: int) -> None:
    """Make a connection's socket fit for a link: non-blocking, bounded, without Nagle's delay."""
    side.setblocking(False)
    side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    if side.family != socket.AF_UNIX:
        # What is late here is late because a fault says so.
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def connected(endpoint: Endpoint, *, buffer_bytes: int) -> socket.socket:
    """Connect, and return the socket. Raise OSError (also TimeoutError) when nobody answers."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(_family(endpoint), socket.SOCK_STREAM)
    try:
        prepare(sock, buffer_bytes=buffer_bytes)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            if isinstance(endpoint, Path):
                await _connect_path(sock, endpoint)
            else:
                await loop.sock_connect(sock, endpoint)
    except BaseException:
        # The server may have accepted already: one that is reset while it connects is reset there.
        close_with_reset(sock)
        raise
    return sock


def close_with_reset(sock: socket.socket) -> None:
    """Close a connection with RST in place of FIN (see `SO_LINGER` in socket(7))."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()


def _family(endpoint: Endpoint) -> socket.AddressFamily:
    if isinstance(endpoint, Path):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET


def _bound(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _bound_path(path: Path) -> socket.socket:
    """Bind beside `path` and move there, so that a client never finds the path missing."""
    beside = path.with_name(f"{path.name}.new")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        beside.unlink(missing_ok=True)
        sock.bind(str(beside))
        beside.rename(path)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_path(sock: socket.socket, path: Path) -> None:
    while True:
        try:
            sock.connect(str(path))
        except BlockingIOError:
            # The backlog is full; a unix socket does not tell when it no longer is.
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
