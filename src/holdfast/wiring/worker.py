"""A worker, put together: engine, guard, spool, and the way to its coordinators."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import config
from holdfast.errors import EngineLostError
from holdfast.observe import logger
from holdfast.outlet import Outlet, Streams
from holdfast.wiring.process import FLUSH_SECONDS, boot_id, on_signals

if TYPE_CHECKING:
    from holdfast.config import WorkerSettings
    from holdfast.core.peer import Offer
    from holdfast.engines.process import ProcessEngine
    from holdfast.transports.address import Address
    from holdfast.transports.websocket import WebSocketDialer
    from holdfast.worker.agent import Agent, World
    from holdfast.worker.home import FileHome

DRAIN_SECONDS = 30.0
"""What running tasks get to finish once a worker is asked to leave."""
_LOOK_SECONDS = 5.0
_SOON_SECONDS = 0.25
_LOOKS_IN_VAIN = 8
_ALONE_SECONDS = 15.0
_ALONE_AND_OCCUPIED_SECONDS = 3600.0
"""How long a worker of an embedded coordinator waits for another one, when it has nothing to do or
to tell, and when it has."""


async def work(settings: WorkerSettings, streams: Streams) -> None:
    """Run a worker until SIGTERM or Ctrl-C, then let it finish what runs and leave.

    What its tasks print goes to `streams`, unless the settings name a log.
    Raises ConfigurationError for a home that another worker holds, or that cannot be written, and
    for slots that the limit of open files does not allow. Raises EngineLostError, after an end in
    good order, where no process runs tasks any more.
    """
    from holdfast.engines.descriptors import make_room
    from holdfast.observe import Counters, TaskSet
    from holdfast.transports.websocket import WebSocketDialer
    from holdfast.worker.agent import Agent
    from holdfast.worker.home import FileHome
    from holdfast.worker.printing import Log

    stop, lost = asyncio.Event(), asyncio.Event()

    def engine_lost() -> None:
        lost.set()
        stop.set()

    on_signals(stop.set)
    sys.path[:] = [*settings.path, *(entry for entry in sys.path if entry not in settings.path)]
    open_files_max = make_room(_slots(settings))
    home = FileHome.open(settings.state_dir.resolve())
    engine = _engine(settings, home, engine_lost, open_files_max=open_files_max)
    addresses = _addresses(settings)
    dialers = {url: WebSocketDialer(address) for url, address in addresses.items()}
    if settings.log_to is not None:
        log = Outlet(Log(settings.log_to).write)
        streams = Streams(log, log)
    world = _world(home, engine, dialers, addresses, streams)
    agent = Agent(_offer(settings, home), world, counters=Counters())
    tasks = TaskSet(logger("worker"))
    running = tasks.watched("agent", agent.run())
    running.add_done_callback(lambda _: stop.set())
    if settings.embedded:
        tasks.start("alone", _leave_when_alone(agent, home.path, stop))
    elif settings.log_to is None:
        tasks.start("waiting", _say_that_we_wait(agent, dialers))
    await stop.wait()
    if agent.occupied:
        logger("worker").info("leaving; what runs has %g s to finish", DRAIN_SECONDS)
    # The first signal lets what runs finish, the second one stops it.
    on_signals(lambda: agent.drain(0.0))
    agent.drain(DRAIN_SECONDS)
    try:
        await running
    finally:
        await tasks.cancel()
        streams.flush(FLUSH_SECONDS)
    if lost.is_set():
        raise EngineLostError(
            "the processes that run tasks ended again and again before they ran any; "
            "this worker leaves"
        )


def _engine(
    settings: WorkerSettings, home: FileHome, lost: Callable[[], None], *, open_files_max: int
) -> ProcessEngine:
    from holdfast.engines.memory import memory_bytes
    from holdfast.engines.process import ProcessEngine

    # One share is left to this process and to the functions that run together.
    share = memory_bytes() // (_slots(settings) + 1)
    return ProcessEngine(
        state_dir=home.path,
        recycle_tasks=settings.recycle_tasks,
        recycle_rss_bytes=settings.recycle_bytes or share,
        guard_death=lost,
        follow_sources=settings.embedded,
        adopts=True,
        open_files_max=open_files_max,
    )


def _offer(settings: WorkerSettings, home: FileHome) -> Offer:
    from holdfast import __version__
    from holdfast.core.peer import Offer

    host = socket.gethostname()
    return Offer(
        name=settings.name or f"{host}-{home.identity[:8]}",
        slots=_slots(settings),
        concurrent_slots=settings.concurrent_slots,
        pull=settings.pull,
        queues=settings.queues,
        tags=settings.tags,
        host=host,
        boot=boot_id(),
        pid=os.getpid(),
        python=".".join(map(str, sys.version_info[:3])),
        version=__version__,
    )


def _slots(settings: WorkerSettings) -> int:
    return settings.slots or config.processors()


def _addresses(settings: WorkerSettings) -> dict[str, Address]:
    from holdfast.transports.address import parse_address

    return {url: parse_address(url) for url in settings.urls or (nearby(),)}


def _world(
    home: FileHome,
    engine: ProcessEngine,
    dialers: Mapping[str, WebSocketDialer],
    addresses: Mapping[str, Address],
    streams: Streams,
) -> World:
    from holdfast.clock import SystemClock
    from holdfast.entropy import BulkEntropy
    from holdfast.transports.blob_http import HttpBlobs
    from holdfast.worker.agent import World
    from holdfast.worker.printing import Printer
    from holdfast.worker.spool import FileShelf, FileSpool

    shelf = FileShelf(home.path / "shelf")
    return World(
        dialers=dialers,
        engine=engine,
        guard=engine.guard,
        spool=FileSpool(home.path / "spool", shelf),
        shelf=shelf,
        transfers=HttpBlobs(addresses),
        home=home,
        clock=SystemClock(),
        rng=BulkEntropy(),
        printed=Printer(streams, read_on=engine.read_printed),
    )


def nearby(state_dir: Path | None = None) -> str:
    """Return the coordinator of a state directory, present or not.

    Without one it is that which the environment names, or the one of ./.holdfast. Raises
    ConfigurationError where the path of its socket cannot be used.
    """
    from holdfast.transports.endpoint import socket_path

    place = config.place(None, state_dir)
    return place.url or f"unix:{socket_path(place.state_dir)}"


async def _leave_when_alone(agent: Agent, home: Path, stop: asyncio.Event) -> None:
    """Ask to stop once there was no coordinator for so long; outcomes rest in the spool."""
    from holdfast.core.peer import PeerState

    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if agent.session is PeerState.WELCOMED:
            last = loop.time()
        patience = _ALONE_AND_OCCUPIED_SECONDS if agent.occupied else _ALONE_SECONDS
        # Nobody comes back for a folder that was deleted.
        if loop.time() - last >= patience or not _exists(home):
            logger("worker").info("no coordinator came back: this worker leaves")
            stop.set()
            return


def _exists(directory: Path) -> bool:
    return directory.exists()


async def _say_that_we_wait(agent: Agent, dialers: Mapping[str, WebSocketDialer]) -> None:
    """Tell once of a coordinator that does not answer, and why, and once that one does."""
    from holdfast.core.peer import PeerState

    log = logger("worker")
    urls = ", ".join(dialers)
    looks = 0
    while agent.session is not PeerState.WELCOMED:
        looks += 1
        if looks == _LOOKS_IN_VAIN:
            troubles = dict.fromkeys(each.trouble for each in dialers.values() if each.trouble)
            why = f" ({'; '.join(troubles)})" if troubles else ""
            log.warning("no coordinator answers at %s yet; waiting for it%s", urls, why)
        await asyncio.sleep(_SOON_SECONDS)
    log.info("works for %s", urls)
