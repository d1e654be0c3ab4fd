"""Where the calls of a store run: on a thread of their own, or on the caller's.

Owns the thread and the order of calls: one at a time, first come first served. Knows no SQL.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from holdfast.errors import StoreRefusedError
from holdfast.observe import logger

T = TypeVar("T")

CALLS_MAX = 256
"""Calls that may wait at one desk; a coordinator has a few at a time."""


class Desk(Protocol):
    """Runs calls one after another."""

    async def run(self, call: Callable[[], T]) -> T:
        """Run the call and return what it returns, or raise what it raises."""
        ...

    async def close(self) -> None:
        """Wait for the calls that were begun or wait, then end."""
        ...


class InlineDesk:
    """Runs a call at once inside the coroutine: no thread, no suspension, no chance."""

    async def run(self, call: Callable[[], T]) -> T:
        """See `Desk`."""
        return call()

    async def close(self) -> None:
        """See `Desk`."""


class ThreadDesk:
    """One daemon thread; results are delivered to the loop that asked."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """See `Desk`. A cancelled caller does not stop a call that waits or runs."""
        if self._closed or self._calls.qsize() >= CALLS_MAX:
            state = "closed" if self._closed else f"busy with {CALLS_MAX} calls"
            raise StoreRefusedError(f"the store is {state}; nothing was written")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put(_Call(call, future))
        return await future

    async def close(self) -> None:
        """See `Desk`."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call.perform()


class _Call:
    """One call and the future that waits for it."""

    __slots__ = ("_call", "_future")

    def __init__(self, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self._call = call
        self._future = future

    def perform(self) -> None:
        result, error = None, None
        try:
            result = self._call()
        except Exception as caught:
            error = caught
        try:
            self._future.get_loop().call_soon_threadsafe(self._deliver, result, error)
        except RuntimeError:
            # The loop ended before its call did; nobody is left to tell.
            logger("stores").warning("a call ended after its event loop", exc_info=error)

    def _deliver(self, result: Any, error: Exception | None) -> None:
        if self._future.done():
            return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)
