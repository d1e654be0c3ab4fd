"""Blobs over HTTP, beside the sessions at the same address: whole files up and down.

Owns which address a blob goes to, and the threads on which it goes. What moves it is imported with
the first blob: most clients never see one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

from holdfast.errors import BlobMissingError, ChannelClosedError
from holdfast.interpreter import refuses_threads
from holdfast.model.outcome import Encoding, Payload
from holdfast.transports.address import Address

P = ParamSpec("P")
T = TypeVar("T")


class HttpBlobs:
    """Moves files between this host and the blob store of a coordinator.

    `addresses` go by the URL of their coordinator. All are tried in turn, until `session` names the
    one whose rows are to name the blobs: another may keep another store.
    """

    __slots__ = ("_addresses", "_chosen")

    def __init__(self, addresses: Mapping[str, Address]) -> None:
        self._addresses = dict(addresses)
        self._chosen = tuple(addresses.values())

    def session(self, url: str) -> None:
        """Go to the coordinator at this URL from now on; there is a session with it."""
        self._chosen = (self._addresses[url],)

    async def put(self, path: str, payload: Payload) -> None:
        """Upload a file that has the digest and size of `payload`; durable on return.

        Raises BlobMissingError where there is no such file, OSError where it cannot be read,
        BlobTooLargeError, StoreFullError, RefusedError; ChannelClosedError where it broke.
        """
        from holdfast.transports import blob_transfer

        if not await _aside(os.path.exists, path):
            raise BlobMissingError(f"the file {path} of a payload is gone")
        await self._at_any(lambda address: blob_transfer.put(address, path, payload))

    async def store(self, path: str, encoding: Encoding) -> Payload:
        """Upload a file whose digest is not known yet; return its payload. Raises like `put`."""
        from holdfast.transports import blob_transfer

        payload = await _aside(blob_transfer.describe, path, encoding)
        await self.put(path, payload)
        return payload

    async def fetch(self, digest: bytes, path: str) -> None:
        """Download a blob to `path`, verified; nothing stands at `path` where it fails.

        Raises BlobMissingError, BlobCorruptError, RefusedError, OSError where it cannot be
        written; ChannelClosedError where it broke.
        """
        from holdfast.transports import blob_transfer

        await self._at_any(lambda address: blob_transfer.fetch(address, digest, path))

    def discard(self, path: str) -> None:
        """Remove a file that is needed no longer; a missing one is fine."""
        Path(path).unlink(missing_ok=True)

    async def _at_any(self, transfer: Callable[[Address], None]) -> None:
        """Try the addresses in turn: the first that answers decides."""
        broken = ChannelClosedError("no address for blobs is configured")
        for address in self._chosen:
            try:
                return await _aside(transfer, address)
            except ChannelClosedError as error:
                broken = error
        raise broken


async def _aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call on a thread, or here where the interpreter ends and starts none any more."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except RuntimeError as error:
        # Some releases of Python 3.12 refuse so early that the last payloads are still to be sent.
        if not refuses_threads(error):
            raise
    return call(*args, **kwargs)
