"""The minder: the parent of one child, and the subreaper of all that this child starts.

Owns the end of a child. What a task left behind, in whatever group or session, became the minder's
when its own parents ended; so it is known whose it is, and it is ended before the death is told.
What a task has left that ended by itself lives on: it goes to the guard when the minder leaves.

A minder has a process of its own, and a group, so that a task which kills what is right above it
kills nobody else's. Where the nursery is gone, whatever became of the guard, it ends its child and
all that this started, and itself.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import time
from typing import Final, NoReturn

from holdfast.engines import child, ending, kernel
from holdfast.engines.packets import Charge, Exited, Forked, tell

CLEAR_SECONDS_MAX: Final = 2.0
"""How long the end of a child is not told for the sake of what it has left."""
_PAUSE_SECONDS: Final = 0.001
_PAUSE_SECONDS_MAX: Final = 0.02
_WORD_BYTES: Final = 8
_NEVER: Final = (1 << 63) - 1


class Slate:
    """Memory that nursery, minder and child share: whom to end when one of them cannot tell."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, 2 * _WORD_BYTES)).cast("q")
        self.idle()

    @property
    def child(self) -> int:
        """The pid of the child, 0 before there is one."""
        return self._words[0]

    @child.setter
    def child(self, pid: int) -> None:
        self._words[0] = pid

    @property
    def busy_since(self) -> int:
        """When the child took up work last, in ticks since boot; never, while it has none."""
        return self._words[1]

    @property
    def is_busy(self) -> bool:
        """Whether user code runs, or ran when the child ended."""
        return self._words[1] != _NEVER

    def busy(self) -> None:
        """Note that user code runs from here on. Every attempt pays for this."""
        self._words[1] = int(time.clock_gettime(time.CLOCK_BOOTTIME) * ending.TICKS)

    def idle(self) -> None:
        """Note that no user code runs: what it has left may stay."""
        self._words[1] = _NEVER


def mind(
    charge: Charge,
    descriptors: tuple[int, ...],
    control: socket.socket,
    nursery_pid: int,
    slate: Slate,
) -> NoReturn:
    """Become the minder of a charge: fork its child, and tell of its beginning and its end."""
    signal.signal(signal.SIGTERM, _leave)
    kernel.die_with_parent(nursery_pid, signal.SIGTERM)
    os.setsid()
    kernel.become_subreaper()
    kernel.name_process("holdfast-minder")
    pid = _fork(charge, descriptors, control, slate)
    _close_all_but(control)
    status = _outlive(pid)
    # Not by its exit status, which a task may choose.
    left = clear(slate.busy_since) if slate.is_busy else 0
    tell(control, Exited(charge.serial, status, left))
    os._exit(0)


def _fork(
    charge: Charge, descriptors: tuple[int, ...], control: socket.socket, slate: Slate
) -> int:
    """Fork the child and tell of it; exits where that cannot be done."""
    minder_pid = os.getpid()
    # What is sent to the child before it is one must neither be handled as ours nor be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            control.detach()
            child.run(charge, descriptors, minder_pid, slate)
        # Nobody else waits for it, so that the number is still this child's.
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        # A child that was forked all the same ends with us.
        tell(control, Forked(charge.serial, 0, str(error)))
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    slate.child = pid
    tell(control, Forked(charge.serial, pid), pidfd)
    return pid


def _leave(_signal: int, _frame: object) -> NoReturn:
    """End all that is below us, whatever it is, and then ourselves by the same signal."""
    clear(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(1)


def _close_all_but(control: socket.socket) -> None:
    """Let go of what is the child's: its end must be seen where it closes them."""
    os.closerange(3, control.fileno())
    os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))


def _outlive(pid: int) -> int:
    """Reap orphans until the child has ended, end its group, and return its status."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) and ended.si_pid != pid:
        os.waitpid(ended.si_pid, 0)
    # The zombie still keeps the number of its group from being used anew.
    end_group(pid)
    return os.waitpid(pid, 0)[1]


def end_group(pid: int) -> None:
    """SIGKILL the process group of a child."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # It had no group of its own yet, or only other users' processes are left in it.


def clear(since: int) -> int:
    """End what was left since then, in ticks since boot, within a bound; return how many remain.

    SIGKILL ends all but what hangs in a call of the kernel, and what belongs to another user.
    """
    deadline = time.monotonic() + CLEAR_SECONDS_MAX
    pause = _PAUSE_SECONDS
    while not ending.strike(since):
        if time.monotonic() >= deadline:
            return len(ending.descendants(os.getpid(), since))
        time.sleep(pause)
        pause = min(pause * 2, _PAUSE_SECONDS_MAX)
    return 0
