"""Blobs as files: `ab/cdef…` below one directory, named by their SHA-256.

Owns the directory. A blob is written beside its place, made durable, and then renamed, so that a
name never shows half of its bytes. Reads and writes one chunk at a time, whatever a blob's size.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from holdfast.disk import NO_ROOM, fsync_directory
from holdfast.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobTooLargeError,
    ConfigurationError,
    StoreFullError,
)
from holdfast.model.limits import BLOB_CHUNK_BYTES
from holdfast.model.outcome import Encoding, Payload

T = TypeVar("T")

LEFTOVER_SECONDS = 3600.0
"""A file that its writer left behind is removed at this age; a younger one may be in the making."""

_MAKING = "making"


class LocalBlobs:
    """`ports.BlobStore` over a directory. `inline` touches the disk on the calling thread."""

    def __init__(self, directory: Path, *, inline: bool = False) -> None:
        self._directory = directory
        self._inline = inline

    async def open(self) -> None:
        """Make the directory, and remove what dead writers left.

        Raises ConfigurationError where the directory cannot be made or written.
        """
        await self._run(self._open)

    async def put(self, chunks: AsyncIterator[bytes], *, bytes_max: int) -> Payload:
        """Store a stream, durable on return. Storing the same bytes again changes nothing.

        Raises BlobTooLargeError past `bytes_max`, StoreFullError where there is no room.
        """
        making = _Making(self._directory / _MAKING / secrets.token_hex(16))
        try:
            with _room_is_told():
                await self._run(making.begin)
                async for chunk in chunks:
                    if making.size_bytes + len(chunk) > bytes_max:
                        raise BlobTooLargeError(f"the payload is above {bytes_max} bytes")
                    await self._run(partial(making.add, chunk))
                digest = making.digest
                await self._run(partial(making.finish, self._path(digest)))
        finally:
            # Not in a thread: a cancelled task must not wait again, and this is one system call.
            making.abandon()
        return Payload(Encoding.JSON, digest=digest, size_bytes=making.size_bytes)

    async def get(self, digest: bytes) -> AsyncIterator[bytes]:
        """Yield a blob's bytes.

        Raises BlobMissingError at once, BlobCorruptError at its end: what was yielded until then
        must not be trusted.
        """
        path = self._path(digest)
        try:
            file = await self._run(partial(_open_to_read, path))
        except FileNotFoundError:
            raise BlobMissingError(f"no blob {digest.hex()} in {self._directory}") from None
        seen = hashlib.sha256()
        with file:
            while chunk := await self._run(partial(file.read, BLOB_CHUNK_BYTES)):
                seen.update(chunk)
                yield chunk
        if seen.digest() != digest:
            raise BlobCorruptError(f"{path} holds the bytes of {seen.hexdigest()}")

    async def has(self, digest: bytes) -> bool:
        """Tell whether a blob is here."""
        return await self._run(self._path(digest).is_file)

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._directory / name[:2] / name[2:]

    async def _run(self, call: Callable[[], T]) -> T:
        return call() if self._inline else await asyncio.to_thread(call)

    def _open(self) -> None:
        making = self._directory / _MAKING
        try:
            _make(making)
            oldest = time.time() - LEFTOVER_SECONDS
            for leftover in making.iterdir():
                if leftover.stat().st_mtime < oldest:
                    leftover.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the blob directory {self._directory} cannot be used ({error}); "
                "give this user the right to write there, or choose another"
            ) from error


class _Making:
    """One blob on its way: a file under a name of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._abandoned = False
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def begin(self) -> None:
        if not self._path.parent.is_dir():
            # Somebody removed it while we ran; what was in it is missed when it is asked for.
            _make(self._path.parent)
        self._file = self._path.open("xb", buffering=BLOB_CHUNK_BYTES)
        if self._abandoned:
            # The putter was cancelled while this thread opened the file.
            self.abandon()

    def add(self, chunk: bytes) -> None:
        assert self._file is not None
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def finish(self, place: Path) -> None:
        """Make the blob durable in its place: bytes first, then name, then directory."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        place.parent.mkdir(exist_ok=True)
        # The writer that made it may have died before it was durable.
        fsync_directory(place.parent.parent)
        # Also over a blob that is here already: that mends one whose bytes were corrupted.
        self._path.replace(place)
        fsync_directory(place.parent)

    def abandon(self) -> None:
        """Remove what was not finished; does nothing after `finish` has renamed it."""
        self._abandoned = True
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                # What the buffer still held found no room either.
                if error.errno not in NO_ROOM:
                    raise
            self._path.unlink(missing_ok=True)


@contextmanager
def _room_is_told() -> Iterator[None]:
    """Turn a lack of room into StoreFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StoreFullError(f"no room for the blob: {error}") from error


def _make(making: Path) -> None:
    """Make the directory of blobs, with the one for those in the making, by durable names."""
    making.mkdir(parents=True, exist_ok=True)
    fsync_directory(making.parent.parent)
    fsync_directory(making.parent)


def _open_to_read(path: Path) -> BinaryIO:
    return path.open("rb")
