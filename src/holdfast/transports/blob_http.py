"""Blobs over HTTP, beside the sessions at the same address: whole files up and down.

Blocking work of the standard library's client, done on threads and streamed in pieces, so that
memory holds one piece of a blob. What arrives is verified before it stands under its name. What
fails here on our own disk is raised as the OSError that it is: no other address, and no other try,
would mend it.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from holdfast.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobTooLargeError,
    ChannelClosedError,
    RefusedError,
    StoreFullError,
)
from holdfast.model.limits import BLOB_CHUNK_BYTES, PAYLOAD_BYTES_MAX
from holdfast.model.outcome import Encoding, Payload
from holdfast.transports.address import BLOBS_PATH, Address

_TIMEOUT_SECONDS = 60.0
"""For each read and write of a socket, not for the whole transfer."""
_TEXT_BYTES_MAX = 1024
_PARTIAL_SUFFIX = ".part"


class _DiskError(Exception):
    """Carries the OSError of our own disk past what takes each for one of the network."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)


class HttpBlobs:
    """Moves files between this host and the blob store of the coordinators at some addresses."""

    __slots__ = ("_addresses",)

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(addresses)

    async def put(self, path: str, payload: Payload) -> None:
        """Upload a file that has the digest and size of `payload`; durable on return.

        Raises BlobMissingError where there is no such file, OSError where it cannot be read,
        BlobTooLargeError, StoreFullError, RefusedError; ChannelClosedError where it broke.
        """
        if not await asyncio.to_thread(os.path.exists, path):
            raise BlobMissingError(f"the file {path} of a payload is gone")
        await self._at_any(lambda address: _put(address, path, payload))

    async def store(self, path: str, encoding: Encoding) -> Payload:
        """Upload a file whose digest is not known yet; return its payload. Raises like `put`."""
        payload = await asyncio.to_thread(_describe, path, encoding)
        await self.put(path, payload)
        return payload

    async def fetch(self, digest: bytes, path: str) -> None:
        """Download a blob to `path`, verified; nothing stands at `path` where it fails.

        Raises BlobMissingError, BlobCorruptError, RefusedError, OSError where it cannot be
        written; ChannelClosedError where it broke.
        """
        await self._at_any(lambda address: _fetch(address, digest, path))

    def discard(self, path: str) -> None:
        """Remove a file that is needed no longer; a missing one is fine."""
        Path(path).unlink(missing_ok=True)

    async def _at_any(self, transfer: Callable[[Address], None]) -> None:
        """Try the addresses in turn: the first that answers decides."""
        broken = ChannelClosedError("no address for blobs is configured")
        for address in self._addresses:
            try:
                return await asyncio.to_thread(transfer, address)
            except _DiskError as broken_here:
                raise broken_here.error from None
            except (OSError, http.client.HTTPException) as error:
                said = str(error) or type(error).__name__
                broken = ChannelClosedError(f"{address.text}: {said}")
        raise broken


def _connection(address: Address) -> http.client.HTTPConnection:
    if address.unix_path:
        return _UnixConnection(address.unix_path)
    if address.tls:
        return http.client.HTTPSConnection(
            address.host,
            address.port,
            timeout=_TIMEOUT_SECONDS,
            context=ssl.create_default_context(),
        )
    return http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_SECONDS)


def _describe(path: str, encoding: Encoding) -> Payload:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for piece in _pieces(file):
            digest.update(piece)
            size += len(piece)
    return Payload(encoding, digest=digest.digest(), size_bytes=size)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(BLOB_CHUNK_BYTES):
        yield piece


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _DiskError(error) from error


@contextmanager
def _opened(path: str, mode: Literal["rb", "wb"]) -> Iterator[BinaryIO]:
    """Open a file whose failures to open and to close are told as those of the disk."""
    with _on_disk():
        file = open(path, mode)  # noqa: SIM115 (closed below, where a full disk may tell so late)
    try:
        yield file
    finally:
        with _on_disk():
            file.close()


def _pieces_on_disk(file: BinaryIO) -> Iterator[bytes]:
    pieces = _pieces(file)
    while True:
        with _on_disk():
            piece = next(pieces, b"")
        if not piece:
            return
        yield piece


def _put(address: Address, path: str, payload: Payload) -> None:
    connection = _connection(address)
    try:
        with _opened(path, "rb") as file:
            connection.request(
                "PUT",
                f"{BLOBS_PATH}/{payload.digest.hex()}",
                body=_pieces_on_disk(file),
                headers={"Content-Length": str(payload.size_bytes)},
            )
        _check(connection.getresponse(), payload.digest)
    finally:
        connection.close()


def _fetch(address: Address, digest: bytes, path: str) -> None:
    connection = _connection(address)
    partial = path + _PARTIAL_SUFFIX
    try:
        connection.request("GET", f"{BLOBS_PATH}/{digest.hex()}")
        response = connection.getresponse()
        _check(response, digest)
        seen, size = hashlib.sha256(), 0
        with _opened(partial, "wb") as file:
            while piece := response.read(BLOB_CHUNK_BYTES):
                size += len(piece)
                if size > PAYLOAD_BYTES_MAX:
                    raise BlobTooLargeError(f"the blob is over {PAYLOAD_BYTES_MAX} bytes")
                seen.update(piece)
                with _on_disk():
                    file.write(piece)
        if seen.digest() != digest:
            raise BlobCorruptError(f"blob {digest.hex()} arrived as {seen.hexdigest()}")
        with _on_disk():
            os.replace(partial, path)
    finally:
        connection.close()
        with _on_disk():
            Path(partial).unlink(missing_ok=True)


def _check(response: http.client.HTTPResponse, digest: bytes) -> None:
    """Raise what a refusal means."""
    status = response.status
    if status < 300:
        return
    text = response.read(_TEXT_BYTES_MAX).decode(errors="replace")
    if status == http.HTTPStatus.NOT_FOUND:
        raise BlobMissingError(f"no blob has the digest {digest.hex()}")
    if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        raise BlobTooLargeError(text)
    if status == http.HTTPStatus.INSUFFICIENT_STORAGE:
        raise StoreFullError(text)
    if status >= 500:
        raise ChannelClosedError(f"HTTP {status}: {text}")
    raise RefusedError(f"HTTP {status}: {text}", code="blob")
