"""The embedded coordinator: found where one runs in the folder, started where none does.

It is a process of its own, in a session of its own, so that Ctrl-C in the client does not reach it,
with the client's interpreter, directory and module path. Owns its start; never its end: it ends by
itself once nobody needs it.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.errors import ConfigurationError, NoCoordinatorError
from holdfast.observe import logger
from holdfast.outlet import fill_standard_descriptors

_LOG = logger("client")
START_SECONDS = 15.0
LEAVE_SECONDS = 50.0
"""How long one that leaves may take: it lets what its workers run end first."""
_TELL_SECONDS = 2.0
_LOG_TAIL_BYTES = 2000
_LOG_BYTES_MAX = 4 * 1024 * 1024
_LOOK_SECONDS = 0.02
_STARTS_MAX = 2
"""Starts that end at once, with no other coordinator to blame: it does not get better then."""


class EmbeddedCoordinator:
    """Finds or starts the coordinator of a state directory.

    `find` returns its URL where one is announced and lives; `lives` tells whether one lives, be it
    ready or not; `command` starts one and takes the number of a descriptor to write to once it is
    ready. For one thread at a time.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        find: Callable[[], str],
        lives: Callable[[], bool],
        command: Callable[[int], Sequence[str]],
        start_seconds: float = START_SECONDS,
        leave_seconds: float = LEAVE_SECONDS,
    ) -> None:
        self._state_dir = state_dir
        self._find = find
        self._lives = lives
        self._command = command
        self._start_seconds = start_seconds
        self._leave_seconds = leave_seconds
        self._pids: list[int] = []
        self._turn = -1
        """Our hold on the right to start one, and what says that it is ready: -1 for neither."""
        self._ready = -1
        self._log_begin = 0

    def begin(self) -> None:
        """Start one where none lives and nobody else is starting one; do not wait for it.

        Raises ConfigurationError where the state directory cannot be used, NoCoordinatorError
        where no process can be started.
        """
        self._pids = [pid for pid in self._pids if not _reaped(pid)]
        fill_standard_descriptors(inheritable=False)
        if self._find() or self._lives() or not self._take_turn():
            return
        try:
            # Whoever had the turn before us may have used it.
            if not self._lives():
                self._start()
        finally:
            if self._ready < 0:
                self._give_turn()

    def ensure(self) -> str:
        """Return the URL of a coordinator that is ready, starting one where none lives.

        Where several clients come at once, one of them starts it and the others find it. One that
        is leaving is waited for, `leave_seconds` at the most. Raises like `begin`, and
        NoCoordinatorError with the end of its log where none comes up.
        """
        return self._ensured(self._leave_seconds)

    def revive(self) -> None:
        """See that there is a coordinator again, at the URL where it was.

        It waits less for one that is leaving, because it is called again and again.
        """
        self._ensured(self._start_seconds)

    def _ensured(self, leave_seconds: float) -> str:
        began = time.monotonic()
        deadline = began + self._start_seconds
        failures, told = 0, False
        try:
            while True:
                ours = self._ready >= 0
                if ours:
                    failures += not self._await_ready(deadline)
                if url := self._find():
                    return url
                now = time.monotonic()
                if not ours and self._lives():
                    # Another can be started only once this one has ended.
                    deadline = now + self._start_seconds
                    told = told or self._tell_whom_we_wait_for(now - began)
                    if now > began + leave_seconds:
                        raise NoCoordinatorError(
                            f"the coordinator of {self._state_dir} neither answers nor ends; it "
                            f"was waited for {leave_seconds:g} s"
                        )
                if now > deadline or failures >= _STARTS_MAX:
                    raise NoCoordinatorError(
                        f"no coordinator came up in {self._state_dir}{self._log_tail()}"
                    )
                self.begin()
                if self._ready < 0:
                    time.sleep(_LOOK_SECONDS)
        finally:
            self._release()

    def _tell_whom_we_wait_for(self, waited_seconds: float) -> bool:
        if waited_seconds < _TELL_SECONDS:
            return False
        _LOG.warning(
            "waiting for the coordinator of %s: it is starting or leaving, and one that leaves "
            "first lets the tasks that run end, for half a minute at the most",
            self._state_dir,
        )
        return True

    def _take_turn(self) -> bool:
        """Take the right to start one, without waiting for it: a crowd must not start a crowd."""
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            turn = os.open(self._state_dir / "starting.lock", flags, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the state directory {self._state_dir} cannot be used: {error.strerror}; "
                "give another as state_dir, --state-dir or HOLDFAST_STATE_DIR"
            ) from error
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(turn)
            return False
        self._turn = turn
        return True

    def _start(self) -> None:
        ready, theirs = os.pipe()
        try:
            with self._log_path.open(self._log_mode()) as log:
                self._log_begin = log.tell()
                process = subprocess.Popen(
                    [*self._command(theirs)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs,),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(ready)
            raise NoCoordinatorError(f"no coordinator can be started: {error}") from error
        finally:
            os.close(theirs)
        # It outlives us, so that nobody here waits for its end; but should it end, we reap it.
        process.returncode = 0
        self._pids.append(process.pid)
        self._ready = ready

    def _await_ready(self, deadline: float) -> bool:
        """Wait until the one that we started is ready or has ended; tell whether it is well."""
        readable, _, _ = select.select([self._ready], [], [], max(0.0, deadline - time.monotonic()))
        well = bool(readable) and bool(os.read(self._ready, 1))
        self._release()
        # It may have met one that lives, which is as well.
        return well or self._lives()

    def _release(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
        self._give_turn()

    def _give_turn(self) -> None:
        if self._turn >= 0:
            os.close(self._turn)
            self._turn = -1

    @property
    def _log_path(self) -> Path:
        return self._state_dir / "coordinator.log"

    def _log_mode(self) -> str:
        """Append, but begin anew where the log has grown large."""
        try:
            return "wb" if self._log_path.stat().st_size > _LOG_BYTES_MAX else "ab"
        except OSError:
            return "ab"

    def _log_tail(self) -> str:
        """Return what our own coordinator had to say, from its end."""
        try:
            said = self._log_path.read_bytes()[self._log_begin :]
        except OSError:
            return ""
        tail = said[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"; the end of {self._log_path}:\n{tail}" if tail else ""


def _reaped(pid: int) -> bool:
    """Take the end of a child of ours, where it has ended; whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def module_path() -> list[str]:
    """Return this interpreter's module path as its children can use it; "" is the directory."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return [entry for entry in sys.path if os.path.isabs(entry)]
    return [os.path.join(here, entry) if entry else here for entry in sys.path]
