"""What a client can ask a coordinator, in the words of the API: blocking, and awaited.

Owns the questions' names and the shapes of their answers, which are plain data. How a question gets
there and back is the client's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from holdfast.errors import InvalidInputError


class Asking(ABC):
    """Whoever can ask. A `task` is an id or a unique beginning of one."""

    @abstractmethod
    def ask(self, question: str, /, **parameters: Any) -> Any:
        """Ask the coordinator and return its answer, as plain data.

        Raises UnknownTaskError, InvalidInputError, RefusedError (its `code` says why), TimeoutError
        where no answer comes in time.
        """

    def status(self, task: str) -> dict[str, Any]:
        """Return where a task is."""
        found: dict[str, Any] = self.ask("status", task=task)
        return found

    def list(
        self,
        *,
        states: Iterable[str] = (),
        function: str = "",
        queue: str = "",
        tag: str = "",
        key: str = "",
        meta: Mapping[str, str] | None = None,
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int = 50,
        before: str = "",
    ) -> list[dict[str, Any]]:
        """Return tasks, newest first; `states`, the texts and `meta` choose, "" chooses all.

        `since_ms` and `until_ms` bound the time of submission, in milliseconds since 1970.

        `limit` bounds how many, `before` (an id) continues a page. Raises like `ask`.
        """
        chosen = {"function": function, "queue": queue, "tag": tag, "key": key}
        times = {"since_ms": since_ms, "until_ms": until_ms}
        found: list[dict[str, Any]] = self.ask(
            "list",
            states=_listed(states),
            meta=dict(meta or {}),
            limit=limit,
            before=before,
            **chosen,
            **times,
        )
        return found

    def story(self, task: str) -> Sequence[dict[str, Any]]:
        """Return all that happened to a task, in order."""
        found: Sequence[dict[str, Any]] = self.ask("story", task=task)
        return found

    def why(self, task: str) -> dict[str, Any]:
        """Return why a task is where it is."""
        found: dict[str, Any] = self.ask("why", task=task)
        return found

    def workers(self) -> Sequence[dict[str, Any]]:
        """Return the workers that are connected."""
        found: Sequence[dict[str, Any]] = self.ask("workers")
        return found

    def drain(self, worker: str) -> dict[str, Any]:
        """Let a worker (name or identity) finish what runs, return the rest, and leave."""
        found: dict[str, Any] = self.ask("drain", worker=worker)
        return found

    def stats(self) -> dict[str, Any]:
        """Return the coordinator's counts."""
        found: dict[str, Any] = self.ask("stats")
        return found

    def functions(self) -> Sequence[dict[str, Any]]:
        """Return the functions of the last 1,000 tasks that ended, 100 at most.

        Of each: how many `ended` and `failed`, and the `mean_ms` and `max_ms` that their last runs
        took (None where none was assigned); of short runs the time is told since they were
        assigned. First come those of which most failed, then those with the longest run.
        """
        found: Sequence[dict[str, Any]] = self.ask("functions")
        return found


class AsyncAsking(ABC):
    """Whoever can ask and await the answer; each question is that of `Asking`."""

    @abstractmethod
    async def ask(self, question: str, /, **parameters: Any) -> Any:
        """Ask the coordinator and return its answer, as plain data. Raises like `Asking.ask`."""

    async def status(self, task: str) -> dict[str, Any]:
        """Return where a task is."""
        found: dict[str, Any] = await self.ask("status", task=task)
        return found

    async def list(
        self,
        *,
        states: Iterable[str] = (),
        function: str = "",
        queue: str = "",
        tag: str = "",
        key: str = "",
        meta: Mapping[str, str] | None = None,
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int = 50,
        before: str = "",
    ) -> list[dict[str, Any]]:
        """Return tasks, newest first; see `Asking.list`."""
        chosen = {"function": function, "queue": queue, "tag": tag, "key": key}
        times = {"since_ms": since_ms, "until_ms": until_ms}
        found: list[dict[str, Any]] = await self.ask(
            "list",
            states=_listed(states),
            meta=dict(meta or {}),
            limit=limit,
            before=before,
            **chosen,
            **times,
        )
        return found

    async def story(self, task: str) -> Sequence[dict[str, Any]]:
        """Return all that happened to a task, in order."""
        found: Sequence[dict[str, Any]] = await self.ask("story", task=task)
        return found

    async def why(self, task: str) -> dict[str, Any]:
        """Return why a task is where it is."""
        found: dict[str, Any] = await self.ask("why", task=task)
        return found

    async def workers(self) -> Sequence[dict[str, Any]]:
        """Return the workers that are connected."""
        found: Sequence[dict[str, Any]] = await self.ask("workers")
        return found

    async def drain(self, worker: str) -> dict[str, Any]:
        """Let a worker (name or identity) finish what runs, return the rest, and leave."""
        found: dict[str, Any] = await self.ask("drain", worker=worker)
        return found

    async def stats(self) -> dict[str, Any]:
        """Return the coordinator's counts."""
        found: dict[str, Any] = await self.ask("stats")
        return found

    async def functions(self) -> Sequence[dict[str, Any]]:
        """Return the functions of the last 1,000 tasks that ended; see `Asking.functions`."""
        found: Sequence[dict[str, Any]] = await self.ask("functions")
        return found


def _listed(states: Iterable[str]) -> Sequence[str]:
    if isinstance(states, str):
        raise InvalidInputError(f"states={states!r} is one text; give a list: [{states!r}]")
    return [*states]
