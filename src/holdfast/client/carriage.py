"""Payloads too large for a frame: up before the task is submitted, down before it is settled.

Runs on the loop, a few transfers at once; files are temporary and removed here. It knows blobs only
by the protocol below, and never decides what becomes of a task.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from holdfast.client.future import Future, decoded, unreadable
from holdfast.errors import ChannelClosedError, HoldfastError, RefusedError, StoreFullError
from holdfast.model.messages import Settled
from holdfast.model.outcome import Payload
from holdfast.observe import logger

TRANSFERS_MAX = 4
_TRIES_UNTOLD = 4
"""So many breaks are no news; one more is told, once."""
_LOG = logger("client.blobs")


class Blobs(Protocol):
    """Moves whole files between here and the coordinator's blob store."""

    async def put(self, path: str, payload: Payload) -> None:
        """Upload a file that has the digest and size of `payload`; durable on return."""
        ...

    async def fetch(self, digest: bytes, path: str) -> None:
        """Download a blob to `path`, verified."""
        ...


class Carriage:
    """The transfers of one client. `pause` waits between tries, longer each time it is asked."""

    def __init__(
        self, blobs: Blobs | None, spill_to: Path | None, pause: Callable[[int], Awaitable[None]]
    ) -> None:
        self._blobs = blobs
        self._spill_to = spill_to
        self._pause = pause
        self._room = asyncio.Semaphore(TRANSFERS_MAX)
        self._waiting = 0
        """How many uploads the coordinator has no room for now."""
        self.held_back = ""
        """Why some payloads do not get up for now, "" where they do."""

    async def up(self, path: str, payload: Payload) -> Exception | None:
        """Upload a payload and remove its file; return the error where that surely failed.

        Whatever broke is returned, an OSError of this host too: somebody waits for the future.
        """
        try:
            await self._try(lambda blobs: self._put(blobs, path, payload))
        except Exception as error:
            return error
        finally:
            _remove(path)
        return None

    async def _put(self, blobs: Blobs, path: str, payload: Payload) -> None:
        # Only while it goes: an upload that waits for a disk must not keep results from coming.
        async with self._room:
            await blobs.put(path, payload)

    async def down(self, settled: Settled, future: Future[object]) -> tuple[object] | BaseException:
        """Download a result and decode it on a thread; return (value,) or what was raised.

        Whatever broke is returned, an OSError of this host too: somebody waits for the future.
        """
        try:
            return await self._down(settled, future)
        except HoldfastError as error:
            return error
        except Exception as error:
            return unreadable(future, error)

    async def _down(
        self, settled: Settled, future: Future[object]
    ) -> tuple[object] | BaseException:
        assert settled.result is not None
        digest = settled.result.digest
        async with self._room:
            from tempfile import TemporaryDirectory

            with TemporaryDirectory(
                prefix="result-", dir=self._spill_to, ignore_cleanup_errors=True
            ) as folder:
                path = str(Path(folder, digest.hex()))
                await self._try(lambda blobs: blobs.fetch(digest, path))
                value, raised = await asyncio.to_thread(_decoded, settled, future, path)
                return (value,) if raised is None else raised

    async def _try(self, transfer: Callable[[Blobs], Awaitable[None]]) -> None:
        """Transfer, and again after a break or a full disk, until it is done or surely refused."""
        if self._blobs is None:
            raise RefusedError("payloads over 64 KiB need a blob store at the URL", code="blob")
        tries = 0
        waits = done = False
        try:
            while not done:
                try:
                    await transfer(self._blobs)
                    done = True
                except StoreFullError as error:
                    self._hold_back(str(error), new=not waits)
                    waits = True
                except ChannelClosedError as error:
                    tell = _LOG.warning if tries == _TRIES_UNTOLD else _LOG.debug
                    tell("a large payload does not get through, and is tried again: %s", error)
                if not done:
                    await self._pause(tries)
                    tries += 1
        finally:
            if waits:
                self._let_go(done=done)

    def _hold_back(self, why: str, *, new: bool) -> None:
        """Tell once that large payloads wait, however many do, and however often each is sent."""
        if new and not self._waiting:
            _LOG.warning("a large payload waits, and is sent again and again: %s", why)
        self._waiting += new
        self.held_back = why

    def _let_go(self, *, done: bool) -> None:
        self._waiting -= 1
        if not self._waiting:
            self.held_back = ""
            if done:
                _LOG.warning("large payloads are taken again")


def _decoded(
    settled: Settled, future: Future[object], path: str
) -> tuple[object, BaseException | None]:
    """Decode on a thread of ours, where what raises SystemExit would end the loop's."""
    try:
        return decoded(settled, future, path)
    except BaseException as error:
        return None, unreadable(future, error)


def _remove(path: str) -> None:
    """Remove the file of a payload; one that stays takes room and does no other harm."""
    try:
        os.unlink(path)
    except OSError as error:
        _LOG.debug("a payload's file was not removed: %s", error)
