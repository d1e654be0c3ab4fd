"""The ports of what is too large for a frame: blobs down, results up, and the shelf between.

Paths are names to the worker: only adapters open what they name, so that a simulated disk does.
"""

from __future__ import annotations

from typing import Protocol

from holdfast.model.outcome import Encoding, Payload

PAYLOADS = "payloads"
"""The folder of a worker's home that holds large payloads while their attempts last."""


class Transfers(Protocol):
    """Moves whole files between this host and the blob store of the present coordinator."""

    def session(self, url: str) -> None:
        """Note whose rows will name the blobs: with its coordinator they belong."""
        ...

    async def fetch(self, digest: bytes, path: str) -> None:
        """Write a blob to `path`, verified against its digest.

        Raises DefiniteError, IndefiniteError or OSError; nothing rests at `path` then.
        """
        ...

    async def store(self, path: str, encoding: Encoding) -> Payload:
        """Make a file a blob, durable on return; the file stays. Raises like `fetch`."""
        ...

    def discard(self, path: str) -> None:
        """Remove a file that is needed no longer; a missing one is fine."""
        ...


class Shelf(Protocol):
    """Large results that wait on this worker's disk until there is a blob store again."""

    async def keep(self, path: str, encoding: Encoding) -> Payload:
        """Move a file to its place under its SHA-256, durable on return. Raises OSError."""
        ...

    def path_of(self, digest: bytes) -> str:
        """Return where a result rests, "" where it does not."""
        ...
