"""A `concurrent.futures.Executor` over a client, for libraries that take one.

Owns the executor's own life: it ends without ending the client. Keywords of a submission all go to
the function, as the standard library says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, ParamSpec, Protocol, TypeVar
from weakref import ref

from holdfast.client.calls import Call
from holdfast.client.future import Future
from holdfast.client.mapping import Arrivals, map_results
from holdfast.client.options import DEFAULTS, Options

P = ParamSpec("P")
T = TypeVar("T")
_PRUNE_MIN = 1_000


class Submitter(Protocol):
    """What an executor needs of a client."""

    def prepare(self, function: Callable[..., Any], options: Options | None) -> Call: ...

    def start(
        self,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arrivals: Arrivals | None = None,
    ) -> Future[Any]: ...

    def cancel_waiting(self, futures: Iterable[Future[Any]]) -> None: ...

    def workers(self) -> Sequence[dict[str, Any]]: ...


class TaskExecutor(Executor):
    """Runs every call as a durable task. Made by `client.executor()`."""

    def __init__(self, client: Submitter, options: Options | None) -> None:
        self._client = client
        self._options = options
        self._lock = threading.Lock()
        self._shut = False
        self._open: list[ref[Future[Any]]] = []
        """What may not be done yet. The client holds each until it is; its result is not ours."""
        self._prune_at = _PRUNE_MIN

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call. Raises RuntimeError after a shutdown, and what `client.submit` raises."""
        return self._start(self._client.prepare(fn, self._options), args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return the results in order. All calls are submitted now, unless `buffersize` bounds it.

        `chunksize` is accepted and has no effect: submissions travel in batches anyway. Closing
        the iterator cancels the tasks that wait in the queue.
        """
        call = self._client.prepare(fn, self._options)
        rows: Iterable[tuple[Any, ...]] = zip(*iterables, strict=False)
        if buffersize is None:
            listed = list(rows)
            rows, buffersize = listed, max(1, len(listed))
        return map_results(
            lambda row, arrivals: self._start(call, row, {}, arrivals),
            self._client.cancel_waiting,
            rows,
            ordered=True,
            buffersize=buffersize,
            timeout=timeout,
        )

    @property
    def slots(self) -> int:
        """How many calls can run at once: the slots of the workers that serve these options.

        Asked anew each time. Where none is connected, as right after a start, it is the number of
        processors here, which an embedded coordinator's worker has slots for. Raises like
        `client.workers`.
        """
        options = self._options or DEFAULTS
        found = (worker for worker in self._client.workers() if _serves(worker, options))
        return sum(worker["slots"] for worker in found) or len(os.sched_getaffinity(0))

    @property
    def _max_workers(self) -> int:
        # Where the standard executors keep it: Dask has so many calls under way at once. While one
        # runs in each slot, another is already there, so that no slot waits for the way back.
        return 2 * self.slots

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; wait for what was submitted here, after cancelling what waits, if asked.

        The client stays open.
        """
        with self._lock:
            self._shut = True
            pending = _pending(self._open)
            self._open = [ref(future) for future in pending]
        if cancel_futures:
            self._client.cancel_waiting(pending)
        if wait:
            for future in pending:
                future.wait_done()

    def _start(
        self,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arrivals: Arrivals | None = None,
    ) -> Future[Any]:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = self._client.start(call, args, kwargs, arrivals)
        with self._lock:
            self._open.append(ref(future))
            if len(self._open) >= self._prune_at:
                # Doubling keeps the cost of pruning constant for each submission.
                self._open = [ref(each) for each in _pending(self._open)]
                self._prune_at = max(_PRUNE_MIN, 2 * len(self._open))
        return future


def _pending(open_: Iterable[ref[Future[Any]]]) -> list[Future[Any]]:
    return [future for each in open_ if (future := each()) is not None and not future.done()]


def _serves(worker: dict[str, Any], options: Options) -> bool:
    return (
        worker["state"] == "connected"
        and (not worker["queues"] or options.queue in worker["queues"])
        and set(options.tags) <= set(worker["tags"])
    )
