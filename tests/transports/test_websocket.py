"""Sessions and blobs over real sockets: our dialer against our server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.client.client import Client
from holdfast.client.session import Terms
from holdfast.clock import SystemClock
from holdfast.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobTooLargeError,
    ChannelClosedError,
    RefusedError,
    StoreFullError,
)
from holdfast.model.ids import IdMint
from holdfast.model.limits import FRAME_BYTES_MAX
from holdfast.model.messages import Settled
from holdfast.model.outcome import Encoding, Payload, Reason
from holdfast.model.task import Spec, State
from holdfast.payloads import decode_call, encode_result
from holdfast.ports import Channel
from holdfast.transports import serving as serving_room
from holdfast.transports.address import Address, parse_address
from holdfast.transports.asgi import Receive, Scope, Send, asgi_app
from holdfast.transports.blob_http import HttpBlobs
from holdfast.transports.serving import serve
from holdfast.transports.websocket import WebSocketDialer
from tests.client import work
from tests.client.scripted import Scripted
from tests.conftest import Eventually

Serve = Callable[[Channel], Awaitable[None]]


class Shelf:
    """Blobs in memory, behind the paths of the real routes."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.status = 0
        self.refusals = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].rpartition("/")[2]
        # What is refused is not read, as on the real routes.
        refused = self.status and scope["method"] == "PUT"
        body, more = b"", not refused
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        if refused:
            self.refusals += 1
            status, answer = self.status, b'{"error":"because"}'
        elif scope["method"] == "PUT":
            self.blobs[name] = body
            status, answer = 201, b""
        else:
            status, answer = (200, self.blobs[name]) if name in self.blobs else (404, b"")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def bound(kind: str, folder: Path) -> tuple[socket.socket, Address]:
    """Return a listening socket, as wiring makes it, and its address."""
    if kind == "unix":
        path = folder / "s"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen()
        return listening, parse_address(f"unix:{path}")
    listening = socket.create_server(("127.0.0.1", 0))
    return listening, parse_address(f"http://127.0.0.1:{listening.getsockname()[1]}")


async def echo(channel: Channel) -> None:
    with contextlib.suppress(ChannelClosedError):
        while True:
            await channel.send(await channel.receive())


@contextlib.asynccontextmanager
async def serving(
    kind: str, folder: Path, served: Serve = echo, http: Shelf | None = None
) -> AsyncIterator[Address]:
    listening, address = bound(kind, folder)
    stop, started = asyncio.Event(), asyncio.Event()
    app = asgi_app(served, http or Shelf())
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(app, sockets=[listening], stop=stop, started=started))
        await started.wait()
        try:
            yield address
        finally:
            stop.set()


@pytest.fixture(params=["tcp", "unix"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_frames_go_both_ways_whole_and_in_order(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(kind, tmp_path) as address:
            channel = await WebSocketDialer(address).dial()
            assert channel.peer == address.text
            frames = [b"", b"\x00\xff", b"x" * FRAME_BYTES_MAX, *(b"%d" % n for n in range(200))]

            async def send() -> None:
                for frame in frames:
                    await channel.send(frame)

            async with asyncio.TaskGroup() as group:
                group.create_task(send())
                assert [await channel.receive() for _ in frames] == frames
            await channel.close("done")
            await channel.close("again")
            with pytest.raises(ChannelClosedError):
                await channel.send(b"x")
            with pytest.raises(ChannelClosedError):
                await channel.receive()

    asyncio.run(main())


def test_a_frame_that_is_too_large_breaks_the_channel(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving("tcp", tmp_path) as address:
            channel = await WebSocketDialer(address).dial()
            await channel.send(b"x" * (FRAME_BYTES_MAX + 1))
            with pytest.raises(ChannelClosedError):
                await channel.receive()
            await channel.close()

    asyncio.run(main())


def test_each_end_sees_the_other_leave(tmp_path: Path) -> None:
    seen: list[str] = []
    gone = asyncio.Event()

    async def served(channel: Channel) -> None:
        word = await channel.receive()
        if word == b"close":
            await channel.close("as you wish")
            await channel.close()
            with pytest.raises(ChannelClosedError):
                await channel.send(b"x")
            with pytest.raises(ChannelClosedError):
                await channel.receive()
            return
        try:
            await channel.receive()
        except ChannelClosedError as error:
            seen.append(str(error))
            gone.set()

    async def main() -> None:
        async with serving("tcp", tmp_path, served) as address:
            channel = await WebSocketDialer(address).dial()
            await channel.send(b"close")
            with pytest.raises(ChannelClosedError, match="as you wish"):
                await channel.receive()
            await channel.close()
            channel = await WebSocketDialer(address).dial()
            await channel.send(b"stay")
            await channel.close("bye")
            await asyncio.wait_for(gone.wait(), 10)
            assert "bye" in seen[0]

    asyncio.run(main())


def test_stopping_the_server_closes_open_channels_soon(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_room, "_GRACE_SECONDS", 40)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with serving(kind, tmp_path) as address:
            channel = await WebSocketDialer(address).dial()
            await channel.send(b"x")
            await channel.receive()
            began = loop.time()
        with pytest.raises(ChannelClosedError):
            await channel.receive()
        await channel.close()
        with pytest.raises(ChannelClosedError):
            await WebSocketDialer(address).dial()
        return loop.time() - began

    assert asyncio.run(main()) < 20


def test_stopping_the_server_minds_no_channel_that_its_peer_closes(tmp_path: Path) -> None:
    """The peer has closed, and does not read what is still on its way to it."""

    async def flood(channel: Channel) -> None:
        with contextlib.suppress(ChannelClosedError):
            while True:
                await channel.send(bytes(FRAME_BYTES_MAX))

    async def main() -> None:
        ended = asyncio.Event()

        async def served(channel: Channel) -> None:
            filling = asyncio.create_task(flood(channel))
            with contextlib.suppress(ChannelClosedError):
                await channel.receive()
            ended.set()
            filling.cancel()

        mask = b"mask"
        code = bytes(a ^ b for a, b in zip((1000).to_bytes(2, "big"), mask, strict=False))
        with socket.socket(socket.AF_UNIX) as peer:
            async with serving("unix", tmp_path, served) as address:
                peer.connect(address.unix_path)
                peer.sendall(
                    b"GET /v1/session HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                assert (await asyncio.to_thread(peer.recv, 12)) == b"HTTP/1.1 101"
                peer.sendall(b"\x88\x82" + mask + code)
                async with asyncio.timeout(10):
                    await ended.wait()

    asyncio.run(main())


def test_other_paths_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving("tcp", tmp_path) as address:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(
                b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert b" 403 " in await reader.readline()
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_the_server_leaves_signals_and_logging_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving("tcp", tmp_path):
            assert signal.getsignal(signal.SIGINT) is before
            assert logging.getLogger("uvicorn").handlers == []

    before = signal.getsignal(signal.SIGINT)
    with asyncio.Runner() as runner:
        # The runner has a handler of its own for the time it runs.
        runner.get_loop()
        signal.signal(signal.SIGINT, before)
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join(20)
    assert signal.getsignal(signal.SIGINT) is before


def test_lifespan_is_answered() -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    said: list[str] = []

    async def receive() -> dict[str, object]:
        return dict(events.pop(0))

    async def send(event: object) -> None:
        assert isinstance(event, dict)
        said.append(event["type"])

    asyncio.run(_lifespan(receive, send))
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def _lifespan(receive: Receive, send: Send) -> None:
    await asgi_app(echo, Shelf())({"type": "lifespan"}, receive, send)


def test_text_is_no_frame() -> None:
    said: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.receive", "text": "hello"}

    async def send(event: object) -> None:
        said.append(event)

    async def main() -> None:
        from holdfast.transports.asgi import AsgiChannel

        channel = AsgiChannel({"client": ("1.2.3.4", 5)}, receive, send)
        assert channel.peer == "1.2.3.4:5"
        with pytest.raises(ChannelClosedError, match="sent text"):
            await channel.receive()

    asyncio.run(main())
    assert said == [{"type": "websocket.close", "code": 1003, "reason": "frames are binary"}]


def test_nobody_there(tmp_path: Path) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()

    async def main() -> None:
        for url in (f"http://127.0.0.1:{port}", f"unix:{tmp_path}/none"):
            with pytest.raises(ChannelClosedError):
                await WebSocketDialer(parse_address(url)).dial()
            with pytest.raises(ChannelClosedError):
                await HttpBlobs({url: parse_address(url)}).fetch(b"x" * 32, str(tmp_path / "b"))

    asyncio.run(main())


def test_a_server_without_tls_is_told_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving("tcp", tmp_path) as address:
            dialer = WebSocketDialer(Address(address.host, address.port, tls=True))
            with pytest.raises(ChannelClosedError, match=r"no TLS there: .*http://"):
                await dialer.dial()
            assert dialer.trouble.startswith("no TLS there")

    asyncio.run(main())


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    listening, address = bound("tcp", tmp_path)

    async def main() -> None:
        with pytest.raises(ChannelClosedError):
            await WebSocketDialer(address, open_seconds=0.05).dial()

    with listening:
        asyncio.run(main())


# Blobs.


def test_what_fails_on_our_own_disk_is_not_taken_for_a_break(tmp_path: Path) -> None:
    async def main() -> None:
        shelf = Shelf()
        given = tmp_path / "given"
        given.write_bytes(b"data")
        async with serving("unix", tmp_path, http=shelf) as address:
            blobs = HttpBlobs({"one": address, "other": address})
            payload = await blobs.store(str(given), Encoding.PICKLE)
            nowhere = str(tmp_path / "gone" / "taken")
            with pytest.raises(FileNotFoundError):
                await blobs.fetch(payload.digest, nowhere)
            with pytest.raises(IsADirectoryError):
                await blobs.put(str(tmp_path), payload)

    asyncio.run(main())


def test_blobs_go_to_the_coordinator_of_the_session(tmp_path: Path) -> None:
    """Another address may serve another store, whose rows will not name them."""

    async def main() -> None:
        shelves = Shelf(), Shelf()
        given = tmp_path / "given"
        given.write_bytes(b"data")
        (tmp_path / "other").mkdir()
        async with (
            serving("unix", tmp_path, http=shelves[0]) as one,
            serving("unix", tmp_path / "other", http=shelves[1]) as other,
        ):
            blobs = HttpBlobs({one.text: one, other.text: other})
            blobs.session(other.text)
            payload = await blobs.store(str(given), Encoding.PICKLE)
            assert (shelves[0].blobs, list(shelves[1].blobs.values())) == ({}, [b"data"])
            blobs.session(one.text)
            with pytest.raises(BlobMissingError):
                await blobs.fetch(payload.digest, str(tmp_path / "taken"))

    asyncio.run(main())


def test_blobs_go_up_and_come_down(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        shelf = Shelf()
        data = os.urandom(1_000_000)
        given, taken = tmp_path / "given", tmp_path / "taken"
        given.write_bytes(data)
        async with serving(kind, tmp_path, http=shelf) as address:
            nobody = parse_address(f"unix:{tmp_path}/none")
            blobs = HttpBlobs({"nobody": nobody, "somebody": address})
            payload = await blobs.store(str(given), Encoding.PICKLE)
            digest = hashlib.sha256(data).digest()
            assert payload == Payload(Encoding.PICKLE, digest=digest, size_bytes=len(data))
            assert shelf.blobs == {digest.hex(): data}
            await blobs.fetch(digest, str(taken))
            assert taken.read_bytes() == data
            blobs.discard(str(taken))
            blobs.discard(str(taken))
            with pytest.raises(BlobMissingError):
                await blobs.fetch(b"y" * 32, str(taken))
            shelf.blobs[digest.hex()] = data[:-1]
            with pytest.raises(BlobCorruptError):
                await blobs.fetch(digest, str(taken))
            statuses = {413: BlobTooLargeError, 507: StoreFullError, 500: ChannelClosedError}
            for status, error in {**statuses, 400: RefusedError}.items():
                shelf.status = status
                with pytest.raises(error, match="because"):
                    await blobs.put(str(given), payload)
            given.unlink()
            with pytest.raises(BlobMissingError, match="is gone"):
                await blobs.put(str(given), payload)

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir() if path.name != "s"] == []


def test_a_refusal_is_heard_before_all_is_sent(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.status = 507
        given = tmp_path / "given"
        given.write_bytes(bytes(30_000_000))
        async with serving(kind, tmp_path, http=shelf) as address:
            for _ in range(5):
                with pytest.raises(StoreFullError, match="because"):
                    await HttpBlobs({"it": address}).store(str(given), Encoding.PICKLE)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ("can't create new thread at interpreter shutdown", ChannelClosedError),
        ("cannot schedule new futures after interpreter shutdown", ChannelClosedError),
        ("something else", RuntimeError),
    ],
)
def test_blobs_go_without_threads_where_there_are_none_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, then: type[Exception]
) -> None:
    async def no_thread(*_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(asyncio, "to_thread", no_thread)
    given = tmp_path / "given"
    given.write_bytes(b"data")
    blobs = HttpBlobs({"nobody": parse_address(f"unix:{tmp_path}/none")})
    with pytest.raises(then):
        asyncio.run(blobs.store(str(given), Encoding.PICKLE))


# The client over real sockets.


@contextmanager
def coordinator(kind: str, folder: Path, scripted: Scripted, shelf: Shelf) -> Iterator[Address]:
    """Serve a scripted coordinator on a real socket, in a thread of its own."""
    ready = threading.Event()
    found: list[Address] = []
    end: list[Callable[[], object]] = []

    async def main() -> None:
        async with serving(kind, folder, scripted.serve, shelf) as address:
            loop, over = asyncio.get_running_loop(), asyncio.Event()
            found.append(address)
            end.append(lambda: loop.call_soon_threadsafe(over.set))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        end[0]()
        thread.join(10)


def client_at(address: Address, folder: Path) -> Client:
    return Client(
        Terms(
            dialers=(WebSocketDialer(address),),
            clock=SystemClock(),
            rng=random.Random(1),
            spill_to=folder,
            version="0",
            blobs=HttpBlobs({address.text: address}),
        ),
        mint=IdMint(random.SystemRandom()),
    )


def test_a_client_over_a_socket(kind: str, tmp_path: Path) -> None:
    scripted = Scripted()
    with (
        coordinator(kind, tmp_path, scripted, Shelf()) as address,
        client_at(address, tmp_path) as client,
    ):
        assert list(client.map(work.double, range(2000))) == [2 * n for n in range(2000)]
        scripted.cut()
        assert client.submit(work.double, 4).result(10) == 8


def test_large_payloads_go_by_reference_both_ways(
    kind: str, tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    scripted, shelf = Scripted(), Shelf()
    spill, results = tmp_path / "spill", tmp_path / "results"
    spill.mkdir()
    results.mkdir()

    def run(spec: Spec) -> Settled:
        path = results / spec.id.hex()
        if spec.payload.digest:
            path.write_bytes(shelf.blobs[spec.payload.digest.hex()])
        args, kwargs = decode_call(spec.payload, str(path) if spec.payload.digest else "")
        value = getattr(work, spec.function.partition(":")[2])(*args, **kwargs)
        encoded = encode_result(value, spill_to=results)
        if encoded.path:
            shelf.blobs[encoded.payload.digest.hex()] = Path(encoded.path).read_bytes()
        return Settled(spec.id, State.SUCCEEDED, Reason.NONE, encoded.payload, None)

    scripted.run = run
    with (
        coordinator(kind, tmp_path, scripted, shelf) as address,
        client_at(address, spill) as client,
    ):
        large = os.urandom(300_000)
        futures = [client.submit(work.size, large + bytes(n)) for n in range(8)]
        assert [future.result(20) for future in futures] == [300_000 + n for n in range(8)]
        assert all(spec.payload.digest for spec in scripted.specs.values())
        assert client.submit(work.zeros, 200_000).result(20) == bytes(200_000)
        shelf.status = 507
        waiting = [client.submit(work.size, large + bytes(n)) for n in range(20, 26)]
        with pytest.raises(TimeoutError, match=r"was not accepted in 0.5 s: because; .* submit it"):
            waiting[0].result(0.5)
        # They keep neither a small submission from its way nor a large result.
        assert client.submit(work.zeros, 200_000).result(20) == bytes(200_000)
        shelf.refusals = 0
        eventually("a payload is offered again", lambda: shelf.refusals)
        shelf.status = 0
        assert [future.result(20) for future in waiting] == [300_020 + n for n in range(6)]
        assert client.held_back == ""
    assert list(spill.iterdir()) == []
    # Once each, however many payloads waited, and however often they were refused.
    said = [record.message for record in caplog.records if record.name == "holdfast.client.blobs"]
    assert [text.partition(":")[0] for text in said] == [
        "a large payload waits, and is sent again and again",
        "large payloads are taken again",
    ]
