"""The desk: how the web speaks with the coordinator of its own process.

A client session without a socket. What is asked of it goes into the inbox like a client's messages,
and what a turn makes true is heard at once, on the same loop; a request waits for its answer here.
It holds no truth: all that it knows is who waits for what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec

from holdfast.coordinator.asking import Questions
from holdfast.coordinator.facts import Prune, Register
from holdfast.coordinator.service import Coordinator
from holdfast.coordinator.sessions import ClientSession
from holdfast.errors import (
    ChannelClosedError,
    HoldfastError,
    OverloadedError,
    RefusedError,
    StoreDoubtError,
    error_of,
)
from holdfast.model.ids import TaskId
from holdfast.model.messages import (
    Accepted,
    Ask,
    Message,
    PutCode,
    Refused,
    Reply,
    SetQueue,
    Settled,
    SetWanted,
    Submit,
    Watch,
)
from holdfast.model.task import Spec, Task, Wanted
from holdfast.ports import Registered

SUBMISSIONS_MAX = 20_000
"""Tasks that may wait for their commit; who brings more is told to come again."""
WAITERS_MAX = 10_000
"""Requests that may wait for the end of a task."""
ANSWER_SECONDS = 30.0
_SPECS_MAX = 256
_SPECS_BYTES = 256 * 1024
_RETRY_SECONDS = 1.0


class _Batch(msgspec.Struct, eq=False):
    """Submissions of one request that are not all answered."""

    left: int
    done: asyncio.Event
    said: dict[bytes, TaskId | Refused]


class _Nowhere:
    """The channel of who has none."""

    peer = "the web"

    async def send(self, frame: bytes) -> NoReturn:
        raise ChannelClosedError(self.peer)

    async def receive(self) -> NoReturn:
        raise ChannelClosedError(self.peer)

    async def close(self, reason: str = "") -> None:
        return


class _Voice(ClientSession):
    """What turns speak to."""

    __slots__ = ("_hear",)

    watches_own = False

    def __init__(self, hear: Callable[[Message], None]) -> None:
        super().__init__(_Nowhere(), name="the web", now=0.0)
        self._hear = hear

    def send(self, message: Message) -> None:
        """Have it heard at once."""
        self._hear(message)

    def settle(self, message: Settled) -> None:
        """Have it heard at once: nothing waits here that could grow."""
        self._hear(message)


class Desk:
    """What the web asks of one coordinator. For the coordinator's own loop."""

    def __init__(self, coordinator: Coordinator, questions: Questions) -> None:
        self._coordinator = coordinator
        self._questions = questions
        self._voice = _Voice(self._hear)
        self._batches: dict[bytes, _Batch] = {}
        self._waiters: dict[bytes, list[asyncio.Future[Settled]]] = {}
        self._waiting = 0
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._refs = 0

    async def submit(
        self, specs: Sequence[Spec], *, code: PutCode | None = None, again: bool = False
    ) -> list[TaskId | Refused]:
        """Keep tasks; return for each, in order, the id of the one that is kept, or its refusal.

        The id is another one where a key was known. `again` is set where an id may have been
        submitted before. Raises OverloadedError where too many wait, StoreDoubtError where nobody
        knows in time whether they are kept.
        """
        if len(self._batches) + len(specs) > SUBMISSIONS_MAX:
            raise OverloadedError(
                f"{len(self._batches)} tasks wait to be kept", retry_after_seconds=_RETRY_SECONDS
            )
        batch = _Batch(len({spec.id for spec in specs}), asyncio.Event(), {})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._coordinator.ready.wait()
                # One that is on its way in another request is answered there first.
                while others := [self._batches[s.id] for s in specs if s.id in self._batches]:
                    await others[0].done.wait()
                self._batches.update((spec.id, batch) for spec in specs)
                if code is not None:
                    self._coordinator.post(self._voice, code)
                for part in _parts(specs):
                    await self._coordinator.inbox.space()
                    self._coordinator.post(self._voice, Submit(part, again))
                if batch.left:
                    await batch.done.wait()
        except TimeoutError:
            raise StoreDoubtError(
                f"not answered within {ANSWER_SECONDS:g} s: whether it was kept is not known"
            ) from None
        finally:
            for spec in specs:
                if self._batches.get(spec.id) is batch:
                    del self._batches[spec.id]
            batch.done.set()
        return [batch.said[spec.id] for spec in specs]

    async def find(self, text: str) -> Task:
        """Return a task as it is now. Raises UnknownTaskError, InvalidInputError."""
        await self._ready()
        return await self._questions.find(text)

    async def ended(self, task: TaskId, seconds: float) -> Settled | None:
        """Wait until a task has ended; None where that takes longer. Raises UnknownTaskError."""
        if self._waiting >= WAITERS_MAX:
            raise OverloadedError(
                f"{self._waiting} requests wait for tasks", retry_after_seconds=_RETRY_SECONDS
            )
        waiter: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(task, [])
        waiters.append(waiter)
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                if len(waiters) == 1:
                    await self._coordinator.ready.wait()
                    await self._coordinator.inbox.space()
                    self._coordinator.post(self._voice, Watch((task,)))
                return await waiter
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1
            self._gone(task, waiter)

    def _gone(self, task: TaskId, waiter: asyncio.Future[Settled]) -> None:
        waiters = self._waiters.get(task)
        if waiters is None or waiter not in waiters:
            return
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[task]
            self._coordinator.state.unwatch_one(self._voice, task)

    async def wish(self, task: TaskId, wanted: Wanted, *, version: int = 0) -> dict[str, str]:
        """Cancel, pause or resume a task; return what became of that: `said`, `state`, `wanted`.

        Raises UnknownTaskError; RefusedError with code `being_cancelled`, or `version` where that
        is above 0 and not the task's any more.
        """
        told: dict[str, str] = await self._replied(
            lambda ref: SetWanted(ref, task, wanted, version=version)
        )
        return told

    async def wish_all(
        self, tasks: Sequence[TaskId], wanted: Wanted
    ) -> list[dict[str, str] | HoldfastError]:
        """Wish for several tasks at once; what became of each, or the error that it got."""
        wishes = (self.wish(task, wanted) for task in tasks)
        told = await asyncio.gather(*wishes, return_exceptions=True)
        for each in told:
            if isinstance(each, BaseException) and not isinstance(each, HoldfastError):
                raise each
        return [each for each in told if isinstance(each, dict | HoldfastError)]

    def no_room_for(self, size_bytes: int) -> str:
        """Return what is told to who brings a payload, "" where there is room for it."""
        return self._coordinator.no_room_for(size_bytes)

    async def set_queue(self, queue: str, *, paused: bool) -> dict[str, Any]:
        """Pause a queue, or let it go on. Raises InvalidInputError."""
        told: dict[str, Any] = await self._replied(lambda ref: SetQueue(ref, queue, paused))
        return told

    async def prune(self, tasks: Sequence[TaskId]) -> list[TaskId]:
        """Remove those of the tasks that have ended; return them."""
        removed: list[TaskId] = await self._replied(lambda ref: Prune(ref, tuple(tasks)))
        return removed

    async def register(self, row: Registered, code: PutCode | None) -> None:
        """Keep a function under an id. Raises OverloadedError where there is no room."""
        if code is not None:
            self._coordinator.post(self._voice, code)
        await self._replied(lambda ref: Register(ref, row))

    async def ask(self, question: str, **parameters: Any) -> Any:
        """Ask a question of `asking`.

        Raises UnknownTaskError, InvalidInputError, RefusedError, OverloadedError.
        """
        await self._ready()
        reply = await self._questions.answer(Ask(0, question, parameters), whole=True)
        return _data_of(reply)

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._coordinator.ready.wait()
        except TimeoutError:
            raise OverloadedError(
                "the coordinator reads its store", retry_after_seconds=_RETRY_SECONDS
            ) from None

    async def _replied(self, message_of: Callable[[int], object]) -> Any:
        self._refs += 1
        ref = self._refs
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[ref] = waiter
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._coordinator.ready.wait()
                await self._coordinator.inbox.space()
                self._coordinator.post(self._voice, message_of(ref))
                return _data_of(await waiter)
        except TimeoutError:
            raise StoreDoubtError(
                f"not answered within {ANSWER_SECONDS:g} s: whether it was done is not known"
            ) from None
        finally:
            del self._replies[ref]

    # What is heard.

    def _hear(self, message: Message) -> None:
        if isinstance(message, Accepted):
            known = dict(message.known)
            for task in message.tasks:
                self._answered(task, known.get(task, task))
        elif isinstance(message, Refused):
            if not self._answered(message.task, message):
                self._refuse_watch(message)
        elif isinstance(message, Settled):
            for waiter in self._waiters.pop(message.task, ()):
                if not waiter.done():
                    waiter.set_result(message)
        elif isinstance(message, Reply):
            waiting = self._replies.get(message.ref)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)

    def _answered(self, task: TaskId, said: TaskId | Refused) -> bool:
        batch = self._batches.get(task)
        if batch is None or task in batch.said:
            return False
        batch.said[task] = said
        batch.left -= 1
        if not batch.left:
            batch.done.set()
        return True

    def _refuse_watch(self, message: Refused) -> None:
        for waiter in self._waiters.pop(message.task, ()):
            if not waiter.done():
                waiter.set_exception(error_of(message.code, message.text))


def _parts(specs: Sequence[Spec]) -> list[tuple[Spec, ...]]:
    """Return submissions in messages that a turn can take."""
    parts: list[list[Spec]] = [[]]
    size = 0
    for spec in specs:
        if len(parts[-1]) >= _SPECS_MAX or size >= _SPECS_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(spec)
        size += len(spec.payload.data)
    return [tuple(part) for part in parts if part]


def _data_of(reply: Reply) -> Any:
    if not reply.code:
        return reply.data
    error: HoldfastError = error_of(reply.code, reply.text)
    if isinstance(error, RefusedError) and reply.code in ("no_room", "store"):
        raise OverloadedError(reply.text, retry_after_seconds=2 * _RETRY_SECONDS, code=reply.code)
    raise error
