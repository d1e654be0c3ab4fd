"""A coordinator, put together: store, gateway, server, and the workers that it keeps."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import config
from holdfast.errors import ConfigurationError, StoreGoneError
from holdfast.observe import logger
from holdfast.wiring.process import boot_id, on_signals

if TYPE_CHECKING:
    from holdfast.blobs.local import LocalBlobs
    from holdfast.config import CoordinatorSettings
    from holdfast.coordinator.asking import Questions
    from holdfast.coordinator.desk import Desk
    from holdfast.coordinator.gateway import Gateway
    from holdfast.coordinator.host import Hand, Host
    from holdfast.coordinator.kin import Kin
    from holdfast.coordinator.service import Coordinator
    from holdfast.coordinator.statedir import StateLock
    from holdfast.observe import TaskSet
    from holdfast.stores.reader import SQLiteReader
    from holdfast.stores.sqlite import SQLiteStore
    from holdfast.transports.endpoint import Endpoint
    from holdfast.web.door import App, Door
    from holdfast.wiring.doors import Doors

_SWITCH_SECONDS = 0.0005
"""The store's thread must not wait five milliseconds for the interpreter after each statement."""
_READY = b"ready\n"
_LOOK_SECONDS = 1.0


Announce = Callable[[Sequence[str]], None]


async def coordinate(settings: CoordinatorSettings, announce: Announce | None = None) -> None:
    """Run a coordinator until it is asked to stop, or an embedded one until nobody needs it.

    `announce` gets its URLs once it answers; the first one is the Unix socket. Raises
    ConfigurationError for a state directory or a port that cannot be used, StoreVersionError for a
    directory of a newer release, StoreCorruptError for a database that is damaged, or proves to be.
    """
    from holdfast.coordinator.statedir import StateLock
    from holdfast.wiring.doors import Doors

    stopping = _Stopping()
    on_signals(stopping.asked)
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Payloads are the user's; the files that tasks make keep the user's own mask.
    umask = os.umask(0o077)
    with StateLock(settings.state_dir) as lock, Doors(settings) as doors:
        # Workers start while we still import what a coordinator needs; their dials wait.
        hands = _hands(settings, doors.urls[0], umask=umask)
        try:
            parts = _assemble(settings, hands, lock, stopping.stop.set)
            stopping.hurry = parts.host.hurry
            await _run(settings, doors, parts, stopping.stop, announce)
        finally:
            for hand in hands:
                hand.kill()  # Those that are left where we could not even begin.


class _Stopping:
    """The first signal asks for an end in good order, the second one for haste."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry: Callable[[], None] = self.stop.set

    def asked(self) -> None:
        if self.stop.is_set():
            self.hurry()
        self.stop.set()


@dataclass(frozen=True, slots=True)
class _Parts:
    lock: StateLock
    store: SQLiteStore
    reader: SQLiteReader
    blobs: LocalBlobs
    coordinator: Coordinator
    gateway: Gateway
    desk: Desk
    host: Host


def _hands(settings: CoordinatorSettings, url: str, *, umask: int) -> list[Hand]:
    from holdfast.clock import SystemClock
    from holdfast.coordinator.host import Hand

    now = SystemClock().monotonic()
    directory = _directory()
    mark = _mark(settings)
    environment = config.environment_kept_by(mark) if mark else None
    hands = []
    for number in range(settings.workers):
        home = settings.state_dir.resolve() / f"worker-{number}"
        command = _worker_command(settings, url, home)
        hand = Hand(
            command,
            home,
            directory=directory,
            umask=umask,
            environment=environment,
            logs=_logs(settings),
        )
        hands.append(hand)
        hands[-1].look(now)
    return hands


def _mark(settings: CoordinatorSettings) -> str:
    return config.mark_of(settings.state_dir) if settings.embedded else ""


def _directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigurationError(
            "the directory that this runs in was deleted: change to another one"
        ) from None


def _assemble(
    settings: CoordinatorSettings, hands: list[Hand], lock: StateLock, stop: Callable[[], None]
) -> _Parts:
    from holdfast.blobs.local import LocalBlobs
    from holdfast.clock import SystemClock
    from holdfast.coordinator.asking import Questions
    from holdfast.coordinator.desk import Desk
    from holdfast.coordinator.host import Host
    from holdfast.coordinator.kin import Kin
    from holdfast.coordinator.service import Coordinator
    from holdfast.coordinator.statedir import DATABASE
    from holdfast.entropy import BulkEntropy
    from holdfast.observe import Counters
    from holdfast.stores.reader import SQLiteReader
    from holdfast.stores.room import DiskRoom
    from holdfast.stores.sqlite import SQLiteStore

    database = settings.state_dir.resolve() / DATABASE
    store = SQLiteStore(
        database, durability="normal" if settings.durability == "normal" else "full"
    )
    coordinator = Coordinator(
        store=store,
        clock=SystemClock(),
        rng=BulkEntropy(),
        lease_seconds=settings.lease_seconds,
        # A lease of a second must not wait for the heartbeat of that second.
        beat_seconds=min(settings.heartbeat_seconds, settings.lease_seconds / 4),
        room=DiskRoom(database),
        counters=Counters(),
    )
    reader = SQLiteReader(database)
    questions = Questions(coordinator, reader)
    here = boot_id()
    kin = Kin(here, lambda death: coordinator.post(None, death)) if here else None
    gateway = _gateway(settings, coordinator, questions, kin)
    linger = settings.linger_seconds if settings.embedded else 0.0
    return _Parts(
        lock=lock,
        store=store,
        reader=reader,
        blobs=LocalBlobs(settings.state_dir.resolve() / "blobs"),
        coordinator=coordinator,
        gateway=gateway,
        desk=Desk(coordinator, questions),
        host=Host(
            coordinator,
            gateway,
            reader,
            hands,
            lock=lock,
            check=store.check,
            here=here,
            linger_seconds=linger,
            stop=stop,
        ),
    )


def _gateway(
    settings: CoordinatorSettings, coordinator: Coordinator, questions: Questions, kin: Kin | None
) -> Gateway:
    from holdfast import __version__
    from holdfast.coordinator.gateway import Gateway
    from holdfast.interpreter import python_version

    return Gateway(
        coordinator,
        questions,
        version=__version__,
        python=python_version(),
        kin=kin,
        mark=_mark(settings),
    )


async def _run(
    settings: CoordinatorSettings,
    doors: Doors,
    parts: _Parts,
    stop: asyncio.Event,
    announce: Announce | None,
) -> None:
    from holdfast.coordinator.http import Routes
    from holdfast.observe import TaskSet
    from holdfast.transports import endpoint
    from holdfast.transports.asgi import asgi_app
    from holdfast.transports.serving import serve

    started, closing = asyncio.Event(), asyncio.Event()
    await parts.blobs.open()
    tasks = TaskSet(logger("coordinator"))
    vital = _begun(parts, tasks, stop)
    door = _door(settings, parts)
    app = asgi_app(parts.gateway.serve, Routes(parts.gateway, parts.blobs, door))
    servers: list[asyncio.Task[None]] = []
    try:
        # Where the store cannot be read, nobody is let in; who dials meanwhile waits.
        if await _first_of(tasks, parts.coordinator.ready, stop):
            serving = serve(app, sockets=doors.sockets, stop=closing, started=started)
            servers.append(tasks.watched("server", serving))
            servers[0].add_done_callback(lambda _: started.set())
            await started.wait()
            sign = _announce(settings, doors.urls)
            if announce is not None:
                announce(doors.urls)
            while not await _within(_LOOK_SECONDS, stop):
                fresh = doors.mended()
                if fresh is not None:
                    again = serve(app, sockets=[fresh], stop=closing)
                    servers.append(tasks.watched("server of a new socket", again))
                if not parts.lock.lost:
                    _keep(settings, sign)
    finally:
        endpoint.withdraw(settings.state_dir, os.getpid())
        if vital[0].done():
            # Nobody decides any more: what is still said here would wait for no answer.
            closing.set()
            await parts.gateway.close()
        # Workers deliver what they finish while they leave; then the door is closed.
        await parts.host.dismiss()
        closing.set()
        await parts.gateway.close()
        for server in servers:
            await server
        await tasks.cancel()
        await parts.reader.close()
        await parts.store.close()
    for ended in vital:
        if ended.done() and not ended.cancelled():
            ended.result()
    if parts.host.lost:
        raise StoreGoneError(parts.host.lost)


def _door(settings: CoordinatorSettings, parts: _Parts) -> Door:
    """Return the way to the web application, which is imported when it is first asked for."""
    from holdfast.web.dialect import dialect_of
    from holdfast.web.door import Door

    dialect = dialect_of(settings.dialect)

    def load() -> App:
        from holdfast.clock import SystemClock
        from holdfast.entropy import BulkEntropy
        from holdfast.model.ids import IdMint
        from holdfast.web.app import application
        from holdfast.web.intake import Intake

        desk, mint = parts.desk, IdMint(BulkEntropy())
        intake = Intake(desk, parts.reader, parts.blobs, clock=SystemClock(), mint=mint)
        app: App = application(intake, dialect)
        return app

    return Door(load)


def _begun(parts: _Parts, tasks: TaskSet, stop: asyncio.Event) -> list[asyncio.Task[None]]:
    """Start what a coordinator cannot be without; the turns come first."""
    vital = [
        tasks.watched("coordinator", parts.coordinator.run()),
        tasks.watched("sweeper", parts.gateway.sweep()),
        tasks.watched("host", parts.host.watch()),
    ]
    for each in vital:
        # Nobody would judge silence, or keep workers alive: better to end and say why.
        each.add_done_callback(lambda _: stop.set())
    return vital


async def _first_of(tasks: TaskSet, wanted: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait for one of two events; whether it was the wanted one."""
    waits = [tasks.watched("waits", event.wait()) for event in (wanted, other)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
    return not other.is_set()


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether an event comes within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _announce(settings: CoordinatorSettings, urls: Sequence[str]) -> Endpoint:
    from holdfast import __version__
    from holdfast.interpreter import python_version
    from holdfast.transports import endpoint

    told = endpoint.Endpoint(urls[0], os.getpid(), __version__, python_version())
    endpoint.publish(settings.state_dir, told)
    if settings.ready_fd >= 0:
        os.write(settings.ready_fd, _READY)
        os.close(settings.ready_fd)
    logger("coordinator").info("listening on %s", ", ".join(urls))
    return told


def _keep(settings: CoordinatorSettings, sign: Endpoint) -> None:
    """Let those who come find us, where the file that says so was removed or garbled."""
    from holdfast.transports import endpoint

    log = logger("coordinator")
    try:
        if endpoint.keep(settings.state_dir, sign):
            log.warning("the file that says where we listen was lost, and is made again")
    except OSError as error:
        log.error("the file that says where we listen cannot be made again: %s", error)


def _worker_command(settings: CoordinatorSettings, url: str, home: Path) -> list[str]:
    from holdfast.config import WorkerSettings
    from holdfast.wiring.launch import command

    return command(
        WorkerSettings(
            urls=(url,),
            state_dir=home,
            slots=settings.slots,
            path=settings.path,
            embedded=settings.embedded,
            log_to=_logs(settings)[0] if settings.embedded else None,
        )
    )


def _logs(settings: CoordinatorSettings) -> tuple[Path, ...]:
    """Return where a worker beside us writes: before its own log is open, into that of ours."""
    names = ("worker.log", "coordinator.log") if settings.embedded else ()
    return tuple(settings.state_dir.resolve() / name for name in names)
