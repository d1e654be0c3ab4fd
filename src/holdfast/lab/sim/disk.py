"""What a worker's host keeps when the worker dies: its home, its spool, its files.

Owns the rule of a crash: what `save` returned for is durable, what it was about to write is lost.
Each write has its crash points.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.errors import BlobMissingError, ChannelClosedError
from holdfast.lab.sim.coverage import CrashPoints
from holdfast.lab.sim.loop import Party
from holdfast.lab.sim.witness import Blobs
from holdfast.model.ids import Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import Encoding, Payload

WRITE_SECONDS = (0.0003, 0.004)
MOVE_SECONDS = (0.001, 0.010)

"""The blob store behind the coordinator, by SHA-256; durable."""


class WorkerDisk:
    """The disk of one worker's host; it outlives every process on it."""

    __slots__ = ("files", "identity", "incarnation", "shelf", "spooled", "store")

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.incarnation = 0
        self.store = ("", 0)
        self.spooled: dict[Token, Ended] = {}
        self.shelf: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}


class SimHome:
    """`ports.WorkerHome` over a simulated disk."""

    __slots__ = ("_disk", "_party", "_points", "identity")

    def __init__(self, disk: WorkerDisk, party: Party, points: CrashPoints) -> None:
        self._disk = disk
        self._party = party
        self._points = points
        self.identity = disk.identity

    @property
    def path(self) -> Path:
        """A name; nothing opens it."""
        return Path("home") / self.identity

    def next_incarnation(self) -> int:
        """Return a number above all former ones."""
        self._party.alive()
        with self._points.around(self._party, "disk incarnation"):
            self._disk.incarnation += 1
        return self._disk.incarnation

    def store(self) -> tuple[str, int]:
        """Return the store that was remembered last."""
        self._party.alive()
        return self._disk.store

    def remember_store(self, store: str, timeline: int) -> None:
        """Note whose session this is."""
        self._party.alive()
        with self._points.around(self._party, "disk store"):
            self._disk.store = (store, timeline)


class SimSpool:
    """`ports.Spool` over a simulated disk; each write takes a while and is then durable as one."""

    __slots__ = ("_disk", "_party", "_points", "_rng")

    def __init__(
        self, disk: WorkerDisk, party: Party, rng: random.Random, points: CrashPoints
    ) -> None:
        self._disk = disk
        self._party = party
        self._rng = rng
        self._points = points

    def load(self) -> list[Ended]:
        """Return what is durable, oldest first."""
        self._party.alive()
        return list(self._disk.spooled.values())

    async def save(self, outcomes: Sequence[Ended]) -> None:
        """Append; durable on return."""
        with self._points.around(self._party, "disk spool"):
            await self._write()
            self._disk.spooled.update((ended.token, ended) for ended in outcomes)

    async def forget(self, tokens: Sequence[Token]) -> None:
        """Drop those that were answered."""
        with self._points.around(self._party, "disk forget"):
            await self._write()
            for token in tokens:
                self._disk.spooled.pop(token, None)

    async def _write(self) -> None:
        self._party.alive()
        await asyncio.sleep(self._rng.uniform(*WRITE_SECONDS))
        self._party.alive()


class SimFiles:
    """`worker.transfers.Transfers` and `Shelf`: results that are too large for a frame.

    `reachable` tells whether the blob store answers this host now.
    """

    __slots__ = ("_blobs", "_disk", "_party", "_points", "_reachable", "_rng")

    def __init__(
        self,
        disk: WorkerDisk,
        blobs: Blobs,
        party: Party,
        *,
        rng: random.Random,
        points: CrashPoints,
        reachable: Callable[[], bool],
    ) -> None:
        self._disk = disk
        self._blobs = blobs
        self._party = party
        self._rng = rng
        self._points = points
        self._reachable = reachable

    def session(self, url: str) -> None:
        """There is one coordinator, with one blob store."""
        self._party.alive()

    async def fetch(self, digest: bytes, path: str) -> None:
        """Write a blob to a file. Raises BlobMissingError, ChannelClosedError."""
        await self._move()
        if digest not in self._blobs:
            raise BlobMissingError("no such blob")
        self._disk.files[path] = self._blobs[digest]

    async def store(self, path: str, encoding: Encoding) -> Payload:
        """Make a file a blob, durable on return. Raises ChannelClosedError."""
        with self._points.around(self._party, "blob"):
            await self._move()
            data = self._disk.shelf.get(path) or self._disk.files[path]
            digest = hashlib.sha256(data).digest()
            self._blobs[digest] = data
        return Payload(encoding, digest=digest, size_bytes=len(data))

    def discard(self, path: str) -> None:
        """Remove a file."""
        self._party.alive()
        self._disk.files.pop(path, None)
        self._disk.shelf.pop(path, None)

    async def keep(self, path: str, encoding: Encoding) -> Payload:
        """Put a file on the shelf, durable on return."""
        self._party.alive()
        with self._points.around(self._party, "disk shelf"):
            await asyncio.sleep(self._rng.uniform(*WRITE_SECONDS))
            self._party.alive()
            data = self._disk.files.pop(path)
            digest = hashlib.sha256(data).digest()
            self._disk.shelf[_shelf_path(digest)] = data
        return Payload(encoding, digest=digest, size_bytes=len(data))

    def path_of(self, digest: bytes) -> str:
        """Return where a result rests on the shelf, "" where it does not."""
        self._party.alive()
        path = _shelf_path(digest)
        return path if path in self._disk.shelf else ""

    async def _move(self) -> None:
        self._party.alive()
        await asyncio.sleep(self._rng.uniform(*MOVE_SECONDS))
        self._party.alive()
        if not self._reachable():
            raise ChannelClosedError("the blob store does not answer")


def _shelf_path(digest: bytes) -> str:
    return f"shelf/{digest.hex()}"
