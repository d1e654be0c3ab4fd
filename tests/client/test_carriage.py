"""Large payloads of a client: whatever breaks on the way, nobody waits for it in vain."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

import pytest

from holdfast.client.carriage import Carriage
from holdfast.errors import (
    BlobCorruptError,
    ChannelClosedError,
    ResultUnreadableError,
    StoreFullError,
)
from holdfast.model.messages import Settled
from holdfast.model.outcome import Encoding, Payload, Reason
from holdfast.model.task import Spec, State
from tests.client import work
from tests.client.scripted import Scripted, client_of

LARGE = Payload(Encoding.JSON, digest=b"d" * 32, size_bytes=100_000)
NO_ROOM = OSError(28, "No space left on device")
BREAKS = [NO_ROOM, FileNotFoundError("gone"), BlobCorruptError("spoilt"), ValueError("a fault")]


class Blobs:
    """Moves nothing: raises what is left of `failures`, one for each transfer."""

    def __init__(self, *failures: Exception, data: bytes = b"") -> None:
        self.failures = list(failures)
        self.data = data

    async def put(self, path: str, payload: Payload) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def fetch(self, digest: bytes, path: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        await asyncio.to_thread(Path(path).write_bytes, self.data)


async def no_pause(tries: int) -> None:
    """Try again at once."""


def settled(spec: Spec) -> Settled:
    return Settled(spec.id, State.SUCCEEDED, Reason.NONE, LARGE, None)


@pytest.mark.parametrize("broken", BREAKS)
def test_an_upload_that_breaks_here_ends_the_future(tmp_path: Path, broken: Exception) -> None:
    with client_of(Scripted(), tmp_path, blobs=Blobs(broken)) as client:
        future = client.submit(work.double, "x" * 100_000)
        assert future.exception(10) is broken
        assert client.submit(work.double, 2).result(10) == 4


@pytest.mark.parametrize("broken", BREAKS)
def test_a_download_that_breaks_here_ends_the_future(tmp_path: Path, broken: Exception) -> None:
    scripted = Scripted()
    scripted.run = settled
    with client_of(scripted, tmp_path, blobs=Blobs(broken)) as client:
        error = client.submit(work.double, 1).exception(10)
        if isinstance(broken, BlobCorruptError):
            assert error is broken
        else:
            assert isinstance(error, ResultUnreadableError)
            assert error.__cause__ is broken


def test_a_download_without_a_folder_ends_the_future(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.run = settled
    with client_of(scripted, tmp_path / "gone", blobs=Blobs()) as client:
        error = client.submit(work.double, 1).exception(10)
        assert isinstance(error, ResultUnreadableError)
        assert isinstance(error.__cause__, FileNotFoundError)


class Leaves:
    """Ends the program that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return sys.exit, (3,)


def test_a_large_result_that_would_end_the_program_ends_the_future(tmp_path: Path) -> None:
    scripted = Scripted()
    large = Payload(Encoding.PICKLE, digest=b"d" * 32, size_bytes=100_000)
    scripted.run = lambda spec: Settled(spec.id, State.SUCCEEDED, Reason.NONE, large, None)
    blobs = Blobs(data=pickle.dumps(Leaves()))
    with client_of(scripted, tmp_path, blobs=blobs) as client:
        error = client.submit(work.double, 1).exception(10)
        assert isinstance(error, ResultUnreadableError)
        assert error.__cause__ is not None
        assert isinstance(error.__cause__.__cause__, SystemExit)
        scripted.run = scripted.run_here
        assert client.submit(work.double, 1).result(10) == 2


def test_a_break_of_the_channel_is_tried_again(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.run = settled
    blobs = Blobs(ChannelClosedError("reset"), data=b"42")
    with client_of(scripted, tmp_path, blobs=blobs) as client:
        assert client.submit(work.double, 1).result(10) == 42


def test_what_does_not_get_through_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    carriage = Carriage(Blobs(*[ChannelClosedError("HTTP 500")] * 20), tmp_path, no_pause)
    assert asyncio.run(carriage.up(str(tmp_path / "gone"), LARGE)) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "HTTP 500" in caplog.text


def test_a_payload_whose_file_is_gone_is_up_all_the_same(tmp_path: Path) -> None:
    carriage = Carriage(Blobs(), tmp_path, no_pause)
    assert asyncio.run(carriage.up(str(tmp_path / "gone"), LARGE)) is None


def test_an_upload_that_is_given_up_while_it_waits_tells_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        paused = asyncio.Event()

        async def pause(tries: int) -> None:
            paused.set()
            await asyncio.Event().wait()

        carriage = Carriage(Blobs(StoreFullError("no room")), tmp_path, pause)
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(carriage.up(str(tmp_path / "gone"), LARGE))
            await paused.wait()
            assert carriage.held_back == "no room"
            upload.cancel()
        assert carriage.held_back == ""

    asyncio.run(main())
    assert len(caplog.records) == 1
