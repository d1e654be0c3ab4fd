"""One blob over one HTTP connection: a whole file up or down, streamed in pieces.

Blocking work over the standard library's client, for threads; memory holds one piece of a blob.
What arrives is verified before it stands under its name. What fails on the way is told as a broken
channel, and what fails on our own disk as the OSError that it is: no other address, and no other
try, would mend that one.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
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


def describe(path: str, encoding: Encoding) -> Payload:
    """Return the payload that a file is. Raises OSError where it cannot be read."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for piece in _pieces(file):
            digest.update(piece)
            size += len(piece)
    return Payload(encoding, digest=digest.digest(), size_bytes=size)


def put(address: Address, path: str, payload: Payload) -> None:
    """Upload a file that has the digest and size of `payload`; durable on return.

    Raises OSError where it cannot be read, BlobTooLargeError, StoreFullError, RefusedError;
    ChannelClosedError where it broke.
    """
    with _told(address), closing(_connection(address)) as connection:
        with _opened(path, "rb") as file:
            connection.request(
                "PUT",
                f"{BLOBS_PATH}/{payload.digest.hex()}",
                body=_until_answered(_pieces_on_disk(file), connection),
                headers={"Content-Length": str(payload.size_bytes)},
            )
        _check(connection.getresponse(), payload.digest)


def fetch(address: Address, digest: bytes, path: str) -> None:
    """Download a blob to `path`, verified; nothing stands at `path` where it fails.

    Raises BlobMissingError, BlobCorruptError, RefusedError, OSError where it cannot be written;
    ChannelClosedError where it broke.
    """
    partial = path + _PARTIAL_SUFFIX
    with _told(address), closing(_connection(address)) as connection:
        try:
            connection.request("GET", f"{BLOBS_PATH}/{digest.hex()}")
            response = connection.getresponse()
            _check(response, digest)
            _save(response, digest, partial)
            with _on_disk():
                os.replace(partial, path)
        finally:
            with _on_disk():
                Path(partial).unlink(missing_ok=True)


def _save(response: http.client.HTTPResponse, digest: bytes, path: str) -> None:
    seen, size = hashlib.sha256(), 0
    with _opened(path, "wb") as file:
        while piece := response.read(BLOB_CHUNK_BYTES):
            size += len(piece)
            if size > PAYLOAD_BYTES_MAX:
                raise BlobTooLargeError(f"the blob is over {PAYLOAD_BYTES_MAX} bytes")
            seen.update(piece)
            with _on_disk():
                file.write(piece)
    if seen.digest() != digest:
        raise BlobCorruptError(f"blob {digest.hex()} arrived as {seen.hexdigest()}")


@contextmanager
def _told(address: Address) -> Iterator[None]:
    """Tell of a broken connection by its address, and of our disk as such."""
    try:
        yield
    except _DiskError as broken_here:
        raise broken_here.error from None
    except (OSError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        raise ChannelClosedError(f"{address.text}: {said}") from None


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


def _until_answered(
    pieces: Iterator[bytes], connection: http.client.HTTPConnection
) -> Iterator[bytes]:
    """Stop where an answer is there before the end: it is a refusal, and what follows is unread."""
    heard = select.poll()
    if not isinstance(connection, http.client.HTTPSConnection):
        # What TLS says by itself would look like an answer.
        heard.register(connection.sock, select.POLLIN)
    for piece in pieces:
        if heard.poll(0):
            return
        yield piece


def _check(response: http.client.HTTPResponse, digest: bytes) -> None:
    """Raise what a refusal means."""
    status = response.status
    if status < 300:
        return
    text = _said(response.read(_TEXT_BYTES_MAX))
    if status == http.HTTPStatus.NOT_FOUND:
        raise BlobMissingError(f"no blob has the digest {digest.hex()}")
    if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        raise BlobTooLargeError(text)
    if status == http.HTTPStatus.INSUFFICIENT_STORAGE:
        raise StoreFullError(text)
    if status >= 500:
        raise ChannelClosedError(f"HTTP {status}: {text}")
    raise RefusedError(f"HTTP {status}: {text}", code="blob")


def _said(body: bytes) -> str:
    """Return the text of a refusal as our routes give it, or whatever else was answered."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return body.decode(errors="replace")
