"""A deterministic event loop in virtual time, whose callbacks belong to parties that can die.

Owns time and the order of callbacks: first in, first out; when nothing is ready, time jumps to the
next timer. A *party* is one simulated process. It can be stalled (frozen like by SIGSTOP) and
killed (nothing of it runs any more). There are no threads and no sockets here, and real time is
read for one purpose only: to give up on a run that takes too long.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import time
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS_PER_INSTANT_MAX = 200_000
"""Callbacks within one virtual instant; more means that the product spins."""
LOOKS_EVERY_STEPS = 4096
BURIAL_ROUNDS_MAX = 10
TASKS_KEPT_MIN = 64


class SimCrash(BaseException):
    """Raised out of every port of a dead party: its process is gone, and nothing handles that."""


class SpinError(Exception):
    """The product does endless work within one instant of virtual time."""


class OutOfTimeError(Exception):
    """The run took more real time, or more steps, than it was given."""


class Party:
    """One simulated process, from its start to its death."""

    __slots__ = (
        "context",
        "dead",
        "deferred",
        "name",
        "prune_at",
        "role",
        "stalled",
        "stalled_until",
        "swallowed",
        "tasks",
    )

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.dead = False
        self.stalled = False
        self.stalled_until = 0.0
        self.swallowed = 0
        """Exceptions that its remains raised while they were buried."""
        self.deferred: list[Entry] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.prune_at = TASKS_KEPT_MIN
        self.context = contextvars.Context()
        self.context.run(PARTY.set, self)

    def alive(self) -> None:
        """Raise SimCrash where this party is dead; every port asks first."""
        if self.dead:
            raise SimCrash(self.name)

    def run(self, call: Callable[..., T], *args: Any) -> T:
        """Call a function as this party: what it starts belongs to it."""
        return self.context.copy().run(call, *args)


PARTY: contextvars.ContextVar[Party | None] = contextvars.ContextVar("party", default=None)
"""Whose callback runs; None for the world outside."""

Entry = tuple[asyncio.Handle, Party | None]


class SimLoop(asyncio.BaseEventLoop):
    """An event loop whose time passes only when there is nothing left to do."""

    def __init__(self, *, steps_max: int, real_seconds_max: float) -> None:
        self._runs = False
        super().__init__()
        self.world = contextvars.Context()
        """The context of what belongs to no party."""
        self.steps = 0
        self.problems: list[str] = []
        """Exceptions that nobody caught; none of them is a simulated crash."""
        self._steps_max = steps_max
        self._give_up_at = time.monotonic() + real_seconds_max
        self._now = 0.0
        self._soon: deque[Entry] = deque()
        self._later: list[tuple[float, int, asyncio.TimerHandle, Party | None]] = []
        self._timer_number = 0

    # Time and callbacks, as asyncio asks for them.

    def time(self) -> float:
        """Return virtual seconds since the beginning."""
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """See `asyncio.AbstractEventLoop`."""
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append((handle, PARTY.get() if context is None else context.get(PARTY)))
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`; timers of one instant fire as they were made."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        party = PARTY.get() if context is None else context.get(PARTY)
        self._timer_number += 1
        heapq.heappush(self._later, (when, self._timer_number, handle, party))
        return handle

    def later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts
    ) -> asyncio.TimerHandle:
        """Have the world do something in so many seconds, whoever asks and whoever dies."""
        return self.call_at(self._now + delay, callback, *args, context=self.world)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A timer was cancelled; it is skipped when it comes up, and time does not jump to it."""

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """See `asyncio.AbstractEventLoop`; the task belongs to the party that makes it."""
        task = super().create_task(coro, name=name, context=context)
        party = PARTY.get() if context is None else context.get(PARTY)
        if party is not None:
            tasks = party.tasks
            if len(tasks) >= party.prune_at:
                party.tasks = tasks = {each: None for each in tasks if not each.done()}
                party.prune_at = max(2 * len(tasks), TASKS_KEPT_MIN)
            tasks[task] = None
        return task

    def get_debug(self) -> bool:
        """See `asyncio.AbstractEventLoop`."""
        return False

    def is_running(self) -> bool:
        """See `asyncio.AbstractEventLoop`."""
        return self._runs

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note an exception that nobody caught, unless it is a simulated crash."""
        error = context.get("exception")
        if error is not None and not isinstance(error, SimCrash):
            self.problems.append(f"{context.get('message', 'unhandled')}: {error!r}")

    # Running.

    def run_until(self, done: Callable[[], bool], *, deadline: float) -> bool:
        """Run until `done`, asked at the end of each instant; False where `deadline` came first.

        Raises SpinError and OutOfTimeError.
        """
        events._set_running_loop(self)
        self._runs = True
        try:
            while True:
                self._finish_instant()
                if done():
                    return True
                if not self._jump(deadline):
                    return False
        finally:
            self._runs = False
            events._set_running_loop(None)

    def _finish_instant(self) -> None:
        ready = self._soon
        steps = 0
        while ready:
            handle, party = ready.popleft()
            if handle.cancelled():
                continue
            if party is not None:
                if party.dead:
                    continue
                if party.stalled:
                    party.deferred.append((handle, party))
                    continue
            handle._run()
            steps += 1
            if steps % LOOKS_EVERY_STEPS == 0:
                self._look(steps)
        self.steps += steps
        if self.steps > self._steps_max:
            raise OutOfTimeError(f"more than {self._steps_max} steps")

    def _look(self, steps: int) -> None:
        if steps >= STEPS_PER_INSTANT_MAX:
            raise SpinError(f"{steps} callbacks at {self._now:.6f} s, and no end")
        if time.monotonic() > self._give_up_at:
            raise OutOfTimeError(f"no end in real time at {self._now:.6f} s")

    def _jump(self, deadline: float) -> bool:
        """Let time jump to the next timer; False where there is none up to the deadline."""
        timers = self._later
        while timers and (timers[0][2].cancelled() or _is_dead(timers[0][3])):
            heapq.heappop(timers)
        if not timers or timers[0][0] > deadline:
            self._now = max(self._now, deadline)
            return False
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            _, _, handle, party = heapq.heappop(timers)
            self._soon.append((handle, party))
        if time.monotonic() > self._give_up_at:
            raise OutOfTimeError(f"no end in real time at {self._now:.6f} s")
        return True

    # Parties.

    def stall(self, party: Party, seconds: float) -> None:
        """Freeze a party for so long: its callbacks wait, the world goes on."""
        if not party.dead:
            party.stalled = True
            party.stalled_until = max(party.stalled_until, self._now + seconds)
            self.call_at(party.stalled_until, self._resume, party, context=self.world)

    def _resume(self, party: Party) -> None:
        if self._now >= party.stalled_until:
            party.stalled = False
            self._soon.extend(party.deferred)
            party.deferred.clear()

    def kill(self, party: Party) -> None:
        """Let a party be dead from this moment on; what is left of its tasks is buried next."""
        if not party.dead:
            party.dead = True
            party.deferred.clear()
            self.call_soon(self._bury, party, context=self.world)

    def _bury(self, party: Party) -> None:
        """Close what its tasks have left; their last words reach only dead ports."""
        for _ in range(BURIAL_ROUNDS_MAX):
            left = [task for task in party.tasks if not task.done()]
            party.tasks.clear()
            if not left:
                return
            for task in left:
                party.run(_close, task, party)

    def close(self) -> None:
        """Drop all that waits."""
        self._soon.clear()
        self._later.clear()
        self._closed = True


def _is_dead(party: Party | None) -> bool:
    return party is not None and party.dead


def _close(task: asyncio.Task[Any], party: Party) -> None:
    coroutine = task.get_coro()
    for _ in range(BURIAL_ROUNDS_MAX):
        try:
            if coroutine is not None:
                coroutine.close()
        except (Exception, SimCrash, asyncio.CancelledError):
            # A dead process has no way to complain.
            party.swallowed += 1
        else:
            return
