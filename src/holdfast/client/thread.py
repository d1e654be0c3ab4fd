"""A background thread that runs one event loop, for those who do not have one.

Owns the thread and the way into its loop. It knows nothing of what runs there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future as StandardFuture
from typing import Any

from holdfast.interpreter import refuses_threads
from holdfast.observe import logger
from holdfast.outlet import fill_standard_descriptors

_LOG = logger("client")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class LoopThread:
    """One daemon thread and its loop; `main` is the coroutine that it lives for."""

    def __init__(
        self, main: Callable[[], Coroutine[Any, Any, None]], *, name: str, loop_factory: LoopFactory
    ) -> None:
        self._main = main
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._running: StandardFuture[None] = StandardFuture()
        # A daemon: a client that nobody closed must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; returns once its loop runs, and raises what kept it from that."""
        fill_standard_descriptors(inheritable=False)
        self._thread.start()
        self._running.result()

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is this one."""
        return threading.get_ident() == self._thread.ident

    def call(self, function: Callable[..., object], *args: Any) -> bool:
        """Call a function in the loop, soon; False where the loop has ended."""
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop is closed: what it served is over, and its futures have their end.
            return False
        return True

    def stop(self, timeout: float) -> None:
        """Cancel `main` and wait for the thread's end; from the thread itself, without waiting."""
        if self._task is not None:
            self.call(self._task.cancel)
        if not self.is_current:
            self._thread.join(timeout)
            if self._thread.is_alive():
                _LOG.warning("%s did not end within %s s", self._thread.name, timeout)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._body())
        except asyncio.CancelledError:
            _LOG.debug("%s was stopped", self._thread.name)
        except BaseException as error:
            if isinstance(error, RuntimeError) and refuses_threads(error):
                # From Python 3.12 on, a loop that used threads cannot wait for them at the exit.
                _LOG.debug("%s ended with the interpreter", self._thread.name)
            elif self._running.done():
                _LOG.exception("%s failed", self._thread.name)
            else:
                self._running.set_exception(error)

    async def _body(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._running.set_result(None)
        await self._main()
