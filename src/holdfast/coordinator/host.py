"""One coordinator process: its lock, its room on the disk, its own workers, and when it ends.

Owns what a process has and a service has not. The service neither knows that it is alone in its
state directory nor that workers were started beside it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from holdfast.coordinator.gateway import Gateway
from holdfast.coordinator.service import Coordinator
from holdfast.coordinator.telling import unfinished
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.observe import logger
from holdfast.ports import StoreReader

_LOG = logger("host")
_LOOK_SECONDS = 0.5
_RESPAWN_SECONDS = (0.0, 0.2, 1.0, 5.0)
_STEADY_SECONDS = 30.0
_STOP_SECONDS = 35.0
"""Longer than a worker waits for what it runs."""
_LOCK_SECONDS = 0.3
_LOCK_LOOK_SECONDS = 0.02


class StateLock:
    """The lock that makes a coordinator the only one of its state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "coordinator.lock"
        self._fd = -1

    def __enter__(self) -> StateLock:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the state directory {self._path.parent} cannot be written: {error.strerror}; "
                "give another with --state-dir"
            ) from error
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except OSError:
                # Who only looks whether one lives holds the lock for a moment, too.
                if time.monotonic() > deadline:
                    break
            time.sleep(_LOCK_LOOK_SECONDS)
        os.close(self._fd)
        raise ConfigurationError(f"a coordinator already runs in {self._path.parent}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)


class Hand:
    """One worker that this coordinator keeps alive beside itself.

    `command` starts it. A worker of a former coordinator may still live: it holds the lock of its
    home, and is left alone until that is free. `umask` is what the user's own files get.
    """

    def __init__(
        self, command: Sequence[str], home: Path, *, directory: Path, umask: int = -1
    ) -> None:
        self._command = list(command)
        self._home = home
        self._directory = directory
        self._umask = umask
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next = 0.0
        self._deaths = 0

    def look(self, now: float) -> None:
        """Start the worker where none lives; soon at first, then ever more slowly."""
        if self._process is not None and self._process.poll() is not None:
            _LOG.warning("worker process ended with %s", self._process.returncode)
            self._process = None
            steady = now - self._started > _STEADY_SECONDS
            self._deaths = 1 if steady else self._deaths + 1
            pauses = _RESPAWN_SECONDS
            self._next = now + pauses[min(self._deaths - 1, len(pauses) - 1)]
        if self._process is None and now >= self._next and not self._is_held():
            self._started = now
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                umask=self._umask,
            )

    def _is_held(self) -> bool:
        try:
            fd = os.open(self._home / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def ask_to_leave(self) -> None:
        """SIGTERM: the worker returns what has not started and leaves."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    @property
    def gone(self) -> bool:
        """Whether no process of ours is left."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL; its guard ends what it started."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


class Host:
    """Keeps the hands alive, and ends an embedded coordinator that nobody needs any more."""

    def __init__(
        self,
        coordinator: Coordinator,
        gateway: Gateway,
        reader: StoreReader,
        hands: Sequence[Hand],
        *,
        linger_seconds: float,
        stop: Callable[[], None],
    ) -> None:
        self._coordinator = coordinator
        self._gateway = gateway
        self._reader = reader
        self._hands = hands
        self._linger_seconds = linger_seconds
        self._stop = stop
        self._hurried = False

    async def watch(self) -> None:
        """Look after the hands and after our own end, for ever. `linger_seconds` 0: no end."""
        clock = self._coordinator.clock
        needed = clock.monotonic()
        while True:
            now = clock.monotonic()
            try:
                for hand in self._hands:
                    hand.look(now)
                if self._gateway.clients or not self._linger_seconds:
                    needed = now
                elif now - needed >= self._linger_seconds:
                    if not unfinished(await self._reader.counts()):
                        self._stop()
                    needed = now
            except (OSError, HoldfastError) as error:
                # No process, or no answer of the store, can be had now; we look again.
                _LOG.error("the workers beside us cannot be looked after: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

    def hurry(self) -> None:
        """Wait for nobody any more: who asks twice means now."""
        self._hurried = True

    async def dismiss(self) -> None:
        """Let the hands leave in order, and end those that do not within a bound, or in a hurry."""
        for hand in self._hands:
            hand.ask_to_leave()
        deadline = self._coordinator.clock.monotonic() + _STOP_SECONDS
        while not all(hand.gone for hand in self._hands):
            if self._hurried or self._coordinator.clock.monotonic() > deadline:
                for hand in self._hands:
                    hand.kill()
                return
            await asyncio.sleep(0.01)
