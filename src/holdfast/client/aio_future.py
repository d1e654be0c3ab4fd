"""The future of one task as coroutines see it: awaited, never waited for by a thread.

The same `Future` stands behind it as before a blocking client, settled by the same session. Owns
what cancellation means: who is cancelled while awaiting a task that its client submitted has that
task cancelled too. The outcome is decoded where it is awaited. For one event loop, and no thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from functools import partial
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from holdfast.client.future import Future
from holdfast.errors import InvalidInputError

T = TypeVar("T")


class AsyncOwner(Protocol):
    """What a future needs of its client."""

    def check_loop(self) -> None:
        """Raise on another event loop than the client's, where waiting would never end."""
        ...

    def give_up(self, future: Future[Any]) -> None:
        """Have a task cancelled, without waiting for it."""
        ...

    async def cancel_task(self, future: Future[Any]) -> bool: ...

    async def wait_kept(self, future: Future[Any]) -> None:
        """Wait until the submission is durable, or the future is done."""
        ...


class Unwaited:
    """The owner of the futures behind ours, for which no thread ever waits."""

    held_back = ""

    def __init__(self) -> None:
        self.settling = threading.Lock()

    def cancel_task(self, future: Future[Any]) -> NoReturn:
        """Refuse: see `AsyncFuture.cancel`."""
        raise InvalidInputError(f"{future!r} is of an event loop, where nothing waits: await it")

    def check_may_wait(self) -> NoReturn:
        """Refuse: the loop that would settle it is the one that would wait."""
        raise InvalidInputError("the future of an event loop is awaited: no thread waits for it")


class Acceptance:
    """Whether a submission is known to be durable: a truth for now, and awaitable."""

    __slots__ = ("_future", "_owner")

    def __init__(self, owner: AsyncOwner, future: Future[Any]) -> None:
        self._owner = owner
        self._future = future

    def __bool__(self) -> bool:
        return self._future.accepted

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until the submission is durable; raises what refused it.

        Who is cancelled here only stops waiting: the task goes on.
        """
        yield from self._owner.wait_kept(self._future).__await__()
        if not self._future.accepted:
            self._future.result()


class AsyncFuture(Generic[T]):
    """The result of a task, there or to come: `await` it, as often as you like.

    `await` returns what the task returned, and raises what the task raised; TaskFailedError where
    it failed otherwise; TaskCancelledError, which is no `asyncio.CancelledError`, where the task
    was cancelled; ResultUnreadableError; RefusedError and its like where it was not kept;
    ConnectionLostError where the client was closed first. Cancelling the asyncio task that awaits
    it cancels the task itself, unless it is shielded (`asyncio.shield`) or was found by its id.
    """

    __slots__ = ("__weakref__", "_future", "_listeners", "_owner", "_submitted")

    def __init__(self, owner: AsyncOwner, future: Future[T], *, submitted: bool) -> None:
        """`submitted` tells that the client made the task, whose end is then its business."""
        self._owner = owner
        self._future = future
        self._submitted = submitted
        self._listeners: dict[Callable[[], None], None] | None = None

    def __repr__(self) -> str:
        return repr(self._future).replace("<Future", f"<{type(self).__name__}", 1)

    @property
    def id(self) -> str:
        """The id of the task, 36 characters; it names the task in every other process too."""
        return self._future.id

    @property
    def accepted(self) -> Acceptance:
        """Whether the submission is durable, as a truth; `await` it to wait until it is."""
        return Acceptance(self._owner, self._future)

    def done(self) -> bool:
        """Return True once the task has ended, or its submission was refused."""
        return self._future.done()

    def cancelled(self) -> bool:
        """Return True once the task has ended as cancelled."""
        return self._future.cancelled()

    async def cancel(self) -> bool:
        """Ask the coordinator to cancel the task, and wait for its answer.

        True: the task is cancelled, or runs and is being stopped; in the second case it may still
        end otherwise, and `cancelled()` tells once it has. False: it has ended already. Raises
        TimeoutError, ConnectionLostError.
        """
        if self.done():
            return self.cancelled()
        return await self._owner.cancel_task(self._future)

    async def exception(self) -> BaseException | None:
        """Return what the task raised, None where it succeeded. Otherwise like awaiting it."""
        await self._wait()
        return self._future.exception()

    def result(self) -> T:
        """Return the result of a task that is done, or raise what awaiting it would raise.

        Raises asyncio.InvalidStateError where it is not done.
        """
        if not self.done():
            raise asyncio.InvalidStateError(f"task {self.id} has not ended: await it")
        return self._future.result()

    def __await__(self) -> Generator[Any, None, T]:
        if not self._future.done():
            yield from self._wait().__await__()
        return self._future.result()

    async def _wait(self) -> None:
        if self.done():
            return
        self._owner.check_loop()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._listen(wake)
        try:
            await waiter
        except asyncio.CancelledError:
            # Said and not awaited: who is cancelled is not to be held up, nor cancelled once more.
            if self._submitted and not self.done():
                self._owner.give_up(self._future)
            raise
        finally:
            self._unlisten(wake)

    def _listen(self, call: Callable[[], None]) -> None:
        """Call once the task has ended; now, where it has."""
        if self.done():
            call()
            return
        if self._listeners is None:
            self._listeners = {}
            self._future._call_ended = self._tell
        self._listeners[call] = None

    def _unlisten(self, call: Callable[[], None]) -> None:
        if self._listeners:
            self._listeners.pop(call, None)

    def _tell(self, _: object) -> None:
        listeners, self._listeners = self._listeners, None
        self._future._call_ended = None
        for call in listeners or ():
            call()


class Line(Generic[T]):
    """Futures in the order in which they are taken: that of `add`, or that of their ends.

    `news` is set whenever one has ended.
    """

    def __init__(self, *, ordered: bool) -> None:
        self.news = asyncio.Event()
        self._ordered = ordered
        self._line: deque[AsyncFuture[T]] = deque()
        self._calls: dict[AsyncFuture[T], Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, future: AsyncFuture[T]) -> None:
        """Have one more stand in line; it counts until it is taken, and once."""
        if future in self._calls:
            return
        if self._ordered:
            self._line.append(future)
        call = self._calls[future] = partial(self._arrive, future)
        future._listen(call)

    def take(self) -> AsyncFuture[T] | None:
        """Take the next that is done; None where it is not, or there is none."""
        if not self._line or not self._line[0].done():
            return None
        future = self._line.popleft()
        del self._calls[future]
        return future

    async def wait(self, deadline: float | None) -> None:
        """Wait for news, at most until `deadline` by the clock of the loop. Raises TimeoutError."""
        self.news.clear()
        async with asyncio.timeout_at(deadline):
            await self.news.wait()

    def dissolve(self) -> list[AsyncFuture[T]]:
        """Wait for none any more; return those that were not taken."""
        left = [*self._calls]
        for future, call in self._calls.items():
            future._unlisten(call)
        self._calls.clear()
        self._line.clear()
        return left

    def _arrive(self, future: AsyncFuture[T]) -> None:
        if not self._ordered:
            self._line.append(future)
        self.news.set()


async def as_they_end(
    futures: Iterable[AsyncFuture[T]], deadline: float | None
) -> AsyncGenerator[AsyncFuture[T], None]:
    """Yield each future once it is done; who stops early, or is cancelled, leaves the tasks alone.

    Raises TimeoutError once the loop's clock is at `deadline`.
    """
    line: Line[T] = Line(ordered=False)
    try:
        for future in futures:
            line.add(future)
        while line:
            if (ended := line.take()) is not None:
                yield ended
                continue
            try:
                await line.wait(deadline)
            except TimeoutError:
                raise TimeoutError(f"{len(line)} tasks have not ended") from None
    finally:
        line.dissolve()
