"""The client as a person holds it: blocking, safe for many threads, over one background loop.

Owns the life of the loop's thread and the words of the API. Each method is a thin wrapper: what is
decided is decided in `session` and `book`, on the loop.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future as StandardFuture
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from holdfast.client.asking import Asking
from holdfast.client.calls import Call, call_of, options_of
from holdfast.client.exchange import Answer, check_question
from holdfast.client.executor import TaskExecutor
from holdfast.client.future import Future
from holdfast.client.intake import SUBMISSIONS_BYTES_MAX, SUBMISSIONS_MAX, Intake
from holdfast.client.mapping import Arrivals, map_results
from holdfast.client.options import DEFAULTS, Options, options_with
from holdfast.client.questions import whole_id
from holdfast.client.script_end import before_threads_end, end_interrupted
from holdfast.client.session import Session, Terms
from holdfast.client.thread import LoopFactory, LoopThread
from holdfast.client.timeouts import ANSWER_SECONDS, CLOSE_SECONDS, CONNECT_SECONDS, seconds_of
from holdfast.errors import (
    ConnectionLostError,
    DefiniteError,
    InvalidInputError,
    RefusedError,
)
from holdfast.model.ids import IdMint, TaskId, id_text, parse_id
from holdfast.observe import logger

P = ParamSpec("P")
T = TypeVar("T")

_THREAD_END_SECONDS = 5.0
_LOG = logger("client")


class Client(Asking):
    """Submits tasks and waits for them. A context manager; every method is for any thread.

    The caller (`wiring`) gives the terms of the session, and `mint`, of which the client is the
    only user. A client is of one process: after a fork the child makes its own.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        mint: IdMint,
        loop_factory: LoopFactory = asyncio.new_event_loop,
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        submissions_max: int = SUBMISSIONS_MAX,
        submissions_bytes_max: int = SUBMISSIONS_BYTES_MAX,
    ) -> None:
        """Connect. Raises NoCoordinatorError where nobody answers within `connect_seconds`."""
        self.settling = threading.Lock()
        self._pid = os.getpid()
        self._answer_seconds = answer_seconds
        self._closing = threading.Lock()
        self._closed = False
        self._lost = 0
        self._exit_seconds = CLOSE_SECONDS
        self._opened: Answer = StandardFuture()
        self._terms = terms
        self._thread = LoopThread(
            self._converse, name=f"holdfast-{terms.name}", loop_factory=loop_factory
        )
        self._intake = Intake(
            clock=terms.clock,
            mint=mint,
            wake=self._wake,
            on_own_thread=lambda: self._thread.is_current,
            spill_to=terms.spill_to,
            submissions_max=submissions_max,
            bytes_max=submissions_bytes_max,
        )
        self._thread.start()
        self._await_welcome(connect_seconds)
        # Submissions on their way are still sent when a script ends without a `close`.
        before_threads_end(self)
        atexit.register(self._close_at_exit)

    async def _converse(self) -> None:
        self._session = Session(self._terms, self._intake, self.settling, self._opened)
        await self._session.run()

    def _await_welcome(self, seconds: float) -> None:
        try:
            self._opened.result(seconds_of(seconds, "connect_seconds"))
        except TimeoutError:
            self._thread.stop(_THREAD_END_SECONDS)
            raise self._session.not_reached(seconds) from None
        except BaseException:
            self._thread.stop(_THREAD_END_SECONDS)
            raise

    # Submission.

    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    @overload
    def submit(
        self, fn: Callable[..., Any], /, *args: Any, key: str, **rest: Any
    ) -> Future[Any]: ...

    @overload
    def submit(
        self, fn: Callable[..., Any], /, *args: Any, queue: str, **rest: Any
    ) -> Future[Any]: ...

    @overload
    def submit(
        self, fn: Callable[..., Any], /, *args: Any, tags: Iterable[str], **rest: Any
    ) -> Future[Any]: ...

    @overload
    def submit(
        self, fn: Callable[..., Any], /, *args: Any, priority: int, **rest: Any
    ) -> Future[Any]: ...

    @overload
    def submit(
        self, fn: Callable[..., Any], /, *args: Any, delay: float, **rest: Any
    ) -> Future[Any]: ...

    @overload
    def submit(
        self, fn: Callable[..., Any], /, *args: Any, meta: Mapping[str, str], **rest: Any
    ) -> Future[Any]: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call and return its future at once; it waits only at the bound on submissions.

        `queue`, `tags`, `priority`, `key`, `delay` (seconds) and `meta` are Holdfast's, all other
        keywords the function's; `task.options(…)` says the same and keeps the types. Raises
        InvalidInputError where a keyword could be meant for both, or an option cannot be;
        NotSerializableError naming what does not serialise; RefusedError on a closed client.
        """
        options, own = options_of(fn, kwargs)
        return self.start(call_of(fn, options), args, own)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        buffersize: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[T]:
        """Return the results of one task for each row of `iterables`, in order or as they come.

        At most `buffersize` tasks (2,000 where it is None) are ahead of the reader, so that the
        iterables may be endless; that many are submitted at once. `timeout` is in seconds from
        this call. Closing the iterator early, or an error in it, cancels the tasks that wait in
        the queue; one that is starting in that moment may be stopped. Raises like `submit` and
        `Future.result`.
        """
        call = self.prepare(fn, None)
        return map_results(
            lambda row, arrivals: self.start(call, row, {}, arrivals),
            self.cancel_waiting,
            zip(*iterables, strict=False),
            ordered=ordered,
            buffersize=buffersize,
            timeout=timeout,
        )

    def executor(self, options: Options | None = None) -> TaskExecutor:
        """Return a `concurrent.futures.Executor`; its calls have these options.

        Raises InvalidInputError for an option that cannot be.
        """
        if options is not None:
            options = options_with(DEFAULTS, options._asdict())
        return TaskExecutor(self, options)

    def prepare(self, function: Callable[..., Any], options: Options | None) -> Call:
        """Make a function ready to be submitted many times. Raises NotSerializableError."""
        chosen = options_of(function, {})[0] if options is None else options
        return call_of(function, chosen)

    def start(
        self,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arrivals: Arrivals | None = None,
    ) -> Future[Any]:
        """Submit a prepared call; `arrivals` gets the future once it is done."""
        if os.getpid() != self._pid:
            self._check_process()
        return self._intake.submit(self, call, args, kwargs, arrivals)

    # Futures.

    def future(self, task: str) -> Future[Any]:
        """Return a future for a task by its id, or by any unique beginning of it.

        Raises UnknownTaskError where a beginning fits none or several; where a whole id fits none,
        the future's `result()` raises it. Raises InvalidInputError for what is no id.
        """
        future: Future[Any] = Future(self, self._find(task))
        self._call(lambda: self._session.watch(future))
        return future

    def _find(self, task: str) -> TaskId:
        self._check_process()
        if not isinstance(task, str):
            raise InvalidInputError(f"{task!r} is not the id of a task: give a text, future.id")
        found = whole_id(task)
        return parse_id(self.ask("status", task=task)["id"]) if found is None else found

    def as_completed(
        self, futures: Iterable[Future[T]], timeout: float | None = None
    ) -> Iterator[concurrent.futures.Future[T]]:
        """Yield futures as they are done; like `concurrent.futures.as_completed`."""
        return concurrent.futures.as_completed(futures, seconds_of(timeout))

    # Questions.

    def ask(self, question: str, /, **parameters: Any) -> Any:
        """See `Asking.ask`. A question about a `task` submitted here waits until it is accepted.

        So does one by the beginning of an id, until all that it may mean are.
        """
        self._check_process()
        check_question(question, parameters)
        answer: Answer = StandardFuture()
        self._call(lambda: self._session.questions.ask(question, parameters, answer))
        return self._answered(answer, question)

    def cancel(self, task: str) -> dict[str, Any]:
        """Cancel a task by id or unique beginning of one, and return what became of that.

        `said` is `done` or `asked` (it runs, and is being stopped), or tells that it had ended;
        `state` is the task's. Raises UnknownTaskError.
        """
        task_id = self._find(task)
        answer: Answer = StandardFuture()
        self._call(lambda: self._session.cancelling.cancel_id(task_id, answer))
        said = self._answered(answer, "cancel")
        return {"id": id_text(self._session.holder(task_id)), **said}

    # For futures and executors.

    def cancel_task(self, future: Future[Any]) -> bool:
        """Wish a task cancelled; see `Future.cancel`."""
        self._check_process()
        # asyncio cancels what it has wrapped on its loop's thread, where waiting stops all else.
        if self._thread.is_current or asyncio._get_running_loop() is not None:
            self._call(lambda: self._session.cancelling.cancel_in_turn((future,), begun=True))
            return True
        answer: Answer = StandardFuture()
        self._call(lambda: self._session.cancelling.cancel(future, answer))
        said = self._answered(answer, "cancel")
        if future.done():
            return future.cancelled()
        return bool(said["wanted"] == "cancel")

    def cancel_waiting(self, futures: Iterable[Future[Any]]) -> None:
        """Cancel those of the tasks that wait in the queue, without waiting for it."""
        waiting = [future for future in futures if not future.done()]
        if waiting and not self._closed:
            self._thread.call(lambda: self._session.cancelling.cancel_in_turn(waiting, begun=False))

    @property
    def held_back(self) -> str:
        """Why submissions are not kept now, "" where nothing is known to be in their way."""
        return self._session.held_back

    def check_may_wait(self) -> None:
        """Raise where waiting could never end."""
        self._check_process()
        if self._thread.is_current:
            raise InvalidInputError(
                "a done callback runs on the client's own thread and must not wait for a task: "
                "hand the waiting to another thread"
            )

    # The end.

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Send what is on its way, for at most `timeout` seconds, and disconnect; tasks go on.

        Futures that are not done end with ConnectionLostError. Raises ConnectionLostError where
        submissions were not accepted in time: whether they were kept is not known. Closing twice
        is fine.
        """
        if os.getpid() != self._pid:
            return
        seconds = seconds_of(timeout)
        with self._closing:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self._close_at_exit)
        self._intake.shut(RefusedError("the client is closed; make another", code="closed"))
        try:
            if not self._thread.is_current:
                deadline = time.monotonic() + seconds
                if self._intake.wait_empty(seconds):
                    self._wait_idle(deadline - time.monotonic())
        finally:
            # Counted before the loop ends, which ends the submissions too.
            self._lost = lost = self._intake.submissions
            self._thread.call(lambda: self._session.leave())
            self._thread.stop(_THREAD_END_SECONDS)
        if lost and not self._thread.is_current:
            # At the end of a script it was waited for before.
            within = f"within {seconds + CLOSE_SECONDS - self._exit_seconds:g} s of closing"
            raise ConnectionLostError(f"{lost} submissions were not accepted {within}")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except ConnectionLostError as lost:
            if error is None:
                raise
            # The caller's own error matters more; ours must not take its place.
            _LOG.warning("%s", lost)

    def send_before_exit(self) -> None:
        """Wait until what was submitted is accepted, at most as long as `close` does."""
        if os.getpid() != self._pid or self._closed:
            return
        try:
            if not self._intake.wait_empty(CLOSE_SECONDS):
                self._exit_seconds = 0.0
        except KeyboardInterrupt:
            end_interrupted(self._intake.submissions)

    def _close_at_exit(self) -> None:
        try:
            self.close(self._exit_seconds)
        except ConnectionLostError as error:
            _LOG.error("%s", error)
        except KeyboardInterrupt:
            end_interrupted(self._lost or self._intake.submissions)

    def _wait_idle(self, seconds: float) -> None:
        """Wait until wishes are answered: a cancel that was asked is not forgotten by closing."""
        idle = threading.Event()

        def look() -> None:
            if self._session.idle or self._session.over:
                idle.set()
            else:
                asyncio.get_running_loop().call_later(0.005, look)

        # A loop that is ending takes the call, and never makes it.
        if not self._session.over and self._thread.call(look):
            idle.wait(max(0.0, seconds))

    def _wake(self) -> None:
        self._thread.call(self._session_wake)

    def _session_wake(self) -> None:
        self._session.wake()

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        if self._closed or not self._thread.call(function, *args):
            raise RefusedError("the client is closed; make another", code="closed")

    def _answered(self, answer: Answer, what: str) -> Any:
        self.check_may_wait()
        try:
            return answer.result(self._answer_seconds)
        except TimeoutError:
            raise TimeoutError(f"no answer to {what!r} in {self._answer_seconds:g} s") from None

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise DefiniteError(
                f"this client belongs to process {self._pid}, and this is a fork of it: connect() "
                f"anew in the child"
            )
