"""`map`: one function over many rows, with a bound on how many tasks are ahead of the reader.

Owns the order in which results come, and what becomes of the rest when the reader stops early. It
submits by a function it is given, and never talks to a coordinator.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from holdfast.client.future import Future
from holdfast.client.timeouts import seconds_of
from holdfast.errors import BlobTooLargeError, InvalidInputError, NotSerializableError

T = TypeVar("T")
BUFFER_TASKS = 2_000
Arrivals = SimpleQueue[Future[Any]]
Start = Callable[[tuple[Any, ...], Arrivals | None], Future[Any]]
Drop = Callable[[Sequence[Future[Any]]], None]


def map_results(
    start: Start,
    drop: Drop,
    rows: Iterable[tuple[Any, ...]],
    *,
    ordered: bool,
    buffersize: int | None,
    timeout: float | None,
) -> Iterator[Any]:
    """Return the results of `start` over `rows`; the first `buffersize` tasks start at once.

    `rows` may be endless: it is read no further than `buffersize` tasks ahead of the results.
    `timeout` is in seconds from now, as in the standard library. When the iterator is closed or
    fails, or `rows` does already in this call, `drop` gets the futures that are not done. An item
    that does not serialise is named by its number, from 0.
    """
    ahead = ahead_of(buffersize)
    seconds = seconds_of(timeout)
    deadline = None if seconds is None else time.monotonic() + seconds
    started = _Ahead(start, rows, None if ordered else SimpleQueue())
    try:
        started.fill(ahead)
    except BaseException:
        drop(started.futures)
        raise
    results = (_in_order if ordered else _as_they_come)(started, drop, deadline)
    return _Results(results, partial(_drop_all, started, drop))


def ahead_of(buffersize: int | None) -> int:
    """Return how many tasks may be ahead of the reader. Raises InvalidInputError."""
    ahead = BUFFER_TASKS if buffersize is None else buffersize
    if type(ahead) is not int or ahead < 1:
        raise InvalidInputError(f"buffersize={buffersize!r} is not a number of tasks from 1")
    return ahead


def numbered(error: Exception, number: int) -> Exception:
    """Return an error of a row; one of what does not serialise names the item it was met at."""
    if not isinstance(error, NotSerializableError | BlobTooLargeError):
        return error
    named = type(error)(f"item {number} of the map: {error}")
    named.__cause__ = error
    return named


class _Results(Iterator[Any]):
    """The results as a reader holds them: closing cancels also where nothing was read yet.

    A generator that was not begun runs nothing when it is closed, so that `drop` is called. Where
    it is only let go of, the tasks go on: they are wanted for what they do.
    """

    def __init__(self, results: Generator[Any, None, None], drop: Callable[[], None]) -> None:
        self._results = results
        self._drop: Callable[[], None] | None = drop

    def __next__(self) -> Any:
        self._drop = None
        return next(self._results)

    def close(self) -> None:
        """Cancel the tasks that wait in the queue, and read no more."""
        drop, self._drop = self._drop, None
        self._results.close()
        if drop is not None:
            drop()


class _Ahead:
    """Rows that become futures, so many ahead of the reader."""

    def __init__(
        self, start: Start, rows: Iterable[tuple[Any, ...]], arrivals: Arrivals | None
    ) -> None:
        self.arrivals = arrivals
        self.futures: deque[Future[Any]] = deque()
        """What the first filling started, for the reader to take over."""
        self._start = start
        self._rows = enumerate(rows)

    def fill(self, ahead: int) -> None:
        """Start the first `ahead` rows."""
        while len(self.futures) < ahead and (future := self.more()) is not None:
            self.futures.append(future)

    def more(self) -> Future[Any] | None:
        """Start the next row; None where there is none. Says which one it is that cannot be."""
        for number, row in self._rows:
            try:
                return self._start(row, self.arrivals)
            except (NotSerializableError, BlobTooLargeError) as error:
                raise numbered(error, number) from error
        return None


def _drop_all(ahead: _Ahead, drop: Drop) -> None:
    drop([future for future in ahead.futures if not future.done()])


def _in_order(ahead: _Ahead, drop: Drop, deadline: float | None) -> Generator[Any, None, None]:
    futures = ahead.futures
    try:
        while futures:
            # Not popped before it is done, so that an interrupt drops this one as well.
            result = futures[0].result(_seconds_to(deadline))
            futures.popleft()
            future = ahead.more()
            if future is not None:
                futures.append(future)
            yield result
    finally:
        drop([future for future in futures if not future.done()])


def _as_they_come(ahead: _Ahead, drop: Drop, deadline: float | None) -> Generator[Any, None, None]:
    arrivals = ahead.arrivals
    assert arrivals is not None
    futures = dict.fromkeys(ahead.futures)
    ahead.futures.clear()
    try:
        while futures:
            try:
                arrived = arrivals.get(timeout=_seconds_to(deadline))
            except Empty:
                raise TimeoutError(f"{len(futures)} tasks of the map have not ended") from None
            del futures[arrived]
            future = ahead.more()
            if future is not None:
                futures[future] = None
            yield arrived.result()
    finally:
        drop([future for future in futures if not future.done()])


def _seconds_to(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
