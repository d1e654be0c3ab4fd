"""Real processes of a fleet on this machine: a coordinator and workers, started, killed, restarted.

Owns the processes that it started and the guards of its workers, and ends them by their pid,
whatever happens; it never touches another. Each part logs to a file of its own below the directory
of the cluster.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from holdfast.errors import NoCoordinatorError
from holdfast.transports import endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_GUARD_SECONDS = 2.0
"""What the guard of a worker that was killed gets to end the rest and to tell of it."""
_POLL_SECONDS = 0.005


class Cluster:
    """A coordinator and any number of workers, by their names."""

    def __init__(self, directory: Path, *, lease_seconds: float = 10.0, durability: str = "full"):
        self.directory = directory
        self.state_dir = directory / "coordinator"
        self._lease_seconds = lease_seconds
        self._durability = durability
        self._coordinator: subprocess.Popen[bytes] | None = None
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._guards: list[int] = []
        """The pidfds of the guards whose workers were killed."""

    def __enter__(self) -> Cluster:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Who is interrupted has no patience, and asks for no results any more.
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        self.stop(0.0 if is_interrupted else _STOP_SECONDS)

    @property
    def url(self) -> str:
        """Where the coordinator listens, whichever life of it."""
        return f"unix:{endpoint.socket_path(self.state_dir)}"

    @property
    def coordinator_pid(self) -> int:
        """The pid of the living coordinator."""
        assert self._coordinator is not None, "not started"
        return self._coordinator.pid

    def worker_pid(self, name: str) -> int:
        """The pid of a worker's supervisor."""
        return self._workers[name].pid

    @property
    def workers(self) -> list[str]:
        """The names of the workers that were started."""
        return list(self._workers)

    def start_coordinator(self) -> None:
        """Start the coordinator, and return when it answers; also after its death.

        Raises NoCoordinatorError where it ends, or does not answer in time.
        """
        self.launch_coordinator()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            told = endpoint.read(self.state_dir)
            if told is not None and told.pid == self.coordinator_pid:
                return
            self._see_that_it_lives(deadline)
            time.sleep(_POLL_SECONDS)

    def launch_coordinator(self) -> None:
        """Start the coordinator and do not wait."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._coordinator = self._spawn(
            "coordinator",
            "coordinator",
            "--state-dir",
            str(self.state_dir),
            "--port",
            "0",
            "--lease",
            str(self._lease_seconds),
            "--durability",
            self._durability,
        )

    def _see_that_it_lives(self, deadline: float) -> None:
        assert self._coordinator is not None
        if self._coordinator.poll() is not None or time.monotonic() > deadline:
            log = (self.directory / "coordinator.log").read_text(errors="replace")[-2000:]
            raise NoCoordinatorError(f"the coordinator did not start:\n{log}")

    def start_worker(self, name: str, *words: str, url: str = "") -> None:
        """Start a worker with further command-line words; also after its death, as it was."""
        words = words or self._words.get(name, ())
        self._words[name] = words
        self._workers[name] = self._spawn(
            name,
            "worker",
            "--url",
            url or self.url,
            "--name",
            name,
            "--home",
            str(self.directory / name),
            *words,
        )

    def _spawn(self, log: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{log}.log").open("ab") as out:
            return subprocess.Popen(
                # What lies in the directory of whoever runs this hides no module of ours.
                [sys.executable, "-P", "-m", "holdfast", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill_coordinator(self) -> int:
        """SIGKILL the coordinator; return the pid it had."""
        assert self._coordinator is not None, "not started"
        return _kill(self._coordinator)

    def kill_worker(self, name: str) -> int:
        """SIGKILL a worker's supervisor; its guard ends the rest. Return the pid it had."""
        process = self._workers[name]
        self._watch_guard(process.pid)
        return _kill(process)

    def _watch_guard(self, pid: int) -> None:
        """Keep hold of what a supervisor is the parent of: only now can it be told whose it is."""
        ended = [guard for guard in self._guards if _has_ended(guard, 0.0)]
        self._guards = [guard for guard in self._guards if guard not in ended]
        for guard in ended:
            os.close(guard)
        for child in _children(pid):
            with suppress(ProcessLookupError):
                self._guards.append(os.pidfd_open(child))

    def worker_of(self, pid: int) -> str:
        """Return the worker below which a process runs, "" where it is none of ours."""
        supervisors = {process.pid: name for name, process in self._workers.items()}
        while pid > 1:
            if pid in supervisors:
                return supervisors[pid]
            pid = parent_of(pid)
        return ""

    def stop(self, patience_seconds: float = _STOP_SECONDS) -> None:
        """SIGTERM to all, SIGKILL to those that do not end in time, and to guards that linger.

        Without patience SIGKILL it is, at once.
        """
        processes = [*self._workers.values()]
        if self._coordinator is not None:
            processes.append(self._coordinator)
        try:
            if patience_seconds > 0:
                for process in processes:
                    if process.poll() is None:
                        process.send_signal(signal.SIGTERM)
                _wait_all(processes, patience_seconds)
        finally:
            # Also where somebody has no patience: nothing of ours may stay behind.
            for process in self._workers.values():
                if process.poll() is None:
                    self._watch_guard(process.pid)
                    _kill(process)
            # As long as there is a coordinator to tell of it, guards end by themselves.
            self._end_guards()
            if self._coordinator is not None and self._coordinator.poll() is None:
                _kill(self._coordinator)
        self._workers.clear()
        self._coordinator = None

    def _end_guards(self) -> None:
        """SIGKILL the guards that do not end: what they want to tell has no hearer any more."""
        deadline = time.monotonic() + _GUARD_SECONDS
        for guard in self._guards:
            if not _has_ended(guard, max(0.0, deadline - time.monotonic())):
                signal.pidfd_send_signal(guard, signal.SIGKILL)
                _has_ended(guard, _GUARD_SECONDS)
            os.close(guard)
        self._guards.clear()


def _wait_all(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait until all have ended, at most so long."""
    deadline = time.monotonic() + seconds
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))


def _kill(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    process.wait()
    return process.pid


def _has_ended(pidfd: int, seconds: float) -> bool:
    """Wait until a process has ended, at most so long; return whether it has."""
    return bool(select.select([pidfd], [], [], seconds)[0])


def _children(pid: int) -> list[int]:
    """Return the children of a process. It costs a tenth of a walk over all that run here."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def boot_ns() -> int:
    """Nanoseconds on the clock of the witness, which runs during sleep."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def is_zombie_or_gone(pid: int) -> bool:
    """Whether a process runs no more; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def descendants(pid: int) -> list[int]:
    """Return all processes below a process."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            parents.setdefault(parent_of(int(entry)), []).append(int(entry))
    found: list[int] = []
    wave = [pid]
    while wave:
        wave = [child for parent in wave for child in parents.get(parent, ())]
        found += wave
    return found
