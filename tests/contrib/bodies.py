"""What the tasks of these tests do; importable, as workers import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn

import joblib

from holdfast import Options, current
from holdfast.contrib.joblib import register_joblib


class Refusal(Exception):
    """An exception of the user's own."""


def double(number: int) -> int:
    return 2 * number


def refuse(number: int) -> NoReturn:
    raise Refusal(number)


def die_once(number: int, folder: str) -> int:
    """Kill the process of the first attempt."""
    if number == 3 and current().fence == 1:
        Path(folder, "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def nested(number: int, backend: str | None) -> list[str]:
    """Ask joblib for more within a task; return the backends it used, level by level."""
    outer = joblib.Parallel(n_jobs=2, backend=backend)
    inner = outer(joblib.delayed(_deeper)(number) for _ in range(2))
    return [type(outer._backend).__name__, inner[0]]


def _deeper(number: int) -> str:
    deeper = joblib.Parallel(n_jobs=2)
    assert deeper(joblib.delayed(double)(n) for n in range(number)) == [
        2 * n for n in range(number)
    ]
    return type(deeper._backend).__name__


def register_again(state_dir: str) -> list[int]:
    """A task that connects, registers, and asks for more of what it is itself."""
    import holdfast

    with holdfast.connect(state_dir=state_dir) as hf:
        register_joblib(hf, options=Options(priority=1))
        with joblib.parallel_config(backend="holdfast"):
            found: list[int] = joblib.Parallel()(joblib.delayed(double)(n) for n in range(3))
            return found
