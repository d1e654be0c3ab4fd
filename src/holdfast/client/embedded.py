"""The embedded coordinator: found where one runs in the folder, started where none does.

It is a process of its own, in a session of its own, so that Ctrl-C in the client does not reach it,
with the client's interpreter, directory and module path. Owns its start; never its end: it ends by
itself once nobody needs it.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.errors import NoCoordinatorError

START_SECONDS = 15.0
_LOG_TAIL_BYTES = 2000
_LOG_BYTES_MAX = 4 * 1024 * 1024
_LOOK_SECONDS = 0.02


class EmbeddedCoordinator:
    """Finds or starts the coordinator of a state directory.

    `find` returns its URL where one is announced; `command` starts one and takes the number of a
    descriptor to write to once it is ready.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        find: Callable[[], str],
        command: Callable[[int], Sequence[str]],
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._state_dir = state_dir
        self._find = find
        self._command = command
        self._start_seconds = start_seconds
        self._pids: list[int] = []

    def ensure(self) -> str:
        """Return the URL of a coordinator that is ready, starting one where none lives.

        Where several clients start one at once, the lock of the state directory lets one through;
        the others find it. Raises NoCoordinatorError with the end of its log where none comes up.
        """
        deadline = time.monotonic() + self._start_seconds
        self._pids = [pid for pid in self._pids if not _reaped(pid)]
        while True:
            url = self._find()
            if url:
                return url
            if time.monotonic() > deadline:
                raise NoCoordinatorError(
                    f"no coordinator came up in {self._state_dir} within "
                    f"{self._start_seconds:g} s{self._log_tail()}"
                )
            self._start(deadline)
            if not self._find():
                time.sleep(_LOOK_SECONDS)

    def revive(self) -> None:
        """See that there is a coordinator again, at the URL where it was."""
        self.ensure()

    def _start(self, deadline: float) -> None:
        """Start one, and wait until it is ready or has ended."""
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ready, theirs = os.pipe()
        try:
            with self._log_path.open(self._log_mode()) as log:
                process = subprocess.Popen(
                    [*self._command(theirs)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs,),
                    start_new_session=True,
                )
        except OSError as error:
            raise NoCoordinatorError(f"no coordinator can be started: {error}") from error
        finally:
            os.close(theirs)
        try:
            select.select([ready], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(ready)
        # It outlives us, so that nobody here waits for its end; but should it end, we reap it.
        process.returncode = 0
        self._pids.append(process.pid)

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
        try:
            tail = self._log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""
        return f"; the end of {self._log_path}:\n{tail}" if tail else ""


def _reaped(pid: int) -> bool:
    """Take the end of a child of ours, where it has ended; whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def module_path() -> list[str]:
    """Return this interpreter's module path as its children can use it; "" is the directory."""
    return [os.path.abspath(entry) for entry in sys.path]
