"""The loop of a concurrent lane: many `async def` attempts in one child.

It reads no further order while `RUNNING_MAX` run, so that what waits can be taken back. The loop
belongs to all of them: where one of them ends it, or cancels the others, the child dies of that and
reports none of them, so that they are suspects and not failures.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from inspect import isawaitable
from typing import Any, Final, NoReturn

import msgspec

from holdfast.engines import invoke
from holdfast.engines.child import Sign, is_spent
from holdfast.engines.current import Current, TaskCancelled, enter
from holdfast.engines.freshness import Sources
from holdfast.engines.packets import PACKET_BYTES_MAX, RETIRED_EXIT, Charge, Work
from holdfast.engines.reporting import (
    LOOP_ENDED_EXIT,
    flush_streams,
    leave,
    read_requests,
    send_report,
)
from holdfast.observe import TaskSet, logger
from holdfast.payloads.describing import line_of

RUNNING_MAX: Final = 64


def serve(charge: Charge, orders: int, outcomes: int, sign: Sign) -> None:
    """Take orders until the supervisor closes the lane."""
    with asyncio.Runner() as runner:
        try:
            runner.run(ConcurrentLane(charge, orders, outcomes, sign).serve())
        except BaseException as error:
            # Before the runner cancels what is left, which would be reported then.
            _abandon(error)


def _abandon(error: BaseException) -> NoReturn:
    """Leave, because the event loop is not ours any more."""
    told = f"a task ended the event loop that others ran in: {line_of(error)}\n"
    with suppress(OSError):
        os.write(2, told.encode(errors="backslashreplace"))
    leave(LOOP_ENDED_EXIT)


class ConcurrentLane:
    """The attempts that run in this child, by token."""

    def __init__(self, charge: Charge, orders: int, outcomes: int, sign: Sign) -> None:
        self._charge = charge
        self._sign = sign
        self._orders = socket.socket(fileno=orders)
        self._outcomes = socket.socket(fileno=outcomes)
        self._functions = invoke.Functions()
        self._sources = Sources() if charge.follows_sources else None
        self._decoder = msgspec.msgpack.Decoder(Work)
        self._buffer = memoryview(bytearray(PACKET_BYTES_MAX))
        self._tasks = TaskSet(logger("engines.concurrent"))
        self._running: dict[bytes, asyncio.Task[Any] | None] = {}
        """What was taken up; None before its first step, when a cancellation would go unheard."""
        self._interrupted: set[bytes] = set()
        self._ended = 0
        self._called = False
        """Whether user code was called here."""
        self._blamed = False
        """Whether a task lacked something here after that: a fresh child may have it."""
        self._closed = asyncio.Event()
        self._reading = False
        self._serving: asyncio.Task[Any] | None = None

    async def serve(self) -> None:
        """Run attempts until the lane is closed."""
        loop = asyncio.get_running_loop()
        self._serving = asyncio.current_task()
        loop.add_reader(self._outcomes, self._interrupt)
        self._read_more()
        await self._closed.wait()
        loop.remove_reader(self._outcomes)
        await self._tasks.cancel()

    def _read_more(self) -> None:
        wanted = len(self._running) < RUNNING_MAX and not self._closed.is_set()
        if wanted is self._reading:
            return
        self._reading = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_reader(self._orders, self._take_up)
        else:
            loop.remove_reader(self._orders)

    def _take_up(self) -> None:
        if self._sources is not None and not self._running and self._sources.changed():
            leave(RETIRED_EXIT)
        try:
            # The descriptor stays in blocking mode: the supervisor's end shares its flags.
            size = self._orders.recv_into(self._buffer, flags=socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return  # Taken back in the same moment.
        if not size:
            self._closed.set()
        else:
            work = self._decoder.decode(self._buffer[:size])
            if not self._running:
                self._sign.busy()
                if self._sources is not None:
                    self._sources.begin()
            self._running[work.token] = None
            self._tasks.start(work.function, self._attempt(work))
        self._read_more()

    @property
    def _is_cancelled(self) -> bool:
        """Whether user code has cancelled all that it found in the loop."""
        return self._serving is not None and self._serving.cancelling() > 0

    def _interrupt(self) -> None:
        for token in read_requests(self._outcomes):
            if token in self._running:
                self._interrupted.add(token)
                task = self._running[token]
                if task is not None:
                    task.cancel()

    async def _attempt(self, work: Work) -> None:
        """Run one order and write its report. Nothing that user code raises leaves this."""
        self._running[work.token] = asyncio.current_task()
        try:
            report = await self._report(work)
        finally:
            del self._running[work.token]
            self._interrupted.discard(work.token)
        send_report(self._outcomes, report.data)
        self._blamed |= self._called and report.blames_place
        if not self._running:
            self._sign.idle()
        flush_streams()
        if self._sources is not None:
            self._sources.note()
        self._ended += 1
        if not self._running and (self._blamed or is_spent(self._charge, self._ended)):
            # Not before: who comes next would wait for the longest that still runs.
            leave(RETIRED_EXIT)
        self._read_more()

    async def _report(self, work: Work) -> invoke.Report:
        try:
            call = invoke.prepare(self._functions, work)
        except invoke.Unfit as unfit:
            return invoke.over(work, unfit.kind, unfit.failure)
        if work.token in self._interrupted:
            return invoke.raised(work, TaskCancelled(), 0, interrupted=True)
        self._called = True
        enter(Current(work.task, work.fence, work.function))
        begun_ns = time.monotonic_ns()
        try:
            value = call.function(*call.args, **call.kwargs)
            if isawaitable(value):
                value = await value
        except BaseException as error:
            if issubclass(type(error), asyncio.CancelledError) and self._is_cancelled:
                _abandon(error)
            run_us = (time.monotonic_ns() - begun_ns) // 1000
            interrupted = work.token in self._interrupted
            return invoke.raised(work, error, run_us, interrupted=interrupted)
        run_us = (time.monotonic_ns() - begun_ns) // 1000
        return invoke.returned(work, value, run_us, self._charge)
