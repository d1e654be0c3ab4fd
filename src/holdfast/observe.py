"""What the product tells of itself: named loggers, counters, and tasks that report their failure.

Owns the names of counters. Never configures logging: that is the caller's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

_LOG = logging.getLogger("holdfast")

T = TypeVar("T")


def logger(name: str) -> logging.Logger:
    """Return the logger of a room, `holdfast.<name>`."""
    return _LOG.getChild(name)


class Counters:
    """Named counts of one party; a refused write or a closed session is never silent."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Count `amount` more of `name`."""
        self._counts[name] = self._counts.get(name, 0) + amount

    def get(self, name: str) -> int:
        """Return how many were counted, 0 for a name never seen."""
        return self._counts.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """Return all counts, by name in order."""
        return dict(sorted(self._counts.items()))


class TaskSet:
    """The asyncio tasks of one party: kept while they run, named, and reported when they fail."""

    __slots__ = ("_log", "_tasks")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as a named task; a failure that nobody awaits is logged."""
        self.watched(name, work).add_done_callback(self._finished)

    def watched(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a named task whose end the caller awaits."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("%s failed", task.get_name(), exc_info=error)

    async def cancel(self) -> None:
        """Cancel all, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
