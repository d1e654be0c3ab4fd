"""A child: one process that takes the orders of its lane one after another and runs them.

Owns what a forked process must become before user code runs in it, and the loop of a sequential
lane. An outcome is written right after its attempt ended, so that a later crash takes none with
it. It never reads a second order before the outcome of the first is written.
"""

from __future__ import annotations

import fcntl
import io
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import CoroutineType
from typing import Any, Final, NoReturn, Protocol

import msgspec

from holdfast.engines import invoke, kernel
from holdfast.engines.current import Current, TaskCancelled, enter
from holdfast.engines.freshness import Sources
from holdfast.engines.packets import PACKET_BYTES_MAX, RETIRED_EXIT, Charge, Work
from holdfast.engines.reporting import (
    flush_streams,
    leave,
    leave_cut_off,
    read_requests,
    send_report,
)

INTERRUPT_SIGNAL: Final = signal.SIGUSR1

_DESCRIPTOR_FIRST: Final = 60
"""Our two sockets stand from here on, where code that closes "all" descriptors seldom looks."""
_PAGE_BYTES: Final = resource.getpagesize()


class Sign(Protocol):
    """Where a child shows whether user code runs in it."""

    def busy(self) -> None:
        """User code runs from here on."""
        ...

    def idle(self) -> None:
        """No user code runs."""
        ...


def run(charge: Charge, descriptors: tuple[int, ...], minder_pid: int, sign: Sign) -> NoReturn:
    """Become the child of a charge, and serve its lane until the supervisor is done with it.

    The process exits here.
    """
    kernel.die_with_parent(minder_pid)
    os.setsid()
    orders, outcomes = _arrange(descriptors)
    if charge.open_files_max:
        # After all others were closed: what lies above the limit would be hard to find.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (charge.open_files_max, hard))
    kernel.name_process(f"holdfast-{charge.lane}")
    _use_streams()
    # A copy of this process that user code forks must neither take orders nor report outcomes.
    os.register_at_fork(after_in_child=lambda: _close_both(orders, outcomes))
    if charge.concurrent:
        from holdfast.engines.concurrent import serve  # asyncio, which other lanes can do without

        serve(charge, orders, outcomes, sign)
    else:
        SequentialLane(charge, orders, outcomes, sign).serve()
    leave(0)


class InterruptGate:
    """Lets an interrupt through to the attempt it is meant for, and to no other.

    A request names a token. It strikes only while that token's user code is armed, and once; the
    handler runs in the main thread, between two bytecodes of what it interrupts.
    """

    __slots__ = ("_asked", "_requests", "_running", "cancel", "struck")

    def __init__(self, requests: Callable[[], list[bytes]]) -> None:
        self._requests = requests
        self._running = b""
        self._asked = b""
        self.cancel: Callable[[], object] | None = None
        """How to stop a coroutine; None: raise in the main thread."""
        self.struck = False

    def on_signal(self, _signal: int, _frame: object) -> None:
        """Handle the interrupt signal."""
        for token in self._requests():
            self._asked = token
        self._strike()

    def arm(self, token: bytes) -> None:
        """User code of this token runs from here on. Raises TaskCancelled if already asked for."""
        self.cancel = None
        self.struck = False
        self._running = token
        self._strike()

    def disarm(self) -> None:
        """No user code runs from here on."""
        self._running = b""

    def _strike(self) -> None:
        if self._running and self._running == self._asked:
            self._running = self._asked = b""
            self.struck = True
            if self.cancel is None:
                raise TaskCancelled
            self.cancel()


class SequentialLane:
    """The loop of a lane whose attempts run one after another, in the main thread."""

    def __init__(self, charge: Charge, orders: int, outcomes: int, sign: Sign) -> None:
        self._charge = charge
        self._sign = sign
        self._orders = socket.socket(fileno=orders)
        self._outcomes = socket.socket(fileno=outcomes)
        self._gate = InterruptGate(lambda: read_requests(self._outcomes))
        self._functions = invoke.Functions()
        self._sources = Sources() if charge.follows_sources else None
        self._pid = os.getpid()
        self._called = False
        """Whether user code was called here: what it left behind may be what a later task lacks."""

    def serve(self) -> None:
        """Take orders until the supervisor closes the lane, or until it is time to retire."""
        signal.signal(INTERRUPT_SIGNAL, self._gate.on_signal)
        decoder = msgspec.msgpack.Decoder(Work)
        buffer = memoryview(bytearray(PACKET_BYTES_MAX))
        tasks = 0
        while size := self._receive(buffer):
            self._sign.busy()
            if self._sources is not None:
                self._sources.begin()
            report = self._attempt(decoder.decode(buffer[:size]))
            if os.getpid() != self._pid:
                os._exit(0)  # User code forked and both came back; the other one goes on.
            send_report(self._outcomes, report.data)
            # Not before: what is left of a task that nobody has heard of would live beside its
            # next run.
            self._sign.idle()
            flush_streams()
            if self._sources is not None:
                self._sources.note()
            tasks += 1
            if is_spent(self._charge, tasks) or (self._called and report.blames_place):
                leave(RETIRED_EXIT)

    def _receive(self, buffer: memoryview) -> int:
        try:
            if self._sources is not None:
                self._wait_for_order(self._sources)
            return self._orders.recv_into(buffer)
        except OSError:
            leave_cut_off()

    def _wait_for_order(self, sources: Sources) -> None:
        """Wait until there is an order, and leave it to a fresh child where our code is stale."""
        self._orders.recv(1, socket.MSG_PEEK)
        if sources.changed():
            leave(RETIRED_EXIT)

    def _attempt(self, work: Work) -> invoke.Report:
        """Run one order and return its report."""
        try:
            call = invoke.prepare(self._functions, work)
        except invoke.Unfit as unfit:
            return invoke.over(work, unfit.kind, unfit.failure)
        self._called = True
        enter(Current(work.task, work.fence, work.function))
        gate = self._gate
        begun_ns = time.monotonic_ns()
        try:
            try:
                gate.arm(work.token)
                value = call.function(*call.args, **call.kwargs)
                if type(value) is CoroutineType:
                    value = self._drive(value)
            finally:
                gate.disarm()
        except BaseException as error:
            run_us = (time.monotonic_ns() - begun_ns) // 1000
            return invoke.raised(work, error, run_us, interrupted=gate.struck)
        run_us = (time.monotonic_ns() - begun_ns) // 1000
        return invoke.returned(work, value, run_us, self._charge)

    def _drive(self, coroutine: CoroutineType[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, on a loop of its own, so that nothing of it stays behind."""
        import asyncio  # only for tasks that need it

        async def guarded() -> Any:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()
            assert task is not None
            self._gate.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            return await coroutine

        return asyncio.run(guarded())


def is_spent(charge: Charge, tasks: int) -> bool:
    """Whether a child should make room for a fresh one, after so many tasks."""
    if charge.tasks_max and tasks >= charge.tasks_max:
        return True
    if _is_closed(sys.stdin) or _is_closed(sys.stdout) or _is_closed(sys.stderr):
        # What one task closed, the next ones would fall over.
        return True
    if not charge.rss_bytes_max:
        return False
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_kib * 1024 > charge.rss_bytes_max and _rss_bytes() > charge.rss_bytes_max


def _is_closed(stream: object) -> bool:
    return getattr(stream, "closed", False) is True


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def _arrange(descriptors: tuple[int, ...]) -> tuple[int, int]:
    """Put the four descriptors of a charge in place, close all others, return our two."""
    above = [
        fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTOR_FIRST + 40) for each in descriptors
    ]
    orders, outcomes = _DESCRIPTOR_FIRST, _DESCRIPTOR_FIRST + 1
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(above[2], 1)
    os.dup2(above[3], 2)
    os.dup2(above[0], orders, inheritable=False)
    os.dup2(above[1], outcomes, inheritable=False)
    os.closerange(3, orders)
    os.closerange(outcomes + 1, os.sysconf("SC_OPEN_MAX"))
    return orders, outcomes


def _use_streams() -> None:
    """Pass lines on as they are printed: a crash must not lose what led to it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _close_both(orders: int, outcomes: int) -> None:
    for descriptor in (orders, outcomes):
        try:
            os.close(descriptor)
        except OSError:
            continue
