"""A disk that is full: no new tasks, but what runs is settled, and all goes on once there is room.

The coordinator's state lies on a small file system of its own, in a mount namespace that ends with
the coordinator, so that nothing is left mounted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

import pytest

from holdfast import wiring
from holdfast.core.wire import Wire
from holdfast.errors import NoCoordinatorError
from holdfast.lab.cluster import Cluster
from holdfast.model.ids import IdMint
from holdfast.model.messages import (
    PROTOCOL,
    ClientFrame,
    ClientHello,
    Message,
    Refused,
    Submit,
)
from holdfast.model.task import Spec
from holdfast.payloads import encode_call
from holdfast.transports.address import parse_address
from holdfast.transports.websocket import WebSocketDialer
from tests.integration import bodies
from tests.integration.conftest import ROOT, Seen

SIZE_MEBIBYTES = 40
_PIECE_BYTES = 64 * 1024
_SECONDS = 20

_START = (
    'mount -t tmpfs -o size="$1"m tmpfs "$2" && exec "$3" -m holdfast coordinator '
    '--state-dir "$2" --port "$4"'
)


def namespaces() -> list[str]:
    """Return the command that gives a mount namespace here; skip where there is none."""
    if shutil.which("unshare") is None:
        pytest.skip("a mount namespace needs unshare(1)")
    for words in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        tried = [*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("no mount namespace may be made here")


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A coordinator on a small disk; `inside` is its state directory, seen through its process."""

    url: str
    process: subprocess.Popen[bytes]
    inside: Path

    def fill(self) -> None:
        """Write until there is no room."""
        descriptor = os.open(self.inside / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (_PIECE_BYTES, 512):
                try:
                    while os.write(descriptor, bytes(size)) == size:
                        continue
                except OSError:
                    continue
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        (self.inside / "filler").unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    state = folder / "state"
    state.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [*namespaces(), "sh", "-c", _START, "sh", str(SIZE_MEBIBYTES), str(state)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*words, sys.executable, str(port)], stdout=log, stderr=log)
    try:
        inside = Path(f"/proc/{process.pid}/root{state}")
        yield SmallDisk(f"http://127.0.0.1:{port}", process, inside)
    finally:
        process.terminate()
        process.wait(_SECONDS)


async def answer_to_a_submission(url: str) -> Message:
    """Submit a task as a client does on the wire, and return what is said to it."""
    channel = await WebSocketDialer(parse_address(url)).dial()
    wire = Wire(ClientFrame)
    payload = encode_call((-1,), {}, spill_to=Path()).payload
    spec = Spec(IdMint(SystemRandom()).next(1), "builtins:abs", payload, submitted_ms=1)
    said = deque[Message]([ClientHello(PROTOCOL, "on the wire", "0", "3.11")])
    try:
        await channel.send(wire.write(said))
        wire.read(await channel.receive())
        await channel.send(wire.write(deque([Submit((spec,))])))
        async with asyncio.timeout(_SECONDS):
            while True:
                for message in wire.read(await channel.receive()).body:
                    return message
    finally:
        await channel.close()


def test_a_full_disk_refuses_new_tasks_and_settles_the_old(tmp_path: Path, seen: Seen) -> None:
    release = tmp_path / "release"
    enclosed = b"x" * 100_000
    with small_disk(tmp_path) as disk, Cluster(tmp_path / "workers") as workers:
        try:
            client = wiring.connect(disk.url, connect_seconds=_SECONDS)
        except NoCoordinatorError as error:
            raise AssertionError((tmp_path / "log").read_text()) from error
        with client:
            workers.start_worker("one", "--path", ROOT, "--slots", "3", url=disk.url)
            running = [client.submit(bodies.hold, n, seen.path, str(release)) for n in range(3)]
            seen.until_busy(*(future.id for future in running))
            disk.fill()
            refused = client.submit(bodies.add, 20, 22)
            closures = [client.submit(lambda: len(enclosed)) for _ in range(3)]
            told = asyncio.run(answer_to_a_submission(disk.url))
            assert isinstance(told, Refused)
            assert told.code == "no_room", told.text
            assert told.retry_after_seconds > 0
            # A share of the small disk, and the ballast that was given up.
            assert told.text.endswith("until 6.3 MiB are free"), told.text
            with pytest.raises(TimeoutError):
                refused.wait_accepted(0.5)
            release.touch()
            assert [future.result(_SECONDS) for future in running] == [0, 1, 2]
            assert not refused.done()
            assert not any(closure.done() for closure in closures)
            assert disk.process.poll() is None
            disk.clear()
            assert refused.result(_SECONDS) == 42
            assert [closure.result(_SECONDS) for closure in closures] == [100_000] * 3
            assert [len(seen.runs_of(future.id)) for future in running] == [1, 1, 1]
