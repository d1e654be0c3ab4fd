"""A client, connected: to a URL, or to the embedded coordinator of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import config
from holdfast.errors import ConfigurationError
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
    nothing is left to do. Raises NoCoordinatorError where nobody answers, ConfigurationError for a
    URL or a state directory that cannot be.
    """
    place = config.place(url, state_dir)
    embedded = None if place.url else _embedded(_resolved(place.state_dir))
    if embedded is not None:
        # It starts while we import what a client needs.
        embedded.begin()
    from holdfast import __version__
    from holdfast.client.client import Client
    from holdfast.clock import SystemClock
    from holdfast.entropy import BulkEntropy
    from holdfast.errors import NoCoordinatorError
    from holdfast.model.ids import IdMint
    from holdfast.transports.address import parse_address
    from holdfast.transports.blob_http import HttpBlobs
    from holdfast.transports.websocket import WebSocketDialer

    address = parse_address(place.url if embedded is None else embedded.ensure())
    rng = BulkEntropy()
    try:
        return Client(
            [WebSocketDialer(address)],
            clock=SystemClock(),
            mint=IdMint(rng),
            rng=rng,
            version=__version__,
            blobs=HttpBlobs({address.text: address}),
            restart=None if embedded is None else embedded.revive,
            kept_by=config.kept_by(),
            loop_factory=loop_factory(),
            connect_seconds=connect_seconds,
        )
    except NoCoordinatorError as error:
        raise NoCoordinatorError(f"{address.text}: {error}") from None


def _resolved(state_dir: Path) -> Path:
    try:
        return state_dir.resolve()
    except FileNotFoundError:
        raise ConfigurationError(
            f"the state directory {state_dir} is below the current directory, which was deleted: "
            "change to another one"
        ) from None
    except (ValueError, RuntimeError) as error:
        # A NUL, or links in a circle.
        raise ConfigurationError(
            f"the state directory {str(state_dir)!r} cannot be: {error}"
        ) from None


def _embedded(state_dir: Path) -> EmbeddedCoordinator:
    from holdfast.client.embedded import EmbeddedCoordinator, module_path
    from holdfast.transports import endpoint

    def find() -> str:
        told = endpoint.read(state_dir)
        return told.url if told is not None and endpoint.lives(state_dir) else ""

    def command(ready_fd: int) -> list[str]:
        from holdfast.wiring import launch

        return launch.command(
            config.CoordinatorSettings(
                state_dir=state_dir,
                embedded=True,
                workers=1,
                path=tuple(module_path()),
                ready_fd=ready_fd,
            )
        )

    return EmbeddedCoordinator(
        state_dir, find=find, lives=lambda: endpoint.lives(state_dir), command=command
    )
