"""What `holdfast top` shows, as values: what was read, and what follows from two readings.

Owns the arithmetic of rates and the order of functions. Draws nothing and asks nobody but the
client that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import RefusedError

if TYPE_CHECKING:
    from holdfast.client.client import Client

RATES = ("submitted", "succeeded", "failed")


@dataclass(frozen=True, slots=True)
class Reading:
    """The coordinator's answers at one moment: `now` in seconds of a steady clock."""

    now: float
    at_ms: int
    tasks: Mapping[str, int]
    waiting: Mapping[str, int]
    clients: int
    workers: Sequence[Mapping[str, Any]]
    functions: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Frame:
    """One reading, and how fast things went since the one before, a second; None: not known."""

    reading: Reading
    rates: Mapping[str, float | None]


def read(client: Client, *, now: float, at_ms: int) -> Reading:
    """Ask a coordinator how it is. Raises like `Asking.ask`."""
    stats = client.stats()
    workers = client.workers()
    try:
        functions = client.functions()
    except RefusedError as error:
        # An older coordinator does not know the question.
        if error.code != "unknown_question":
            raise
        functions = []
    return Reading(
        now=now,
        at_ms=at_ms,
        tasks=stats["tasks"],
        waiting=stats["waiting"],
        clients=stats["clients"],
        workers=workers,
        functions=functions,
    )


def frame_of(reading: Reading, before: Reading | None) -> Frame:
    """Return what is shown of a reading.

    A count that fell is of another database, or of one from which tasks were removed, and tells no
    rate.
    """
    if before is None or reading.now <= before.now:
        return Frame(reading, dict.fromkeys(RATES))
    seconds = reading.now - before.now
    now, then = _counted(reading), _counted(before)
    return Frame(
        reading,
        {
            name: (now[name] - then[name]) / seconds if now[name] >= then[name] else None
            for name in RATES
        },
    )


def _counted(reading: Reading) -> dict[str, int]:
    tasks = reading.tasks
    return {
        "submitted": sum(tasks.values()),
        "succeeded": tasks["succeeded"],
        "failed": tasks["failed"],
    }


def as_data(frame: Frame) -> dict[str, Any]:
    """Return a frame as `--json` prints it."""
    reading = frame.reading
    return {
        "at_ms": reading.at_ms,
        "tasks": dict(reading.tasks),
        "rates": {
            name: None if rate is None else round(rate, 3) for name, rate in frame.rates.items()
        },
        "waiting": dict(reading.waiting),
        "clients": reading.clients,
        "workers": [dict(worker) for worker in reading.workers],
        "functions": [dict(function) for function in reading.functions],
    }


def slowest(functions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the functions whose runs are known, the longest run first."""
    known = [function for function in functions if function["max_ms"] is not None]
    return sorted(known, key=lambda function: -function["max_ms"])


def failing(functions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the functions of which tasks failed, those of which most did first."""
    failed = [function for function in functions if function["failed"]]
    return sorted(failed, key=lambda function: -function["failed"])


def class_text(needs: str) -> str:
    """Return a requirement class as people say it: the queue, tags, and whether it is async."""
    queue, *tags = needs.removesuffix("~").split("+")
    parts = [queue, *(f"tag {tag}" for tag in tags), *["async"] * needs.endswith("~")]
    return ", ".join(parts)


def duration_text(milliseconds: float | None) -> str:
    """Return a time in the unit that suits it, "–" for none."""
    if milliseconds is None:
        return "–"
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rate_text(rate: float | None) -> str:
    """Return a rate of one second, "–" where it is not known."""
    return "–" if rate is None else f"{rate:,.1f}/s"
