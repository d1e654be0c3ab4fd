"""Calls of the Linux kernel that the standard library lacks. Stdlib only: the guard uses it too."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_FLAGS = 6
"""Where the flags stand in a process's stat, counted from its state: see proc_pid_stat(5)."""
_PF_EXITING = 0x4


def become_subreaper() -> None:
    """Adopt every orphan among the descendants of this process. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send a signal to this process when its parent ends; exit if it already has.

    It follows the *thread* that forked us, so the parent has to be single-threaded.
    """
    _prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent_pid:
        os._exit(1)


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show (15 bytes at most). Raises OSError."""
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]))


def is_ending(pid: int) -> bool:
    """Tell whether a process is gone or on its way: it then closes its descriptors unasked."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return bool(int(fields[_FLAGS]) & _PF_EXITING)


def _prctl(option: int, argument: int | ctypes.Array[ctypes.c_char]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    given = argument if not isinstance(argument, int) else ctypes.c_ulong(argument)
    if libc.prctl(option, given, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
