"""What this process asks of its Python: which one it is, and whether it ends."""

from __future__ import annotations

import sys


def python_version() -> str:
    """Return the version that pickled code is bound to, as `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def refuses_threads(error: RuntimeError) -> bool:
    """Whether an error says that the interpreter ends and starts no thread any more.

    Neither has a type of its own: that of `threading` (from Python 3.12 on), and that of its pools.
    """
    return "interpreter shutdown" in str(error)
