"""The future of one task: a `concurrent.futures.Future` that costs little while nobody waits.

The lock and the lists of the standard future are made when somebody first waits, polls or adds a
callback; until then a future is settled with thousands of others under one lock. The outcome is
decoded where it is asked for, in the asking thread: unpickling is user code, and the thread that
keeps the session alive never runs that. It never talks to a socket: its `Owner` does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from concurrent.futures import Future as StandardFuture
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any, Protocol, TypeVar

from holdfast.client.timeouts import seconds_of
from holdfast.errors import ResultUnreadableError, TaskCancelledError, TaskFailedError
from holdfast.model.ids import TaskId, id_text
from holdfast.model.messages import Settled
from holdfast.model.outcome import Reason
from holdfast.model.task import State
from holdfast.observe import logger
from holdfast.payloads import decode_result, exception_of

T = TypeVar("T")
End = Settled | BaseException | tuple[Any]
"""How a future ends: the coordinator's word, an error of ours, or a value that is decoded."""

_LOG = logger("client")
_LAZY = frozenset({"_condition", "_waiters", "_done_callbacks"})
_ENDED = frozenset({FINISHED, CANCELLED_AND_NOTIFIED})


class FutureCancelledError(TaskCancelledError, CancelledError):
    """The task is `cancelled`; also what the standard library raises for that."""


class Owner(Protocol):
    """What a future needs of its client."""

    settling: threading.Lock
    """Held while futures are settled and while the lock of one is made."""

    @property
    def held_back(self) -> str:
        """Why submissions are not kept now, "" where nothing is known to be in their way."""
        ...

    def cancel_task(self, future: Future[Any]) -> bool: ...

    def check_may_wait(self) -> None:
        """Raise where waiting could never end: in a forked child, in the client's own thread."""
        ...


class Future(StandardFuture[T]):
    """The result of a task, there or to come. `id` names the task in every other process too."""

    _state: str = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _end: End | None = None
    _kept = False
    _twin: Future[Any] | None = None
    _call_ended: Callable[[Future[Any]], object] | None = None
    """Called once it has ended, in the loop's thread: cheaper than a callback, and only one."""

    def __init__(self, owner: Owner, task_id: TaskId) -> None:
        # Without the base's: it makes a condition, a lock and two lists, ten times our cost.
        self._owner = owner
        self._task_id = task_id

    def __getattr__(self, name: str) -> Any:
        """Make what the standard future makes at once."""
        if name not in _LAZY:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        own = self.__dict__
        with self._owner.settling:
            if "_condition" not in own:
                self._waiters = []
                self._done_callbacks: list[Any] = []
                self._condition = threading.Condition()
        return own[name]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self._state.lower()}>"

    @property
    def id(self) -> str:
        """The id of the task, 36 characters."""
        return id_text(self._task_id)

    @property
    def accepted(self) -> bool:
        """Whether the submission is known to be durable."""
        return self._kept

    def done(self) -> bool:
        """Return True once the task has ended, or its submission was refused."""
        return self._state in _ENDED

    def cancelled(self) -> bool:
        """Return True once the task has ended as cancelled."""
        return self._state == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Return False: a coordinator tells when a task ends, not when it starts.

        Ask `client.status(future.id)` for where the task is.
        """
        return False

    def cancel(self) -> bool:
        """Ask the coordinator to cancel the task, and wait for its answer.

        True: the task is cancelled, or runs and is being stopped; in the second case it may still
        end otherwise, and `cancelled()` tells once it has. False: it has ended already. Unlike the
        standard future's, it may raise: TimeoutError, ConnectionLostError. In a callback (on the
        client's own thread) and where an asyncio loop runs it does not wait, and returns True.
        """
        if self._state in _ENDED:
            return self._state == CANCELLED_AND_NOTIFIED
        return self._owner.cancel_task(self)

    def result(self, timeout: float | None = None) -> T:
        """Return what the task returned, waiting at most `timeout` seconds.

        Raises what the task raised; TaskFailedError where it failed otherwise; FutureCancelledError
        (a CancelledError); ResultUnreadableError where it succeeded and its result cannot be loaded
        here; TimeoutError; RefusedError and its like where it was not kept; ConnectionLostError
        where the client was closed first. An interrupt leaves the task running.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                # The traceback holds this frame, and the frame the error.
                del error, self
        return self._result  # type: ignore[return-value]  # None is what the task returned

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, None where it succeeded. Raises like `result`."""
        self.wait_done(timeout)
        if self._state == CANCELLED_AND_NOTIFIED:
            raise FutureCancelledError(f"task {self.id} was cancelled")
        if self._end is not None:
            self._decode(self._end)
        return self._exception

    def wait_done(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, however. Raises TimeoutError after `timeout` seconds."""
        if self._state not in _ENDED:
            self._wait(timeout)

    def wait_accepted(self, timeout: float | None = None) -> None:
        """Wait until the submission is durable, at most `timeout` seconds.

        Raises what refused it, or TimeoutError.
        """
        if not self._kept:
            self._wait(timeout, or_kept=True)
        if not self._kept and self._state in _ENDED:
            self.result()

    def _wait(self, timeout: float | None, *, or_kept: bool = False) -> None:
        self._owner.check_may_wait()
        timeout = seconds_of(timeout)
        with self._condition:
            if not self._condition.wait_for(
                lambda: self._state in _ENDED or (or_kept and self._kept), timeout
            ):
                raise TimeoutError(self._late(timeout))

    def _late(self, timeout: float | None) -> str:
        if self._kept:
            return (
                f"task {self.id} has not ended in {timeout:.3g} s; it goes on, and `why` tells more"
            )
        why = self._owner.held_back
        late = f"task {self.id} was not accepted in {timeout:.3g} s{': ' if why else ''}{why}"
        return f"{late}; this client goes on to submit it"

    def _decode(self, end: End) -> None:
        result, error = decoded(end, self)
        with self._owner.settling:
            # Two threads may have decoded: all see the first one's objects.
            if self._end is not None:
                self._result, self._exception, self._end = result, error, None

    def _settle(self, end: End) -> None:
        """End a future that somebody looks at; its callbacks run in this thread."""
        with self._condition:
            if self._state in _ENDED:
                return
            self._end = end
            self._state = state_of(end)
            for waiter in self._waiters:
                if self._state == CANCELLED_AND_NOTIFIED:
                    waiter.add_cancelled(self)
                elif _succeeded(end):
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException:
                # sys.exit() too: it would end the thread that all futures of this client live by.
                _LOG.exception("a callback of %r failed", self)

    def _tell_kept(self) -> None:
        with self._condition:
            self._condition.notify_all()


def settle_all(settling: threading.Lock, ends: Iterable[tuple[Future[Any], End]]) -> None:
    """End futures; those that nobody looks at yet under one lock, the others one by one."""
    watched: list[tuple[Future[Any], End]] = []
    arrived: list[Future[Any]] = []
    with settling:
        for future, end in ends:
            if "_condition" in future.__dict__:
                watched.append((future, end))
            elif future._state is PENDING:
                future._end = end
                future._state = state_of(end)
            if future._call_ended is not None:
                arrived.append(future)
    for future, end in watched:
        future._settle(end)
    for future in arrived:
        if future._call_ended is not None:
            future._call_ended(future)


def keep_all(settling: threading.Lock, futures: Iterable[Future[Any]]) -> None:
    """Mark futures whose submission is durable, and wake who waits for that."""
    watched: list[Future[Any]] = []
    with settling:
        for future in futures:
            future._kept = True
            if "_condition" in future.__dict__:
                watched.append(future)
    for future in watched:
        future._tell_kept()


def state_of(end: End) -> str:
    """Return the standard future's state of an end."""
    if type(end) is Settled and end.state is State.CANCELLED:
        return CANCELLED_AND_NOTIFIED
    return FINISHED


def _succeeded(end: End) -> bool:
    return isinstance(end, tuple) or (isinstance(end, Settled) and end.state is State.SUCCEEDED)


def decoded(end: End, future: Future[Any], path: str = "") -> tuple[Any, BaseException | None]:
    """Return (result, exception) of an end; `path` names the file of a large result."""
    if isinstance(end, tuple):
        return end[0], None
    if isinstance(end, BaseException):
        return None, end
    if end.state is State.SUCCEEDED:
        try:
            return decode_result(end.result, path), None
        except Exception as error:
            return None, unreadable(future, error)
    return None, _failure(end, future)


def unreadable(future: Future[Any], error: BaseException) -> ResultUnreadableError:
    """Return what is raised for a result that cannot be had here.

    Unpickling is user code and raises anything: as itself it would be taken for what the task
    raised.
    """
    told = ResultUnreadableError(
        f"task {future.id} succeeded, but its result cannot be loaded here: "
        f"{type(error).__name__}: {error}"
    )
    told.__cause__ = error
    return told


def _failure(end: Settled, future: Future[Any]) -> BaseException:
    reason = end.reason.text
    failure = end.failure
    if failure is None:
        return TaskFailedError(f"task {future.id} failed: {reason}", reason=reason)
    if failure.types:
        error = exception_of(failure)
        if isinstance(error, TaskFailedError):
            error.reason = reason
        if end.reason not in (Reason.ERROR, Reason.NONE):
            error.add_note(f"task {future.id} failed: {reason}")
        return error
    parts = [f"task {future.id} failed: {reason}", failure.message, failure.evidence]
    text = "\n".join(part for part in parts if part)
    return TaskFailedError(text, reason=reason, traceback=failure.traceback)
