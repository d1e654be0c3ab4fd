"""Each fault of the proxy, shown with real sockets."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from holdfast.errors import InvalidInputError
from holdfast.lab.faults.endpoint import Endpoint
from holdfast.lab.faults.proxy import FaultProxy
from holdfast.lab.faults.proxy_thread import ProxyThread
from holdfast.lab.faults.tcp import (
    Bandwidth,
    Conditions,
    Corruption,
    Direction,
    Fate,
    Fault,
    HalfOpen,
    Latency,
    OneWay,
    Reset,
    Slicing,
    SlowClose,
    conditions,
    refuses,
)

PATIENCE_SECONDS = 8.0
NEVER_SECONDS = 600.0
"""A delay that only a repair can end within a test."""
DIRECTIONS: tuple[Direction, Direction] = ("to_server", "to_client")


class Stage:
    """A server's listener, a proxy before it, and the two ends of every connection."""

    def __init__(self, stack: ExitStack, folder: Path, kind: str) -> None:
        self._stack = stack
        self.listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        stack.enter_context(self.listener)
        self.listener.settimeout(PATIENCE_SECONDS)
        upstream: Endpoint
        listen: Endpoint
        if kind == "unix":
            upstream, listen = folder / "server", folder / "proxy"
            self.listener.bind(str(upstream))
        else:
            self.listener.bind(("127.0.0.1", 0))
            upstream, listen = self.listener.getsockname(), ("127.0.0.1", 0)
        self.listener.listen()
        self.proxy = stack.enter_context(ProxyThread(upstream, listen=listen))

    def connect(self) -> socket.socket:
        """Return the client's end of a new connection."""
        address = self.proxy.address
        client = socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET)
        self._stack.enter_context(client)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(str(address) if isinstance(address, Path) else address)
        return client

    def accept(self) -> socket.socket:
        """Return the server's end of the next connection."""
        server, _ = self.listener.accept()
        self._stack.enter_context(server)
        server.settimeout(PATIENCE_SECONDS)
        return server

    def pair(self) -> tuple[socket.socket, socket.socket]:
        client = self.connect()
        return client, self.accept()


@contextmanager
def staged(folder: Path, kind: str = "tcp") -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack, folder, kind)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as each:
        yield each


def ends(direction: Direction, client: socket.socket, server: socket.socket) -> list[socket.socket]:
    """Return the sender and the receiver of a direction."""
    return [client, server] if direction == "to_server" else [server, client]


def read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def passes(sender: socket.socket, receiver: socket.socket, data: bytes = b"ping") -> bool:
    sender.sendall(data)
    return read(receiver, len(data)) == data


def expect_reset(sock: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def silent(sock: socket.socket) -> bool:
    """Return whether there is nothing to read: to be asked when something else has arrived."""
    return not select.select([sock], [], [], 0)[0]


def fill(sock: socket.socket) -> int:
    """Send until nothing moves any more, and return how much was taken."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    sock.setblocking(False)
    taken = 0
    while select.select([], [sock], [], 0.2)[1]:
        taken += sock.send(bytes(65_536))
        assert taken < 2_000_000
    sock.settimeout(PATIENCE_SECONDS)
    return taken


def keep_sending(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"anybody?")


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Without a fault


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_without_a_fault_it_carries_bytes_and_half_closes(tmp_path: Path, kind: str) -> None:
    with staged(tmp_path, kind) as stage:
        client, server = stage.pair()
        assert passes(client, server, b"question")
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        assert passes(server, client, b"the answer")
        server.close()
        assert client.recv(1) == b""
        counts = stage.proxy.wait_for("it has ended", lambda counts: not counts.open_connections)
        assert (counts.to_server_bytes, counts.to_client_bytes) == (8, 10)
        assert (counts.accepted_connections, counts.reset_connections) == (1, 0)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_reset_of_one_party_reaches_the_other(stage: Stage, direction: Direction) -> None:
    sender, receiver = ends(direction, *stage.pair())
    sender.sendall(b"last words")
    assert read(receiver, 10) == b"last words"
    reset(sender)
    expect_reset(receiver)
    stage.proxy.wait_for("it is counted", lambda counts: counts.reset_connections == 1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_who_sends_to_a_party_that_is_gone_is_reset(stage: Stage, direction: Direction) -> None:
    sender, receiver = ends(direction, *stage.pair())
    receiver.close()
    assert sender.recv(1) == b""
    # The end is a half-close as far as anybody can know; what is sent now is refused.
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        keep_sending(sender)


def test_a_server_that_is_not_there_resets_the_client(stage: Stage) -> None:
    stage.listener.close()
    # The reset may come while the client still connects.
    with pytest.raises(ConnectionResetError):
        stage.connect().recv(1)
    assert stage.proxy.counts().refused_by_server == 1


def test_a_lack_of_descriptors_passes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    accept = socket.socket.accept
    failures = iter([OSError(errno.EMFILE, "too many open files"), ConnectionAbortedError()])

    def accept_at_last(listener: socket.socket) -> tuple[socket.socket, object]:
        if listener is not stage.listener and (failure := next(failures, None)):
            raise failure
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept_at_last)
    client, server = stage.pair()
    assert next(failures, None) is None
    assert passes(client, server)


def test_an_ipv6_address_will_do() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
        listener.listen()
        with (
            ProxyThread(("::1", listener.getsockname()[1]), listen=("::1", 0)) as proxy,
            socket.create_connection(("::1", proxy.port), PATIENCE_SECONDS) as client,
        ):
            server, _ = listener.accept()
            with server:
                assert passes(client, server)


def test_a_full_backlog_of_a_unix_socket_is_waited_for(tmp_path: Path) -> None:
    with staged(tmp_path, "unix") as stage:
        stage.listener.listen(0)
        clients = [stage.connect() for _ in range(5)]
        stage.proxy.wait_for("all came", lambda counts: counts.accepted_connections == 5)
        for client, number in zip(clients, b"abcde", strict=True):
            client.sendall(bytes([number]))
        assert {stage.accept().recv(1) for _ in clients} == {b"a", b"b", b"c", b"d", b"e"}


def test_beyond_its_bound_connections_wait(tmp_path: Path) -> None:
    with staged(tmp_path) as stage, ExitStack() as stack:
        upstream = stage.listener.getsockname()
        proxy = stack.enter_context(ProxyThread(upstream, connections_max=1))
        first, second = (
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 5.0))
            for _ in range(2)
        )
        server = stage.accept()
        assert passes(first, server)
        assert proxy.counts().accepted_connections == 1
        first.close()
        server.close()
        server = stage.accept()
        assert passes(second, server)


def test_an_address_that_is_taken_is_refused(stage: Stage, tmp_path: Path) -> None:
    taken = stage.listener.getsockname()
    with pytest.raises(OSError, match="in use") as caught:
        ProxyThread(taken, listen=taken).start()
    assert caught.value.errno == errno.EADDRINUSE
    (tmp_path / "precious").write_text("kept")
    with pytest.raises(FileExistsError):
        ProxyThread(taken, listen=tmp_path / "precious").start()
    assert (tmp_path / "precious").read_text() == "kept"


def test_the_end_leaves_nothing_behind(tmp_path: Path) -> None:
    with staged(tmp_path, "unix") as stage:
        before = threading.active_count()
        client, server = stage.pair()
        applied = stage.proxy.apply(HalfOpen())
        client.sendall(b"swallowed")
        stage.proxy.wait_for("swallowed", lambda counts: counts.dropped_to_server_bytes == 9)
        stage.proxy.close()
        assert client.recv(1) == b""
        assert server.recv(1) == b""
        assert threading.active_count() == before - 1
        assert [path.name for path in tmp_path.iterdir()] == ["server"]
        applied.heal()
        stage.proxy.heal()
        stage.proxy.close()
        assert stage.proxy.counts().open_connections == 0


def test_a_wait_in_vain_says_for_what(stage: Stage) -> None:
    with pytest.raises(TimeoutError, match="until pigs fly: ProxyCounts"):
        stage.proxy.wait_for("pigs fly", lambda _: False, timeout_seconds=0.01)


# Latency


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_latency_delays_its_direction_only(stage: Stage, direction: Direction) -> None:
    sender, receiver = ends(direction, *stage.pair())
    with stage.proxy.apply(Latency(delay_seconds=0.15, direction=direction)):
        begin = time.monotonic()
        assert passes(sender, receiver)
        assert 0.15 <= time.monotonic() - begin < 2
    with stage.proxy.apply(Latency(delay_seconds=NEVER_SECONDS, direction=direction)):
        assert passes(receiver, sender)


def test_a_repair_frees_what_is_under_way(stage: Stage) -> None:
    client, server = stage.pair()
    with stage.proxy.apply(Latency(delay_seconds=NEVER_SECONDS)):
        client.sendall(b"late")
    assert read(server, 4) == b"late"


def test_jitter_keeps_the_order(stage: Stage) -> None:
    client, server = stage.pair()
    said = b"".join(b"%03d" % number for number in range(60))
    with stage.proxy.apply(Latency(delay_seconds=0.01, jitter_seconds=0.01, seed=7)):
        for start in range(0, len(said), 3):
            client.sendall(said[start : start + 3])
        assert read(server, len(said)) == said


# Bandwidth and backpressure


def test_bandwidth_is_a_ceiling(stage: Stage) -> None:
    client, server = stage.pair()
    with stage.proxy.apply(Bandwidth(bytes_per_second=100_000)):
        begin = time.monotonic()
        assert passes(client, server, bytes(20_000))
        assert 0.19 <= time.monotonic() - begin < 2


@pytest.mark.parametrize(
    "fault",
    [
        Bandwidth(bytes_per_second=1000),
        Latency(delay_seconds=NEVER_SECONDS),
        HalfOpen(fate="held"),
        None,
    ],
)
def test_a_slow_link_slows_its_sender(stage: Stage, fault: Fault | None) -> None:
    client, server = stage.pair()
    # Without a fault the receiver is the slow one.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    applied = stage.proxy.apply(fault) if fault is not None else None
    taken = fill(client)
    if applied is not None:
        applied.heal()
    client.shutdown(socket.SHUT_WR)
    assert len(read(server, taken + 1)) == taken


# Reset


def test_reset_strikes_open_connections_and_refuses_new_ones(stage: Stage) -> None:
    pairs = [stage.pair() for _ in range(3)]
    with stage.proxy.apply(Reset()):
        for sock in (sock for pair in pairs for sock in pair):
            expect_reset(sock)
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                stage.connect()
    client, server = stage.pair()
    assert passes(client, server)
    counts = stage.proxy.counts()
    assert (counts.reset_connections, counts.open_connections) == (3, 1)
    assert (counts.faults_applied, counts.faults_on) == (1, 0)


def test_a_single_blow_refuses_nobody(stage: Stage) -> None:
    client, server = stage.pair()
    with stage.proxy.apply(Reset(refuse=False)):
        expect_reset(client)
        expect_reset(server)
        assert passes(*stage.pair())


def test_two_resets_need_two_repairs(stage: Stage) -> None:
    first, second = stage.proxy.apply(Reset()), stage.proxy.apply(Reset())
    first.heal()
    first.heal()
    with pytest.raises(ConnectionRefusedError):
        stage.connect()
    second.heal()
    assert passes(*stage.pair())


def test_reset_on_unix_sockets_closes_and_refuses(tmp_path: Path) -> None:
    with staged(tmp_path, "unix") as stage:
        client, server = stage.pair()
        with stage.proxy.apply(Reset()):
            assert client.recv(1) == b""
            assert server.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                stage.connect()
        assert passes(*stage.pair())


# Silence


def test_half_open_swallows_all_and_tells_nobody(stage: Stage) -> None:
    client, server = stage.pair()
    idle = stage.pair()
    with stage.proxy.apply(HalfOpen()):
        client.sendall(b"to nobody")
        server.sendall(b"to nobody either")
        late = stage.connect()
        late.sendall(b"hello?")
        stage.proxy.wait_for(
            "all is swallowed",
            lambda counts: (
                (counts.dropped_to_server_bytes, counts.dropped_to_client_bytes) == (15, 16)
            ),
        )
        assert all(silent(sock) for sock in (client, server, late, stage.listener))
    # A stream with a hole cannot go on; one without can.
    for holed in (client, server, late):
        expect_reset(holed)
    assert passes(*idle)
    assert silent(stage.listener)


def test_an_end_that_was_swallowed_is_a_hole(stage: Stage) -> None:
    client, server = stage.pair()
    gone, left = stage.pair()
    with stage.proxy.apply(HalfOpen()):
        client.shutdown(socket.SHUT_WR)
        reset(gone)
        # The order of two connections is nobody's; the proxy has read both when it read this one.
        stage.connect().sendall(b"x")
        stage.proxy.wait_for("it read", lambda counts: counts.dropped_to_server_bytes == 1)
        assert silent(server)
        assert silent(left)
    for sock in (client, server, left):
        expect_reset(sock)


def test_half_open_may_hold_instead(stage: Stage) -> None:
    client, server = stage.pair()
    with stage.proxy.apply(HalfOpen(fate="held")):
        client.sendall(b"one")
        server.sendall(b"two")
        late = stage.connect()
        late.sendall(b"three")
        late.shutdown(socket.SHUT_WR)
        stage.proxy.wait_for("it came", lambda counts: counts.accepted_connections == 2)
        assert all(silent(sock) for sock in (client, server, stage.listener))
    assert read(server, 3) == b"one"
    assert read(client, 3) == b"two"
    assert read(stage.accept(), 6) == b"three"
    assert stage.proxy.counts().reset_connections == 0


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("fate", ["dropped", "held"])
def test_one_way_silences_one_direction(stage: Stage, direction: Direction, fate: Fate) -> None:
    sender, receiver = ends(direction, *stage.pair())
    with stage.proxy.apply(OneWay(direction=direction, fate=fate)):
        sender.sendall(b"unheard")
        assert passes(receiver, sender)
        if fate == "dropped":
            stage.proxy.wait_for(
                "it is dropped",
                lambda counts: counts.dropped_to_server_bytes + counts.dropped_to_client_bytes == 7,
            )
        assert silent(receiver)
    if fate == "dropped":
        expect_reset(sender)
        expect_reset(receiver)
    else:
        assert read(receiver, 7) == b"unheard"


def test_a_new_connection_is_silent_one_way_too(stage: Stage) -> None:
    with stage.proxy.apply(OneWay(direction="to_client")):
        client, server = stage.pair()
        assert passes(client, server)
        server.sendall(b"unheard")
        stage.proxy.wait_for("dropped", lambda counts: counts.dropped_to_client_bytes == 7)
        assert silent(client)
    expect_reset(client)
    expect_reset(server)


def test_that_the_server_is_not_there_is_silence_too(stage: Stage) -> None:
    stage.listener.close()
    with stage.proxy.apply(OneWay(direction="to_client")):
        client = stage.connect()
        stage.proxy.wait_for("it is refused", lambda counts: counts.refused_by_server == 1)
        assert silent(client)
    expect_reset(client)


def test_a_party_that_is_gone_is_not_told_through_silence(stage: Stage) -> None:
    client, server = stage.pair()
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    with stage.proxy.apply(OneWay(direction="to_client")):
        reset(server)
        for _ in range(3):
            client.sendall(b"anybody?")
        # Another connection shows that the proxy is alive and has had its turn.
        other, peer = stage.pair()
        assert passes(other, peer)
        assert stage.proxy.counts().reset_connections == 0
        client.sendall(b"anybody?")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        keep_sending(client)


def test_news_of_a_party_that_is_gone_travels_like_bytes(stage: Stage) -> None:
    client, server = stage.pair()
    # Reset before the proxy knows that it is connected, the server would have refused it.
    assert passes(client, server)
    with stage.proxy.apply(Latency(delay_seconds=NEVER_SECONDS, direction="to_client")):
        server.sendall(b"last words")
        reset(server)
        for _ in range(3):
            client.sendall(b"anybody?")
            other, peer = stage.pair()
            assert passes(other, peer)
        assert silent(client)
    assert read(client, 10) == b"last words"
    expect_reset(client)


def test_silence_in_the_middle_of_a_stalled_stream(stage: Stage) -> None:
    client, server = stage.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    taken = fill(client)
    with stage.proxy.apply(HalfOpen()):
        # What the kernel has is beyond recall; what the proxy has is dropped.
        heard = 0
        while stage.proxy.counts().dropped_to_server_bytes == 0 or not silent(server):
            if not silent(server):
                heard += len(server.recv(65_536))
        assert 0 < heard < taken
    expect_reset(server)
    expect_reset(client)


def test_a_hole_is_told_when_nothing_is_silent_any_more(stage: Stage) -> None:
    client, server = stage.pair()
    one_way = stage.proxy.apply(OneWay(direction="to_server"))
    half_open = stage.proxy.apply(HalfOpen())
    client.sendall(b"unheard")
    stage.proxy.wait_for("dropped", lambda counts: counts.dropped_to_server_bytes == 7)
    half_open.heal()
    assert passes(server, client)
    one_way.heal()
    expect_reset(client)
    expect_reset(server)


def test_heal_repairs_everything(stage: Stage) -> None:
    client, server = stage.pair()
    for fault in (
        HalfOpen(fate="held"),
        Latency(delay_seconds=NEVER_SECONDS),
        Bandwidth(bytes_per_second=0.01),
        Slicing(slice_bytes=1, gap_seconds=NEVER_SECONDS),
        Corruption(probability=1),
    ):
        stage.proxy.apply(fault)
    client.sendall(b"under way")
    assert stage.proxy.counts().faults_on == 5
    stage.proxy.heal()
    assert read(server, 9) == b"under way"
    assert passes(server, client)
    assert stage.proxy.counts().faults_on == 0


# Slices, ends, corruption


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_slices_arrive_one_by_one(stage: Stage, direction: Direction) -> None:
    sender, receiver = ends(direction, *stage.pair())
    with stage.proxy.apply(Slicing(slice_bytes=4, gap_seconds=NEVER_SECONDS)):
        sender.sendall(b"abcdefgh")
        assert receiver.recv(100) == b"abcd"
        assert passes(receiver, sender)
        assert silent(receiver)
    assert read(receiver, 4) == b"efgh"
    with stage.proxy.apply(Slicing(slice_bytes=5, direction=direction)):
        assert passes(sender, receiver, bytes(range(256)))


def test_slow_close_delays_the_end_only(stage: Stage) -> None:
    client, server = stage.pair()
    with stage.proxy.apply(SlowClose(delay_seconds=0.15)):
        begin = time.monotonic()
        client.sendall(b"bye")
        client.shutdown(socket.SHUT_WR)
        assert read(server, 3) == b"bye"
        assert server.recv(1) == b""
        assert 0.15 <= time.monotonic() - begin < 2
    with stage.proxy.apply(SlowClose(delay_seconds=NEVER_SECONDS)):
        server.sendall(b"bye")
        server.close()
        assert read(client, 3) == b"bye"
        assert silent(client)
    assert client.recv(1) == b""


def test_corruption_flips_one_bit_the_same_for_a_seed(tmp_path: Path) -> None:
    said = bytes(1000)
    heard: list[bytes] = []
    for seed in (1, 1, 2):
        folder = tmp_path / str(len(heard))
        folder.mkdir()
        with staged(folder) as stage:
            client, server = stage.pair()
            fault = Corruption(probability=1, seed=seed, direction="to_client")
            with stage.proxy.apply(fault):
                server.sendall(said)
                heard.append(read(client, len(said)))
                assert passes(client, server)
            assert passes(server, client)
            pieces = stage.proxy.counts().corrupted_pieces
            assert sum(heard[-1]).bit_count() == 1 or pieces > 1
    assert heard[0] == heard[1] != heard[2]


def test_improbable_corruption_spoils_nothing(stage: Stage) -> None:
    client, server = stage.pair()
    with stage.proxy.apply(Corruption(probability=0)):
        assert passes(client, server, bytes(1000))
    assert stage.proxy.counts().corrupted_pieces == 0


# All of it


def test_faults_that_come_and_go_leave_a_stream_whole(stage: Stage) -> None:
    client, server = stage.pair()
    said = os.urandom(3_000_000)
    heard: dict[str, str] = {}

    def hear(name: str, sock: socket.socket) -> None:
        digest = hashlib.sha256()
        while data := sock.recv(65_536):
            digest.update(data)
        heard[name] = digest.hexdigest()

    def say(sock: socket.socket) -> None:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)

    threads = [
        threading.Thread(target=work, args=args, daemon=True)
        for work, args in (
            (hear, ("server", server)),
            (hear, ("client", client)),
            (say, (client,)),
            (say, (server,)),
        )
    ]
    for thread in threads:
        thread.start()
    faults: list[Fault] = [
        Slicing(slice_bytes=1000, gap_seconds=0.0001),
        Latency(delay_seconds=0.01, jitter_seconds=0.01),
        Bandwidth(bytes_per_second=2_000_000),
        HalfOpen(fate="held"),
        OneWay(direction="to_client", fate="held"),
    ]
    for fault in faults:
        with stage.proxy.apply(fault):
            threads[0].join(0.03)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    expected = hashlib.sha256(said).hexdigest()
    assert heard == {"server": expected, "client": expected}
    counts = stage.proxy.counts()
    assert (counts.to_server_bytes, counts.to_client_bytes) == (len(said), len(said))


def run_plain(program: Coroutine[None, None, None]) -> None:
    asyncio.run(program)


def run_on_uvloop(program: Coroutine[None, None, None]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)


@pytest.mark.parametrize("run", [run_plain, run_on_uvloop])
def test_it_lives_inside_an_asyncio_program(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    async def program() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        upstream = server.sockets[0].getsockname()
        async with server, FaultProxy(upstream) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            with proxy.apply(Latency(delay_seconds=0.05)):
                begin = time.monotonic()
                writer.write(b"there and back\n")
                assert await reader.readline() == b"there and back\n"
                # The clock of uvloop counts milliseconds.
                assert time.monotonic() - begin >= 0.095
            with proxy.apply(HalfOpen()):
                writer.write(b"lost\n")
                counts = await proxy.wait_for(
                    "it is lost", lambda counts: counts.dropped_to_server_bytes == 5
                )
                assert counts.open_connections == 1
            with pytest.raises(ConnectionResetError):
                await reader.readline()
            writer.close()
            with proxy.apply(Reset()), pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", proxy.port)
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"again\n")
            assert await reader.readline() == b"again\n"
            writer.close()
            await proxy.wait_for("all is closed", lambda counts: not counts.open_connections)
            with pytest.raises(TimeoutError, match="until never"):
                await proxy.wait_for("never", lambda _: False, timeout_seconds=0.01)

    run(program())


# The arithmetic of faults


def test_faults_of_one_kind_add_up() -> None:
    slow, slower = Latency(delay_seconds=1), Latency(delay_seconds=2, direction="to_client")
    spoilt = Corruption(probability=0.5, direction="to_server")
    applied: dict[int, Fault] = {
        1: slow,
        2: slower,
        3: Bandwidth(bytes_per_second=10),
        4: Bandwidth(bytes_per_second=5, direction="to_server"),
        5: Slicing(slice_bytes=7, gap_seconds=0.5),
        6: Slicing(slice_bytes=9, gap_seconds=1.5, direction="to_client"),
        7: SlowClose(delay_seconds=1),
        8: SlowClose(delay_seconds=2),
        9: spoilt,
        10: Reset(refuse=False),
        11: OneWay(direction="to_server", fate="held"),
    }
    assert conditions("to_server", applied) == Conditions(
        latencies=((1, slow),),
        corruptions=((9, spoilt),),
        bytes_per_second=5,
        slice_bytes=7,
        gap_seconds=0.5,
        end_delay_seconds=3,
        silence="held",
    )
    assert conditions("to_client", applied) == Conditions(
        latencies=((1, slow), (2, slower)),
        bytes_per_second=10,
        slice_bytes=7,
        gap_seconds=1.5,
        end_delay_seconds=3,
    )
    assert conditions("to_server", {**applied, 12: HalfOpen()}).silence == "dropped"
    assert conditions("to_client", {}) == Conditions()
    assert not refuses(applied)
    assert refuses({1: Reset()})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Latency(delay_seconds=-1),
        lambda: Latency(delay_seconds=1, jitter_seconds=-1),
        lambda: Bandwidth(bytes_per_second=0),
        lambda: Slicing(slice_bytes=0),
        lambda: Slicing(slice_bytes=1, gap_seconds=-1),
        lambda: SlowClose(delay_seconds=-1),
        lambda: Corruption(probability=1.1),
    ],
)
def test_a_fault_that_cannot_be_is_refused(make: Callable[[], Fault]) -> None:
    with pytest.raises(InvalidInputError):
        make()
