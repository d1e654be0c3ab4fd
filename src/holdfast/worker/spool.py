"""Outcomes and large results on the worker's disk, for its next incarnation to deliver.

The spool is one file that only grows: a magic, then records of (length, CRC-32, MessagePack). What
does not verify is skipped, up to the next record that does: a bad spot costs what it hit, and
nothing behind it; one in the magic costs nothing, unless the file names another version now. Only
what follows the last good record, the torn tail that a crash leaves, is cut off before the next
append. Answered outcomes are forgotten in memory; the file is emptied when all are answered, and
written anew when most of it is answered. A crash in between only means that an outcome is delivered
twice, which is harmless: it is idempotent by its token.

The shelf is a directory of large results, each under its SHA-256. What the spool does not name when
it is loaded is removed from there: nobody will ever ask for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from holdfast.disk import NO_ROOM, fsync_directory
from holdfast.errors import StoreFullError, StoreVersionError
from holdfast.model.ids import Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import Encoding, Payload
from holdfast.observe import logger

SPOOL_BYTES_MAX = 256 * 1024 * 1024
REWRITE_BYTES = 4 * 1024 * 1024
"""A file above this size is written anew where most of it is answered."""
RECORD_BYTES_MAX = 1024 * 1024
COPY_BYTES = 1024 * 1024

_MAGIC = b"holdfast spool 1\n"
_VERSION = re.compile(rb"holdfast spool [1-9][0-9]*\n")
_HEAD = struct.Struct(">II")
_MARK = b"\x01\xc4\x10"
"""What follows the first byte of each encoded outcome: its tag, and the head of its task's id."""
_LOG = logger("worker.spool")


class FileSpool:
    """`ports.Spool` over one file. Disk work runs off the event loop, one call at a time.

    `shelf` has the large results that its outcomes name.
    """

    __slots__ = ("_end", "_live", "_named", "_path", "_shelf", "_turn")

    def __init__(self, path: Path, shelf: FileShelf | None = None) -> None:
        self._path = path
        self._shelf = shelf
        self._live: dict[Token, Ended] = {}
        self._end = 0
        """Where the last good record ends; 0 before the file is made."""
        self._named = False
        """Whether the file's name is known to be durable, too."""
        self._turn = asyncio.Lock()

    def load(self) -> list[Ended]:
        """Return what is spooled and verifies, oldest first; the newest record of a token counts.

        What a former life has left besides, and on the shelf, is removed. Raises OSError where the
        file cannot be read, StoreVersionError where it is not ours.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        if not _MAGIC.startswith(data[: len(_MAGIC)]):
            if not _is_ours(data):
                raise StoreVersionError(f"{self._path} is not a spool that this release can read")
            _LOG.error("the head of the spool does not verify; its records are read all the same")
        records, self._end = _records(data)
        if self._end < len(data):
            _LOG.warning("the spool's last %d bytes are torn; cut off", len(data) - self._end)
        self._live = {ended.token: ended for ended in records}
        self._making.unlink(missing_ok=True)
        if self._shelf is not None:
            results = (ended.result for ended in self._live.values())
            self._shelf.keep_only([result.digest for result in results if result is not None])
        return list(self._live.values())

    async def save(self, outcomes: Sequence[Ended]) -> None:
        """Append outcomes; file and directory are durable on return.

        Raises StoreFullError where the disk or the spool has no room.
        """
        async with self._turn:
            data = b"".join(map(_record, outcomes))
            if self._end + len(data) > SPOOL_BYTES_MAX:
                raise StoreFullError(f"the spool {self._path} would exceed {SPOOL_BYTES_MAX} bytes")
            await asyncio.to_thread(self._append, data)
            self._live.update((ended.token, ended) for ended in outcomes)

    async def forget(self, tokens: Sequence[Token]) -> None:
        """Drop outcomes that were answered. Raises StoreFullError where a rewrite has no room."""
        async with self._turn:
            for token in tokens:
                self._live.pop(token, None)
            if not self._end:
                return
            if not self._live:
                await asyncio.to_thread(self._empty)
            elif self._end > REWRITE_BYTES:
                data = b"".join(map(_record, self._live.values()))
                if len(data) < self._end // 2:
                    await asyncio.to_thread(self._rewrite, data)

    def _append(self, data: bytes) -> None:
        fresh = not self._end
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Also cuts a torn tail, or what a failed append has left.
            os.ftruncate(handle, self._end)
            whole = _MAGIC + data if fresh else data
            _write_all(handle, whole, offset=self._end)
            os.fsync(handle)
        except OSError as error:
            raise _meant(error, self._path) from error
        finally:
            os.close(handle)
        if not self._named:
            self._name()
        self._end += len(whole)

    def _empty(self) -> None:
        os.truncate(self._path, 0)
        self._end = 0

    def _rewrite(self, data: bytes) -> None:
        making = self._making
        handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(handle, _MAGIC + data, offset=0)
            os.fsync(handle)
        except OSError as error:
            raise _meant(error, self._path) from error
        finally:
            os.close(handle)
        making.replace(self._path)
        # It is the file from here on, also where the disk fails to keep its name at once.
        self._end = len(_MAGIC) + len(data)
        self._named = False
        self._name()

    @property
    def _making(self) -> Path:
        return self._path.with_name(f"{self._path.name}.making")

    def _name(self) -> None:
        fsync_directory(self._path.parent)
        self._named = True


class FileShelf:
    """`worker.transfers.Shelf` over a directory."""

    __slots__ = ("_directory",)

    def __init__(self, directory: Path) -> None:
        """Make the directory where it does not exist. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    async def keep(self, path: str, encoding: Encoding) -> Payload:
        """Move a file to its place under its SHA-256, durable on return. Raises OSError."""
        return await asyncio.to_thread(self._keep, Path(path), encoding)

    def path_of(self, digest: bytes) -> str:
        """Return where a result rests, "" where it does not."""
        path = self._directory / digest.hex()
        return str(path) if path.is_file() else ""

    def keep_only(self, digests: Iterable[bytes]) -> None:
        """Remove what rests here under any other name: halves, and what nobody names.

        Only before anything is kept: an outcome is spooled after its result.
        """
        named = {digest.hex() for digest in digests}
        for left_behind in self._directory.iterdir():
            if left_behind.name not in named:
                try:
                    left_behind.unlink()
                except OSError as error:
                    _LOG.warning("what nobody needs cannot be removed: %s", error)

    def _keep(self, path: Path, encoding: Encoding) -> Payload:
        digest = hashlib.sha256()
        making = self._directory / f"{path.name}.making"
        # Copied, because the child's directory may be on another file system.
        with path.open("rb") as source, making.open("wb") as target:
            for chunk in _chunks(lambda: source.read(COPY_BYTES)):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
            size = target.tell()
        making.replace(self._directory / digest.hexdigest())
        fsync_directory(self._directory)
        path.unlink(missing_ok=True)
        return Payload(encoding, digest=digest.digest(), size_bytes=size)


def _chunks(read: Callable[[], bytes]) -> Iterable[bytes]:
    return iter(read, b"")


def _record(ended: Ended) -> bytes:
    body = msgspec.msgpack.encode(ended)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _is_ours(data: bytes) -> bool:
    """Return whether a file with another head is a spool of this version, with a bad spot there.

    It has a record that verifies, and does not name another version.
    """
    named = _VERSION.match(data)
    return named is None and _next_good(data, len(_MAGIC)) >= 0


def _records(data: bytes) -> tuple[list[Ended], int]:
    """Return the outcomes of the good records, and where the last of these ends.

    What is skipped between them is said.
    """
    if len(data) < len(_MAGIC):
        return [], 0
    decoder = msgspec.msgpack.Decoder(Ended)
    view = memoryview(data)
    found: list[Ended] = []
    end = len(_MAGIC)
    while (at := _next_good(data, end)) >= 0:
        if at > end:
            _LOG.error(
                "%d bytes of the spool do not verify: skipped, what they said is lost", at - end
            )
        size = _body_bytes(data, at)
        body = view[at + _HEAD.size : at + _HEAD.size + size]
        end = at + _HEAD.size + size
        try:
            found.append(decoder.decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _LOG.error("a record of the spool is no outcome to this release: skipped: %s", error)
    return found, end


def _next_good(data: bytes, at: int) -> int:
    """Return where the next record begins that verifies, -1 where none does.

    Behind one that does not, its length is not believed: each outcome can be found by its mark.
    """
    if _body_bytes(data, at):
        return at
    before = _HEAD.size + 1
    mark = at + before
    while (mark := data.find(_MARK, mark + 1)) >= 0:
        if _body_bytes(data, mark - before):
            return mark - before
    return -1


def _body_bytes(data: bytes, at: int) -> int:
    """Return the length of the body of the good record that begins here, 0 where none does."""
    if at + _HEAD.size > len(data):
        return 0
    length, checksum = _HEAD.unpack_from(data, at)
    body = memoryview(data)[at + _HEAD.size : at + _HEAD.size + length]
    if length > RECORD_BYTES_MAX or len(body) < length or zlib.crc32(body) != checksum:
        return 0
    return int(length)


def _write_all(handle: int, data: bytes, *, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view = view[written:]
        offset += written


def _meant(error: OSError, path: Path) -> Exception:
    if error.errno in NO_ROOM:
        return StoreFullError(f"no room for the spool {path}: {error}")
    return error
