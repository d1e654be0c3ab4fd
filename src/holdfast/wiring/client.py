"""A client, connected: to a URL, or to the embedded coordinator of a folder."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import config
from holdfast.wiring.process import loop_factory

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.client.embedded import EmbeddedCoordinator


def connect(
    url: str | None = None,
    *,
    state_dir: str | Path | None = None,
    connect_seconds: float = 10.0,
) -> Client:
    """Connect to the coordinator at a URL, or to the one of a state directory.

    Without arguments: `HOLDFAST_URL`, then `HOLDFAST_STATE_DIR`, then `./.holdfast`. An embedded
    coordinator is started where none runs; it ends a few seconds after its last client, once
    nothing is left to do. Raises NoCoordinatorError where nobody answers.
    """
    from holdfast import __version__
    from holdfast.client.client import Client
    from holdfast.client.entropy import BulkEntropy
    from holdfast.clock import SystemClock
    from holdfast.model.ids import IdMint
    from holdfast.transports.address import parse_address
    from holdfast.transports.blob_http import HttpBlobs
    from holdfast.transports.websocket import WebSocketDialer

    place = config.place(url, state_dir)
    embedded = None if place.url else _embedded(place.state_dir.resolve())
    address = place.url if embedded is None else embedded.ensure()
    parsed = parse_address(address)
    rng = BulkEntropy()
    return Client(
        [WebSocketDialer(parsed)],
        clock=SystemClock(),
        mint=IdMint(rng),
        rng=rng,
        spill_to=Path(tempfile.gettempdir()),
        version=__version__,
        blobs=HttpBlobs([parsed]),
        restart=None if embedded is None else embedded.revive,
        loop_factory=loop_factory(),
        connect_seconds=connect_seconds,
    )


def _embedded(state_dir: Path) -> EmbeddedCoordinator:
    from holdfast.client.embedded import EmbeddedCoordinator, module_path
    from holdfast.transports import endpoint

    def find() -> str:
        told = endpoint.read(state_dir)
        return told.url if told is not None and endpoint.lives(state_dir) else ""

    def command(ready_fd: int) -> list[str]:
        words = [sys.executable, "-m", "holdfast", "coordinator", "--embedded", "--workers", "1"]
        words += ["--state-dir", str(state_dir), "--ready-fd", str(ready_fd)]
        for entry in module_path():
            words += ["--path", entry]
        return words

    return EmbeddedCoordinator(state_dir, find=find, command=command)
