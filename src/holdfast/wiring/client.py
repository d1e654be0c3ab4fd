"""A client, blocking or awaited, of the coordinator at a URL or the embedded one of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import config
from holdfast.errors import ConfigurationError, NoCoordinatorError
from holdfast.wiring.process import loop_factory

if TYPE_CHECKING:
    from holdfast.client.aio_client import AsyncClient, Connecting
    from holdfast.client.client import Client
    from holdfast.client.embedded import EmbeddedCoordinator
    from holdfast.client.session import Terms
    from holdfast.transports.address import Address


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
    from holdfast.client.client import Client
    from holdfast.model.ids import IdMint
    from holdfast.transports.address import parse_address

    address = parse_address(place.url if embedded is None else embedded.ensure())
    terms = _terms(address, embedded)
    try:
        return Client(
            terms,
            mint=IdMint(terms.rng),
            loop_factory=loop_factory(),
            connect_seconds=connect_seconds,
        )
    except NoCoordinatorError as error:
        raise NoCoordinatorError(f"{address.text}: {error}") from None


def connect_async(
    url: str | None = None,
    *,
    state_dir: str | Path | None = None,
    connect_seconds: float = 10.0,
) -> Connecting:
    """Connect on the running asyncio event loop: `async with connect_async() as hf:`.

    Which coordinator it is, and what it raises, is as for `connect`. An embedded coordinator is
    started on a thread; apart from that, and from moving payloads over 64 KiB, none is used.
    `await connect_async()` returns a client to `aclose`, where no block can hold it.
    """
    from holdfast.client.aio_client import Connecting

    return Connecting(lambda: _connected(url, state_dir, connect_seconds))


async def _connected(
    url: str | None, state_dir: str | Path | None, connect_seconds: float
) -> AsyncClient:
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "connect_async() needs an asyncio event loop (uvloop, or anyio on asyncio, will do); "
            "elsewhere use connect(), and wait for its futures on a thread"
        ) from None
    place = config.place(url, state_dir)
    embedded = None if place.url else _embedded(_resolved(place.state_dir))
    # It starts while we import what a client needs.
    starting = None if embedded is None else loop.run_in_executor(None, embedded.ensure)
    from holdfast.client.aio_client import AsyncClient
    from holdfast.model.ids import IdMint
    from holdfast.transports.address import parse_address

    address = parse_address(place.url if starting is None else await starting)
    terms = _terms(address, embedded)
    client = AsyncClient(terms, mint=IdMint(terms.rng))
    try:
        await client.open(connect_seconds)
    except NoCoordinatorError as error:
        raise NoCoordinatorError(f"{address.text}: {error}") from None
    return client


def _terms(address: Address, embedded: EmbeddedCoordinator | None) -> Terms:
    from holdfast import __version__
    from holdfast.client.session import Terms
    from holdfast.clock import SystemClock
    from holdfast.entropy import BulkEntropy
    from holdfast.transports.blob_http import HttpBlobs
    from holdfast.transports.websocket import WebSocketDialer

    return Terms(
        dialers=(WebSocketDialer(address),),
        clock=SystemClock(),
        rng=BulkEntropy(),
        version=__version__,
        blobs=HttpBlobs({address.text: address}),
        restart=None if embedded is None else embedded.revive,
        kept_by=config.kept_by(),
    )


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
