"""One coordinator process: its room on the disk, its own workers, and when it ends.

Owns what a process has and a service has not. The service neither knows that it is alone in its
state directory nor that workers were started beside it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from holdfast.coordinator.gateway import Gateway
from holdfast.coordinator.service import Coordinator
from holdfast.coordinator.statedir import StateLock
from holdfast.coordinator.telling import unfinished
from holdfast.errors import HoldfastError, StoreCorruptError, StoreGoneError
from holdfast.observe import logger
from holdfast.ports import StoreReader

_LOG = logger("host")
_LOOK_SECONDS = 1.0
_RESPAWN_SECONDS = (0.0, 0.2, 1.0, 5.0)
_STEADY_SECONDS = 30.0
_STOP_SECONDS = 35.0
"""Longer than a worker waits for what it runs."""
_HURRY_SECONDS = 4.0
"""What a worker gets to stop its tasks and to tell of it."""
_GONE_LOOK_SECONDS = 0.01
_TAIL_BYTES = 4096
_LINE_CHARACTERS_MAX = 500


class Hand:
    """One worker that this coordinator keeps alive beside itself.

    `command` starts it. A worker of a former coordinator may still live: it holds the lock of its
    home, and is left alone until that is free. `umask` is what the user's own files get;
    `environment` is its environment, None: ours. `logs` are the files that it writes to; the first
    that grew in a life has its last words.
    """

    def __init__(
        self,
        command: Sequence[str],
        home: Path,
        *,
        directory: Path,
        umask: int = -1,
        environment: Mapping[str, str] | None = None,
        logs: Sequence[Path] = (),
    ) -> None:
        self._command = list(command)
        self._home = home
        self._directory = directory
        self._umask = umask
        self._environment = environment
        self._logs = dict.fromkeys(logs, 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next = 0.0
        self._deaths = 0
        self.trouble = ""
        """How the last life of the worker ended, "" where none has."""

    @property
    def identity(self) -> str:
        """The identity of the worker of this home, "" before its first life."""
        try:
            return (self._home / "identity").read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def look(self, now: float) -> None:
        """Start the worker where none lives; soon at first, then ever more slowly."""
        if self._process is not None and self._process.poll() is not None:
            status = self._process.returncode
            said = self._last_words()
            _LOG.warning("worker process ended with %s", status)
            self._process = None
            steady = now - self._started > _STEADY_SECONDS
            self._deaths = 1 if steady else self._deaths + 1
            pauses = _RESPAWN_SECONDS
            self._next = now + pauses[min(self._deaths - 1, len(pauses) - 1)]
            self.trouble = self._ended(status) + said
        if self._process is None and now >= self._next and not self.is_held:
            self._started = now
            self._next = now + _RESPAWN_SECONDS[-1]
            self._logs = {log: _size(log) for log in self._logs}
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                umask=self._umask,
                env=self._environment,
            )

    def _ended(self, status: int) -> str:
        how = f"exit code {status}" if status >= 0 else f"signal {-status}"
        times = f", {self._deaths} times in a row" if self._deaths > 1 else ""
        return f"the coordinator's own worker ended with {how}{times}, and is started again"

    def _last_words(self) -> str:
        for log, began in self._logs.items():
            if line := _last_line(log, began):
                return f": {line} ({log})"
        return ""

    @property
    def pid(self) -> int:
        """The process that we started and that has not been seen to end, 0 for none."""
        return 0 if self._process is None else self._process.pid

    @property
    def is_held(self) -> bool:
        """Whether a worker lives in this home, whoever started it."""
        try:
            fd = os.open(self._home / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def ask_to_leave(self, stranger: int = 0) -> None:
        """SIGTERM: the worker returns what has not started and leaves. Twice: at once.

        `stranger` is the pid of a worker that lives here and is not our child.
        """
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
        elif stranger and self.is_held:
            try:
                os.kill(stranger, signal.SIGTERM)
            except ProcessLookupError:
                return  # It left in the same moment.

    @property
    def gone(self) -> bool:
        """Whether no process of ours is left, and nobody lives in this home."""
        if self._process is not None and self._process.poll() is None:
            return False
        return not self.is_held

    def kill(self) -> None:
        """SIGKILL; its guard ends what it started."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0


def _last_line(log: Path, began: int) -> str:
    """Return the last line of a log that is its writer's own, or "" where nothing new is there.

    Where it shares the log with us, the error that ends it begins with `holdfast: `.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(began, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if line.startswith("holdfast: ")]
    return (errors or said or [""])[-1][:_LINE_CHARACTERS_MAX]


class Host:
    """Keeps the hands alive, and ends an embedded coordinator that nobody needs any more.

    `check` raises StoreGoneError where the files of the store are not in place any more. `here`
    names this boot and its space of pids, "" where that is not known.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        gateway: Gateway,
        reader: StoreReader,
        hands: Sequence[Hand],
        *,
        lock: StateLock,
        check: Callable[[], Awaitable[None]],
        here: str,
        linger_seconds: float,
        stop: Callable[[], None],
    ) -> None:
        self._coordinator = coordinator
        self._gateway = gateway
        self._reader = reader
        self._hands = hands
        self._lock = lock
        self._check = check
        self._here = here
        self._linger_seconds = linger_seconds
        self._stop = stop
        self.lost = ""
        """What of the state directory was removed or replaced while we ran, and made us end."""
        self._hurried = False
        self._leaving = False
        self._look = asyncio.Event()
        self._followed: dict[int, int] = {}
        """pid -> pidfd of each hand whose end wakes us."""
        self._dismissed = False

    async def watch(self) -> None:
        """Look after the hands until they are dismissed, and after our own end.

        `linger_seconds` 0: no end.
        """
        clock = self._coordinator.clock
        needed = clock.monotonic()
        # Who leaves because it was asked to has no successor: nobody would ask that one.
        while not self._dismissed:
            now = clock.monotonic()
            try:
                if not self._leaving:
                    needed = await self._look_after(now, needed)
            except StoreCorruptError as error:
                self._coordinator.give_up(error)
            except (OSError, HoldfastError) as error:
                # No process, or no answer of the store, can be had now; we look again.
                _LOG.error("the workers beside us cannot be looked after: %s", error)
            self._coordinator.absent = self._absent()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                continue
            self._look.clear()

    async def _look_after(self, now: float, needed: float) -> float:
        """Look once; return when somebody last needed us."""
        self.lost = await self._missed()
        if self.lost:
            # What is acknowledged from here on, nobody would find again.
            _LOG.error("this coordinator ends: %s", self.lost)
            self._stop()
            return now
        for hand in self._hands:
            hand.look(now)
        self._follow()
        if self._gateway.clients or not self._linger_seconds:
            return now
        if now - needed < self._linger_seconds:
            return needed
        if not unfinished(await self._reader.counts()):
            self._stop()
        return now

    def _absent(self) -> str:
        """Say what became of a hand that is not connected: all are started alike."""
        present = self._coordinator.state.sessions
        troubles = (
            hand.trouble for hand in self._hands if hand.trouble and hand.identity not in present
        )
        return next(troubles, "")

    async def _missed(self) -> str:
        if lost := self._lock.lost:
            return f"{lost} while it was in use"
        try:
            await self._check()
        except StoreGoneError as error:
            return str(error)
        return ""

    def _follow(self) -> None:
        """Have the end of each hand wake us: its successor starts at once, not at the next look."""
        loop = asyncio.get_running_loop()
        pids = [hand.pid for hand in self._hands if hand.pid]
        for pid in [pid for pid in self._followed if pid not in pids]:
            os.close(self._followed.pop(pid))
        for pid in pids:
            if pid not in self._followed:
                # Our own child, which nobody else reaps: the number is still its own.
                self._followed[pid] = pidfd = os.pidfd_open(pid)
                loop.add_reader(pidfd, self._ended, pidfd)

    def _ended(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        self._look.set()

    def hurry(self) -> None:
        """Wait no longer for what runs: who asks twice means now."""
        self._hurried = True

    async def dismiss(self) -> None:
        """Let the hands leave in order, and end those that do not within a bound.

        In a hurry, and when the first part of the time is over, they stop what runs.
        """
        self._dismissed = True
        self._leaving = True
        self._ask_to_leave()
        await self._until_gone(_STOP_SECONDS, patient=True)
        if not all(hand.gone for hand in self._hands):
            self._ask_to_leave()
            await self._until_gone(_HURRY_SECONDS, patient=False)
        for hand in self._hands:
            hand.kill()
        for pidfd in self._followed.values():
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._followed.clear()

    def _ask_to_leave(self) -> None:
        for hand in self._hands:
            session = self._coordinator.state.sessions.get(hand.identity)
            near = session is not None and bool(self._here) and session.hello.boot == self._here
            hand.ask_to_leave(session.hello.pid if session is not None and near else 0)

    async def _until_gone(self, seconds: float, *, patient: bool) -> None:
        clock = self._coordinator.clock
        deadline = clock.monotonic() + seconds
        while not all(hand.gone for hand in self._hands):
            if clock.monotonic() > deadline or (patient and self._hurried):
                return
            await asyncio.sleep(_GONE_LOOK_SECONDS)
