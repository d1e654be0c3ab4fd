"""Tasks that do next to nothing, and tasks that last until they are told: what the bench runs."""

from __future__ import annotations

import time
from pathlib import Path

from holdfast.engines.current import current
from holdfast.lab.witness import Witness

_LOOK_SECONDS = 0.02


def noop(number: int) -> None:
    """Do nothing."""


def echo(text: str) -> str:
    """Return the argument."""
    return text


def hold(witness: str, gate: str, seconds: float) -> int:
    """Run until the file `gate` exists, at most so many seconds; return the fence of the attempt.

    The witness learns of the begin and of the end.
    """
    attempt = current()
    deadline = time.monotonic() + seconds
    with Witness(witness).running(attempt.id, attempt.fence):
        while not Path(gate).exists() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    return attempt.fence
