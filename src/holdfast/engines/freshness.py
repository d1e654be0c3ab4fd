"""Whether the user's code on disk is still the code that this child has loaded.

Owns the list of a child's own module files and how they were when they were loaded. A child that
finds one changed leaves its next order to a fresh child; nothing is ever loaded anew in place.
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

_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


class Sources:
    """The module files of the user; what is installed beside Python does not count."""

    __slots__ = ("_count", "_files", "_installed", "_known", "_since")

    def __init__(self) -> None:
        self._installed = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in _INSTALLED)
        self._known = set(sys.modules)
        self._count = len(sys.modules)
        self._files: dict[str, tuple[int, int]] = {}
        self._since = time.monotonic()

    def note(self) -> None:
        """Note what an attempt has loaded, and that the child is idle from here on."""
        self._since = time.monotonic()
        if len(sys.modules) == self._count:
            return
        self._count = len(sys.modules)
        for name in [name for name in sys.modules if name not in self._known]:
            self._known.add(name)
            path = getattr(sys.modules[name], "__file__", None)
            if isinstance(path, str) and not path.startswith(self._installed):
                self._watch(path)

    def changed(self) -> bool:
        """Whether a file differs from what was loaded; only asked of a child that was idle."""
        if time.monotonic() - self._since < IDLE_SECONDS:
            return False
        return any(_state(path) != state for path, state in self._files.items())

    def _watch(self, path: str) -> None:
        if len(self._files) < FILES_MAX:
            self._files[path] = _state(path)


def _state(path: str) -> tuple[int, int]:
    """Return what an edit changes; a file that is gone differs from any."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
