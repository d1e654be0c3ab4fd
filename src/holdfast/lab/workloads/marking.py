"""Tasks whose result proves which attempt gave it: for the kill test and its judge.

Each task writes its begin and its end to the witness, labelled with its nursery, so that a run can
be told from the worker that carried it. The result is made of the argument and of the fence.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from holdfast.engines.current import current
from holdfast.lab.cluster import parent_of
from holdfast.lab.witness import Witness

_LOOK_SECONDS = 0.1


def label() -> str:
    """Return what tells the worker that runs this: the pid of its nursery, two above this one."""
    return str(parent_of(os.getppid()))


def answer(number: int) -> str:
    """Return what a task with this argument has to find out."""
    return hashlib.sha256(b"%d" % number).hexdigest()[:16]


def mark(number: int, seconds: list[float], witness: str) -> list[object]:
    """Work for `seconds[fence - 1]`, the last of them in later attempts; return answer and fence.

    A first attempt that is quick and a second that is slow make sure that the outcome of the first,
    where its worker was cut off, comes while the second runs.
    """
    attempt = current()
    pause = seconds[min(attempt.fence, len(seconds)) - 1]
    with Witness(witness).running(attempt.id, attempt.fence, label=label()):
        if pause:
            time.sleep(pause)
        return [answer(number), attempt.fence]


def linger(number: int, until: str, seconds_max: float, witness: str) -> list[object]:
    """Work until a file appears, at most so long; return answer and fence."""
    attempt = current()
    deadline = time.monotonic() + seconds_max
    with Witness(witness).running(attempt.id, attempt.fence, label=label()):
        while not Path(until).exists() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return [answer(number), attempt.fence]
