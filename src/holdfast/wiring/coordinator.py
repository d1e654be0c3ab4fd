"""A coordinator, put together: store, gateway, server, and the workers that it keeps."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import ConfigurationError
from holdfast.observe import logger
from holdfast.payloads import python_version
from holdfast.wiring.process import boot_id, on_signals

if TYPE_CHECKING:
    from holdfast.blobs.local import LocalBlobs
    from holdfast.config import CoordinatorSettings
    from holdfast.coordinator.gateway import Gateway
    from holdfast.coordinator.host import Hand, Host
    from holdfast.coordinator.service import Coordinator
    from holdfast.stores.reader import SQLiteReader
    from holdfast.stores.sqlite import SQLiteStore

_SWITCH_SECONDS = 0.0005
"""The store's thread must not wait five milliseconds for the interpreter after each statement."""
_READY = b"ready\n"


async def coordinate(settings: CoordinatorSettings) -> None:
    """Run a coordinator until it is asked to stop, or an embedded one until nobody needs it.

    Raises ConfigurationError for a state directory or a port that cannot be used.
    """
    from holdfast.coordinator.host import StateLock

    sys.setswitchinterval(_SWITCH_SECONDS)
    # Payloads are the user's; the files that tasks make keep the user's own mask.
    umask = os.umask(0o077)
    with StateLock(settings.state_dir):
        sockets, urls = _listen(settings)
        # Workers start while we still import what a coordinator needs; their dials wait.
        hands = _hands(settings, urls[0], umask=umask)
        await _run(settings, sockets, urls, _assemble(settings, hands))


@dataclass(frozen=True, slots=True)
class _Parts:
    store: SQLiteStore
    reader: SQLiteReader
    blobs: LocalBlobs
    coordinator: Coordinator
    gateway: Gateway
    host: Host
    stop: asyncio.Event


def _hands(settings: CoordinatorSettings, url: str, *, umask: int) -> list[Hand]:
    from holdfast.clock import SystemClock
    from holdfast.coordinator.host import Hand

    now = SystemClock().monotonic()
    hands = []
    for number in range(settings.workers):
        home = settings.state_dir.resolve() / f"worker-{number}"
        command = _worker_command(settings, url, home)
        hands.append(Hand(command, home, directory=Path.cwd(), umask=umask))
        hands[-1].look(now)
    return hands


def _assemble(settings: CoordinatorSettings, hands: list[Hand]) -> _Parts:
    from holdfast import __version__
    from holdfast.blobs.local import LocalBlobs
    from holdfast.clock import SystemClock
    from holdfast.coordinator.asking import Questions
    from holdfast.coordinator.gateway import Gateway
    from holdfast.coordinator.host import Host
    from holdfast.coordinator.service import Coordinator
    from holdfast.observe import Counters
    from holdfast.stores.reader import SQLiteReader
    from holdfast.stores.room import DiskRoom
    from holdfast.stores.sqlite import SQLiteStore

    database = settings.state_dir.resolve() / "store.db"
    store = SQLiteStore(
        database, durability="normal" if settings.durability == "normal" else "full"
    )
    coordinator = Coordinator(
        store=store,
        clock=SystemClock(),
        rng=random.SystemRandom(),
        lease_seconds=settings.lease_seconds,
        # A lease of a second must not wait for the heartbeat of that second.
        beat_seconds=min(settings.heartbeat_seconds, settings.lease_seconds / 4),
        room=DiskRoom(database),
        counters=Counters(),
    )
    reader = SQLiteReader(database)
    questions = Questions(coordinator, reader)
    gateway = Gateway(
        coordinator, questions, version=__version__, python=python_version(), here=boot_id()
    )
    stop = asyncio.Event()
    linger = settings.linger_seconds if settings.embedded else 0.0
    return _Parts(
        store=store,
        reader=reader,
        blobs=LocalBlobs(settings.state_dir.resolve() / "blobs"),
        coordinator=coordinator,
        gateway=gateway,
        host=Host(coordinator, gateway, reader, hands, linger_seconds=linger, stop=stop.set),
        stop=stop,
    )


async def _run(
    settings: CoordinatorSettings, sockets: list[socket.socket], urls: list[str], parts: _Parts
) -> None:
    from holdfast.coordinator.http import Routes
    from holdfast.observe import TaskSet
    from holdfast.transports import endpoint
    from holdfast.transports.asgi import asgi_app
    from holdfast.transports.serving import serve

    stop, started, closing = parts.stop, asyncio.Event(), asyncio.Event()
    on_signals(lambda: parts.host.hurry() if stop.is_set() else stop.set())
    await parts.blobs.open()
    tasks = TaskSet(logger("coordinator"))
    heart = tasks.watched("coordinator", parts.coordinator.run())
    heart.add_done_callback(lambda _: stop.set())
    others = [
        tasks.watched("sweeper", parts.gateway.sweep()),
        tasks.watched("host", parts.host.watch()),
    ]
    for each in others:
        # Nobody would judge silence, or keep workers alive: better to end and say why.
        each.add_done_callback(lambda _: stop.set())
    app = asgi_app(parts.gateway.serve, Routes(parts.gateway, parts.blobs))
    serving = tasks.watched("server", serve(app, sockets=sockets, stop=closing, started=started))
    serving.add_done_callback(lambda _: started.set())
    await started.wait()
    _announce(settings, urls)
    try:
        await stop.wait()
    finally:
        endpoint.withdraw(settings.state_dir, os.getpid())
        # Workers deliver what they finish while they leave; then the door is closed.
        await parts.host.dismiss()
        closing.set()
        await parts.gateway.close()
        await serving
        await tasks.cancel()
        await parts.reader.close()
        await parts.store.close()
    for ended in (heart, *others):
        if ended.done() and not ended.cancelled():
            ended.result()


def _announce(settings: CoordinatorSettings, urls: list[str]) -> None:
    from holdfast import __version__
    from holdfast.transports import endpoint

    told = endpoint.Endpoint(urls[0], os.getpid(), __version__, python_version())
    endpoint.publish(settings.state_dir, told)
    if settings.ready_fd >= 0:
        os.write(settings.ready_fd, _READY)
        os.close(settings.ready_fd)
    logger("coordinator").info("listening on %s", ", ".join(urls))


def _listen(settings: CoordinatorSettings) -> tuple[list[socket.socket], list[str]]:
    """Bind before anything heavy is imported, so that whoever dials early only waits."""
    from holdfast.transports.endpoint import socket_path

    path = socket_path(settings.state_dir)
    path.unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        unix.bind(str(path))
    finally:
        os.umask(previous)
    unix.listen()
    sockets, urls = [unix], [f"unix:{path}"]
    if settings.port >= 0:
        try:
            tcp = socket.create_server((settings.host, settings.port), backlog=1024)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "give another with --host and --port"
            ) from error
        sockets.append(tcp)
        urls.append(f"http://{settings.host}:{tcp.getsockname()[1]}")
    return sockets, urls


def _worker_command(settings: CoordinatorSettings, url: str, home: Path) -> list[str]:
    command = [sys.executable, "-m", "holdfast", "worker", "--url", url, "--home", str(home)]
    if settings.slots:
        command += ["--slots", str(settings.slots)]
    if settings.embedded:
        command += ["--orphan-seconds", "600", "--log-to", str(settings.state_dir / "worker.log")]
    for entry in settings.path:
        command += ["--path", entry]
    return command
