"""The local blob store: durable in order, verified, bounded, and clean after failures."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from holdfast.blobs.local import LEFTOVER_SECONDS, LocalBlobs
from holdfast.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobTooLargeError,
    ConfigurationError,
)

BYTES_MAX = 1 << 30


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(blobs: LocalBlobs, digest: bytes) -> bytes:
    return b"".join([chunk async for chunk in blobs.get(digest)])


async def opened(directory: Path, *, inline: bool) -> LocalBlobs:
    blobs = LocalBlobs(directory, inline=inline)
    await blobs.open()
    return blobs


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.fixture(params=[True, False], ids=["inline", "threaded"])
def inline(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("chunks", [[], [b""], [b"a", b"", b"bc"], [os.urandom(300_000)] * 3])
def test_what_is_put_comes_back(tmp_path: Path, chunks: list[bytes], inline: bool) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path / "blobs", inline=inline)
        whole = b"".join(chunks)
        payload = await blobs.put(stream(chunks), bytes_max=BYTES_MAX)
        assert payload.digest == hashlib.sha256(whole).digest()
        assert payload.size_bytes == len(whole)
        assert payload.data == b""
        assert await blobs.has(payload.digest)
        assert await read(blobs, payload.digest) == whole
        name = payload.digest.hex()
        assert files(tmp_path / "blobs") == [tmp_path / "blobs" / name[:2] / name[2:]]

    asyncio.run(run())


def test_a_second_put_keeps_one_file_and_mends_a_corrupted_one(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path, inline=True)
        first = await blobs.put(stream([b"payload"]), bytes_max=BYTES_MAX)
        files(tmp_path)[0].write_bytes(b"pay!oad")
        with pytest.raises(BlobCorruptError, match=hashlib.sha256(b"pay!oad").hexdigest()):
            await read(blobs, first.digest)
        assert await blobs.put(stream([b"pay", b"load"]), bytes_max=BYTES_MAX) == first
        assert len(files(tmp_path)) == 1
        assert await read(blobs, first.digest) == b"payload"

    asyncio.run(run())


def test_a_directory_that_was_removed_is_made_again(tmp_path: Path, inline: bool) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path / "blobs", inline=inline)
        lost = await blobs.put(stream([b"lost"]), bytes_max=BYTES_MAX)
        shutil.rmtree(tmp_path / "blobs")
        kept = await blobs.put(stream([b"kept"]), bytes_max=BYTES_MAX)
        assert await read(blobs, kept.digest) == b"kept"
        assert not await blobs.has(lost.digest)

    asyncio.run(run())


def test_a_missing_blob_is_named(tmp_path: Path, inline: bool) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path, inline=inline)
        digest = hashlib.sha256(b"nothing").digest()
        assert not await blobs.has(digest)
        with pytest.raises(BlobMissingError, match=digest.hex()):
            await read(blobs, digest)

    asyncio.run(run())


def test_too_large_leaves_nothing(tmp_path: Path, inline: bool) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path, inline=inline)
        assert (await blobs.put(stream([b"12", b"34"]), bytes_max=4)).size_bytes == 4
        with pytest.raises(BlobTooLargeError, match="above 4 bytes"):
            await blobs.put(stream([b"12", b"345"]), bytes_max=4)
        assert len(files(tmp_path)) == 1

    asyncio.run(run())


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path, inline: bool) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError("cut")

    async def run() -> None:
        blobs = await opened(tmp_path, inline=inline)
        with pytest.raises(ConnectionError, match="cut"):
            await blobs.put(broken(), bytes_max=BYTES_MAX)
        assert files(tmp_path) == []

    asyncio.run(run())


def test_a_cancelled_put_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path, inline=False)
        reached = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            yield b"half"
            reached.set()
            await asyncio.Event().wait()

        async with asyncio.timeout(10):
            put = asyncio.gather(blobs.put(stuck(), bytes_max=BYTES_MAX))
            await reached.wait()
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put
        assert files(tmp_path) == []

    asyncio.run(run())


def test_only_old_leftovers_are_removed_at_open(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path, inline=True)
        kept = await blobs.put(stream([b"blob"]), bytes_max=BYTES_MAX)
        old, young = tmp_path / "making" / "old", tmp_path / "making" / "young"
        for path in (old, young):
            path.write_bytes(b"half")
        born = old.stat().st_mtime - LEFTOVER_SECONDS - 60
        os.utime(old, (born, born))
        await blobs.open()
        assert not old.exists()
        assert young.exists()
        assert await blobs.has(kept.digest)

    asyncio.run(run())


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="file/blobs"):
        asyncio.run(LocalBlobs(tmp_path / "file" / "blobs", inline=True).open())


NO_ROOM = """
    import asyncio, resource, sys
    from pathlib import Path
    from holdfast.blobs.local import LocalBlobs
    from holdfast.errors import StoreFullError

    async def chunks():
        for _ in range(64):
            yield bytes(16384)

    async def run():
        blobs = LocalBlobs(Path(sys.argv[1]), inline=True)
        await blobs.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            await blobs.put(chunks(), bytes_max=1 << 30)
        except StoreFullError:
            print("full")

    asyncio.run(run())
"""


def test_no_room_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NO_ROOM), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "full\n", done.stderr
    assert files(tmp_path) == []


def test_memory_stays_bounded(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = await opened(tmp_path, inline=True)
        chunk = bytes(1 << 18)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        payload = await blobs.put(stream(chunk for _ in range(256)), bytes_max=BYTES_MAX)
        size = 0
        async for part in blobs.get(payload.digest):
            size += len(part)
        assert size == 64 << 20
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 16 << 10

    asyncio.run(run())
