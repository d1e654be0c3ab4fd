"""Whether the user's code on disk is still the code that this child has loaded.

Owns the list of a child's own module files and how they were when they were loaded. A child that
finds one changed leaves its next order to a fresh child; nothing is ever loaded anew in place.

A file is first looked at when the attempt that loaded it is over, and may have been edited since.
So one that was touched after its attempt began counts as changed. The kernel's own stamp says so,
which no tool sets back. A fresh child finds that stamp in its past, so that it does not retire of
it again.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from typing import Final

IDLE_SECONDS: Final = 0.2
"""A child that waited so long may have been waiting for a person to edit a file."""
FILES_MAX: Final = 1_000
STAMP_SLACK_NS: Final = 20_000_000
"""Kernels stamp with the time of their last tick, which is up to 10 ms old."""

_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")
_GONE = (0, 0)
_TOUCHED = (-1, -1)
"""No file is so: it may differ from what was loaded."""


class Sources:
    """The module files of the user; what is installed beside Python does not count."""

    __slots__ = ("_count", "_files", "_installed", "_known", "_noted_ns", "_since")

    def __init__(self) -> None:
        self._installed = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in _INSTALLED)
        self._known = set(sys.modules)
        self._count = len(sys.modules)
        self._files: dict[str, tuple[int, int]] = {}
        self._since = time.monotonic()
        self._noted_ns = time.time_ns()

    def begin(self) -> None:
        """Note that an attempt begins in an idle child: what it loads is as it is from here on."""
        # A thread that an attempt left behind loads modules while the child is idle.
        self._look()
        self._noted_ns = time.time_ns()

    def note(self) -> None:
        """Note what an attempt has loaded, and that the child is idle from here on."""
        self._since = time.monotonic()
        self._look()
        self._noted_ns = time.time_ns()

    def changed(self) -> bool:
        """Whether a file differs from what was loaded; only asked of a child that was idle."""
        if time.monotonic() - self._since < IDLE_SECONDS:
            return False
        return any(_state(path) != state for path, state in self._files.items())

    def _look(self) -> None:
        """Take up the files of modules that were loaded since the last note."""
        if len(sys.modules) == self._count:
            return
        self._count = len(sys.modules)
        for name in [name for name in sys.modules if name not in self._known]:
            self._known.add(name)
            path = getattr(sys.modules[name], "__file__", None)
            if isinstance(path, str) and not path.startswith(self._installed):
                self._watch(path)

    def _watch(self, path: str) -> None:
        if len(self._files) < FILES_MAX:
            touched = _was_touched(path, self._noted_ns - STAMP_SLACK_NS, time.time_ns())
            self._files[path] = _TOUCHED if touched else _state(path)


def _was_touched(path: str, begin_ns: int, end_ns: int) -> bool:
    """Whether a file was altered in this time, both ends included.

    A stamp of the future is that of another clock, and would be of the future for every child.
    """
    try:
        return begin_ns <= os.stat(path).st_ctime_ns <= end_ns
    except OSError:
        return False  # A file that was removed once it was loaded, as generated ones are.


def _state(path: str) -> tuple[int, int]:
    """Return what an edit changes; a file that is gone differs from any."""
    try:
        found = os.stat(path)
    except OSError:
        return _GONE
    return (found.st_mtime_ns, found.st_size)
