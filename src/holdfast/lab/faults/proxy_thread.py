"""The fault proxy for synchronous tests: the same verbs, in a thread with a loop of its own.

Owns that thread and nothing else. Never adds behaviour: each verb is asked of the `FaultProxy`
inside its loop, and answers when it has taken effect there.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from holdfast.lab.faults.endpoint import Endpoint
from holdfast.lab.faults.proxy import (
    CONNECTIONS_MAX,
    POLL_SECONDS,
    SOCKET_BUFFER_BYTES,
    AppliedFault,
    FaultProxy,
    ProxyCounts,
)
from holdfast.lab.faults.tcp import Fault

ANSWER_SECONDS_MAX = 10.0

T = TypeVar("T")


class ProxyThread:
    """A `FaultProxy` in a thread; a context manager. See there for the arguments and the verbs."""

    def __init__(
        self,
        upstream: Endpoint,
        *,
        listen: Endpoint = ("127.0.0.1", 0),
        connections_max: int = CONNECTIONS_MAX,
        socket_buffer_bytes: int = SOCKET_BUFFER_BYTES,
    ) -> None:
        self._proxy = FaultProxy(
            upstream,
            listen=listen,
            connections_max=connections_max,
            socket_buffer_bytes=socket_buffer_bytes,
        )
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        stop = asyncio.Event()
        async with self._proxy:
            self._started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def start(self) -> None:
        """Begin to listen. Raise OSError when the address is taken."""
        self._thread.start()
        try:
            self._started.result(ANSWER_SECONDS_MAX)
        except BaseException:
            self._thread.join(ANSWER_SECONDS_MAX)
            raise

    def close(self) -> None:
        """Close all sockets and end the thread. Harmless when repeated."""
        if self._thread.is_alive():
            loop, stop = self._started.result(ANSWER_SECONDS_MAX)
            # A closed loop means that the thread has just ended by itself.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
            self._thread.join(ANSWER_SECONDS_MAX)
            assert not self._thread.is_alive(), "the proxy's thread does not end"

    def __enter__(self) -> ProxyThread:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> Endpoint:
        """Where clients connect: the real port once the proxy has started."""
        return self._proxy.address

    @property
    def port(self) -> int:
        """The TCP port where clients connect."""
        return self._proxy.port

    def apply(self, fault: Fault) -> AppliedFault:
        """Switch a fault on, and return when it is on. Its `heal` returns when it is off."""
        applied = self._ask(lambda: self._proxy.apply(fault))
        return AppliedFault(fault, lambda: self._mend(applied.heal))

    def heal(self) -> None:
        """Repair everything."""
        self._mend(self._proxy.heal)

    def counts(self) -> ProxyCounts:
        """Return what happened so far, also after the end."""
        return self._ask(self._proxy.counts) if self._thread.is_alive() else self._proxy.counts()

    def wait_for(
        self,
        what: str,
        condition: Callable[[ProxyCounts], bool],
        *,
        timeout_seconds: float = 10.0,
    ) -> ProxyCounts:
        """Wait until the counts fulfil a condition, and return them.

        Raise TimeoutError, with `what` was waited for and the last counts.
        """
        deadline = time.monotonic() + timeout_seconds
        while not condition(counts := self.counts()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_seconds} s in vain until {what}: {counts}")
            time.sleep(POLL_SECONDS)
        return counts

    def _mend(self, verb: Callable[[], None]) -> None:
        # A proxy that has ended holds no fault.
        if self._thread.is_alive():
            self._ask(verb)

    def _ask(self, verb: Callable[[], T]) -> T:
        answer: Future[T] = Future()

        def perform() -> None:
            try:
                answer.set_result(verb())
            except BaseException as error:
                answer.set_exception(error)

        loop, _ = self._started.result(ANSWER_SECONDS_MAX)
        loop.call_soon_threadsafe(perform)
        return answer.result(ANSWER_SECONDS_MAX)
