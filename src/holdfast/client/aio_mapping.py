"""`map` for event loops: one function over rows that come by themselves or are awaited.

Owns the task that reads the rows, so many ahead of the reader, the order in which results come, and
what becomes of the rest when the reader stops early. It submits by a function it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, TypeVar

from holdfast.client.aio_future import AsyncFuture, Line
from holdfast.client.mapping import ahead_of, numbered
from holdfast.errors import ConnectionLostError

T = TypeVar("T")
Start = Callable[[tuple[Any, ...]], Awaitable[AsyncFuture[T]]]
Drop = Callable[[Sequence[AsyncFuture[Any]], bool], None]
Begin = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
Source = Iterator[Any] | AsyncIterator[Any]
_END = object()


def map_awaited(
    start: Start[T],
    drop: Drop,
    begin: Begin,
    iterables: Iterable[Iterable[Any] | AsyncIterable[Any]],
    *,
    ordered: bool,
    buffersize: int | None,
    deadline: float | None,
) -> AsyncGenerator[T, None]:
    """Return the results of `start` over rows; nothing is read before the first is awaited.

    `begin` runs a coroutine beside us. Where the iterator ends early, `drop` gets the futures that
    are not done, and whether those that have begun are meant too: so it is where the reader was
    cancelled. Raises InvalidInputError, and TypeError for what is not iterable.
    """
    sources = [aiter(each) if isinstance(each, AsyncIterable) else iter(each) for each in iterables]
    feed = _Feed(start, _rows(sources), ahead_of(buffersize), ordered=ordered)
    return _results(feed, drop, begin, deadline)


async def _rows(sources: Sequence[Source]) -> AsyncGenerator[tuple[Any, ...], None]:
    """Yield rows until the shortest source has ended, as `zip` does."""
    while sources:
        row = []
        for source in sources:
            if isinstance(source, AsyncIterator):
                value = await anext(source, _END)
            else:
                value = next(source, _END)
            if value is _END:
                return
            row.append(value)
        yield tuple(row)


class _Feed:
    """Rows that become futures, by `run` in a task of its own, at most `ahead` of the reader."""

    def __init__(
        self, start: Start[Any], rows: AsyncIterator[tuple[Any, ...]], ahead: int, *, ordered: bool
    ) -> None:
        self._start = start
        self._rows = rows
        self._ahead = ahead
        self._line: Line[Any] = Line(ordered=ordered)
        self._room = asyncio.Event()
        self._error: BaseException | None = None
        self._over = self._closed = False

    async def run(self) -> None:
        """Submit row after row."""
        number = 0
        try:
            while await self._has_room() and (row := await anext(self._rows, None)) is not None:
                # A source may hold on to its own cancellation, and come with one more row.
                if self._closed:
                    return
                self._line.add(await self._start(row))
                number += 1
        except Exception as error:
            self._error = numbered(error, number)
        except BaseException:
            self._error = ConnectionLostError(
                "the rows of this map are read no further: the client was closed, or their source "
                "was cancelled"
            )
            raise
        finally:
            self._over = True
            self._line.news.set()

    async def _has_room(self) -> bool:
        while len(self._line) >= self._ahead:
            self._room.clear()
            await self._room.wait()
        return not self._closed

    async def next(self, deadline: float | None) -> AsyncFuture[Any] | None:
        """Return the next future that is done, None after the last. Raises what broke the rows."""
        while True:
            if self._error is not None:
                raise self._error
            if (future := self._line.take()) is not None:
                self._room.set()
                return future
            if self._over and not self._line:
                return None
            try:
                await self._line.wait(deadline)
            except TimeoutError:
                count = len(self._line)
                raise TimeoutError(f"{count} tasks of the map have not ended") from None

    def close(self) -> list[AsyncFuture[Any]]:
        """Submit no more; return the futures whose results nobody took."""
        self._closed = True
        self._room.set()
        return self._line.dissolve()


async def _results(
    feed: _Feed, drop: Drop, begin: Begin, deadline: float | None
) -> AsyncGenerator[Any, None]:
    begun = False
    feeding = begin(feed.run())
    try:
        while (future := await feed.next(deadline)) is not None:
            yield future.result()
    except asyncio.CancelledError:
        begun = True
        raise
    finally:
        # Nothing is awaited here: who is cancelled, or collects garbage, is not held up.
        feeding.cancel()
        drop([future for future in feed.close() if not future.done()], begun)
