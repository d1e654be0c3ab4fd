"""A client finds its coordinator again, whatever it meets on the way there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import wiring
from holdfast.client.client import Client
from holdfast.client.session import Terms
from holdfast.client.thread import LoopFactory
from holdfast.clock import SystemClock
from holdfast.entropy import BulkEntropy
from holdfast.errors import ConnectionLostError
from holdfast.lab.cluster import Cluster
from holdfast.model.ids import IdMint
from holdfast.transports import endpoint
from holdfast.transports.address import parse_address
from holdfast.transports.websocket import WebSocketChannel, WebSocketDialer
from holdfast.wiring.process import loop_factory
from tests.conftest import Eventually
from tests.integration.door import Door

MODES = (
    "reset",
    "hangs up",
    "no http",
    "403",
    "500",
    "307",
    "upgrade alone",
    "garbled frame",
    "no websocket",
    "text",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("redial")) as cluster:
        cluster.start_coordinator()
        cluster.start_worker("one", "--slots", "1")
        yield cluster


@pytest.mark.parametrize("mode", MODES)
def test_a_client_outlives_a_failed_dial(
    cluster: Cluster, eventually: Eventually, mode: str
) -> None:
    with (
        Door(endpoint.socket_path(cluster.state_dir)) as door,
        wiring.connect(f"http://127.0.0.1:{door.port}") as client,
    ):
        assert client.submit(abs, -1).result(10) == 1
        waiting = client.submit(abs, -2)
        door.turn(mode)
        eventually(f"two dials have met {mode!r}", lambda: door.met[mode] > 1)
        door.turn("through")
        assert waiting.result(10) == 2


def test_a_client_outlives_a_door_that_is_silent(
    cluster: Cluster, eventually: Eventually, tmp_path: Path
) -> None:
    with Door(endpoint.socket_path(cluster.state_dir)) as door:
        address = parse_address(f"http://127.0.0.1:{door.port}")
        rng = BulkEntropy()
        with Client(
            Terms(
                dialers=(WebSocketDialer(address, open_seconds=0.3),),
                clock=SystemClock(),
                rng=rng,
                spill_to=tmp_path,
                version="0",
            ),
            mint=IdMint(rng),
            loop_factory=loop_factory(),
        ) as client:
            assert client.submit(abs, -1).result(10) == 1
            door.turn("silent")
            waiting = client.submit(abs, -3)
            eventually("a dial has met silence", lambda: door.met["silent"] > 0)
            door.mode = "through"  # the silent one stays: the dial has to give up by itself
            assert waiting.result(10) == 3


@pytest.mark.parametrize("factory", [loop_factory, lambda: asyncio.new_event_loop])
def test_a_failure_of_the_client_is_told_in_its_own_words(
    cluster: Cluster, factory: Callable[[], LoopFactory], tmp_path: Path
) -> None:
    class Broken:
        """A dialer that has a fault of its own, once it was used."""

        def __init__(self) -> None:
            self.dials = 0

        async def dial(self) -> WebSocketChannel:
            self.dials += 1
            if self.dials > 1:
                raise LookupError("no such thing")
            return await WebSocketDialer(parse_address(cluster.url)).dial()

    rng = BulkEntropy()
    client = Client(
        Terms(dialers=(Broken(),), clock=SystemClock(), rng=rng, spill_to=tmp_path, version="0"),
        mint=IdMint(rng),
        loop_factory=factory(),
    )
    waiting = client.submit(abs, -1, delay=60)
    waiting.wait_accepted(10)
    cluster.kill_coordinator()
    with pytest.raises(ConnectionLostError, match="LookupError: no such thing"):
        waiting.result(10)
    client.close()
    cluster.start_coordinator()


def test_a_client_waits_where_nobody_listens(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start_coordinator()
        cluster.start_worker("one", "--slots", "1")
        with wiring.connect(cluster.url) as client:
            cluster.kill_coordinator()
            waiting = client.submit(abs, -4)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            endpoint.socket_path(cluster.state_dir).unlink()
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            cluster.start_coordinator()
            assert waiting.result(10) == 4
