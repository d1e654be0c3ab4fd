"""A worker, put together: engine, guard, spool, and the way to its coordinators."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
from typing import TYPE_CHECKING

from holdfast import config
from holdfast.errors import ConfigurationError
from holdfast.wiring.process import boot_id, on_signals

if TYPE_CHECKING:
    from holdfast.config import WorkerSettings
    from holdfast.core.peer import Offer
    from holdfast.engines.process import ProcessEngine
    from holdfast.worker.agent import Agent, World
    from holdfast.worker.home import FileHome

DRAIN_SECONDS = 30.0
"""What running tasks get to finish once a worker is asked to leave."""
_LOOK_SECONDS = 5.0


async def work(settings: WorkerSettings) -> None:
    """Run a worker until SIGTERM or Ctrl-C, then let it finish what runs and leave.

    Raises ConfigurationError for a home that another worker holds, or that cannot be written.
    """
    from holdfast.engines.process import ProcessEngine
    from holdfast.observe import Counters, TaskSet, logger
    from holdfast.worker.agent import Agent
    from holdfast.worker.home import FileHome

    sys.path[:] = [*settings.path, *(entry for entry in sys.path if entry not in settings.path)]
    home = FileHome.open(settings.state_dir.resolve())
    stop = asyncio.Event()
    on_signals(stop.set)
    engine = ProcessEngine(state_dir=home.path, guard_death=stop.set)
    agent = Agent(_offer(settings, home), _world(settings, home, engine), counters=Counters())
    tasks = TaskSet(logger("worker"))
    running = tasks.watched("agent", agent.run())
    running.add_done_callback(lambda _: stop.set())
    if settings.orphan_seconds:
        tasks.start("orphan", _leave_when_orphaned(agent, settings.orphan_seconds, stop))
    await stop.wait()
    agent.drain(DRAIN_SECONDS)
    try:
        await running
    finally:
        await tasks.cancel()


def _offer(settings: WorkerSettings, home: FileHome) -> Offer:
    from holdfast import __version__
    from holdfast.core.peer import Offer

    host = socket.gethostname()
    return Offer(
        name=settings.name or f"{host}-{home.identity[:8]}",
        slots=settings.slots or config.processors(),
        concurrent_slots=settings.concurrent_slots,
        pull=settings.pull,
        queues=settings.queues,
        tags=settings.tags,
        host=host,
        boot=boot_id(),
        pid=os.getpid(),
        python=platform.python_version(),
        version=__version__,
    )


def _world(settings: WorkerSettings, home: FileHome, engine: ProcessEngine) -> World:
    from holdfast.client.entropy import BulkEntropy
    from holdfast.clock import SystemClock
    from holdfast.transports.address import parse_address
    from holdfast.transports.blob_http import HttpBlobs
    from holdfast.transports.websocket import WebSocketDialer
    from holdfast.worker.agent import World
    from holdfast.worker.printing import Printer
    from holdfast.worker.spool import FileShelf, FileSpool

    addresses = {url: parse_address(url) for url in settings.urls or (_nearby(),)}
    return World(
        dialers={url: WebSocketDialer(address) for url, address in addresses.items()},
        engine=engine,
        guard=engine.guard,
        spool=FileSpool(home.path / "spool"),
        shelf=FileShelf(home.path / "shelf"),
        transfers=HttpBlobs(list(addresses.values())),
        home=home,
        clock=SystemClock(),
        rng=BulkEntropy(),
        printed=Printer(settings.log_to),
    )


def _nearby() -> str:
    """Return the coordinator of the state directory that the environment names, or of ./.holdfast.

    Raises ConfigurationError where none runs there.
    """
    from holdfast.transports import endpoint

    place = config.place(None, None)
    if place.url:
        return place.url
    told = endpoint.read(place.state_dir)
    if told is None:
        raise ConfigurationError(
            f"no coordinator runs in {place.state_dir}: give --url http://HOST:PORT"
        )
    return told.url


async def _leave_when_orphaned(agent: Agent, seconds: float, stop: asyncio.Event) -> None:
    """Ask to stop once there was no coordinator for so long; outcomes rest in the spool."""
    from holdfast.core.peer import PeerState

    loop = asyncio.get_running_loop()
    last = loop.time()
    while loop.time() - last < seconds:
        await asyncio.sleep(_LOOK_SECONDS)
        if agent.session is PeerState.WELCOMED:
            last = loop.time()
    stop.set()
