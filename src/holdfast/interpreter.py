"""Which Python this process is: pickles are bound to it."""

from __future__ import annotations

import sys


def python_version() -> str:
    """Return the version that pickled code is bound to, as `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
