"""The client for programs on asyncio: the session runs on the caller's own event loop.

Owns the life of that session and the words of the API, awaited. There is no thread and no lock in
its way: what is decided is decided in `session`, `book` and `intake`, as for the blocking client.
It never blocks the loop, but for the pickling that a submission costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sequence,
)
from concurrent.futures import Future as StandardFuture
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from holdfast.client.aio_future import AsyncFuture, Unwaited, as_they_end
from holdfast.client.aio_mapping import map_awaited
from holdfast.client.aio_turns import Turns
from holdfast.client.asking import AsyncAsking
from holdfast.client.calls import Call, call_of, options_of
from holdfast.client.exchange import Answer, check_question, heard
from holdfast.client.future import Future
from holdfast.client.intake import SUBMISSIONS_BYTES_MAX, SUBMISSIONS_MAX, Intake
from holdfast.client.questions import whole_id
from holdfast.client.session import Session, Terms
from holdfast.client.timeouts import ANSWER_SECONDS, CLOSE_SECONDS, seconds_of
from holdfast.errors import ConnectionLostError, InvalidInputError, RefusedError
from holdfast.model.ids import IdMint, TaskId, id_text, parse_id
from holdfast.observe import TaskSet, logger
from holdfast.outlet import fill_standard_descriptors

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_SECONDS = 0.005
_LOG = logger("client")


class AsyncClient(AsyncAsking):
    """Submits tasks and awaits them, on the event loop that it was made on, and on no other.

    The caller (`wiring`) gives the terms of the session, and `mint`, of which the client is the
    only user. `open` comes first, `aclose` last; `async with` does both.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        mint: IdMint,
        answer_seconds: float = ANSWER_SECONDS,
        submissions_max: int = SUBMISSIONS_MAX,
        submissions_bytes_max: int = SUBMISSIONS_BYTES_MAX,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer_seconds = answer_seconds
        self._closed = False
        self._tasks = TaskSet(_LOG)
        self._turns = Turns()
        self._changed = asyncio.Event()
        self._opened: Answer = StandardFuture()
        self._behind = Unwaited()
        self._intake = Intake(
            clock=terms.clock,
            mint=mint,
            wake=self._wake,
            on_own_thread=lambda: True,
            changed=self._intake_changed,
            spill_to=terms.spill_to,
            submissions_max=submissions_max,
            bytes_max=submissions_bytes_max,
        )
        self._session = Session(terms, self._intake, self._behind.settling, self._opened)

    async def open(self, connect_seconds: float) -> None:
        """Connect. Raises NoCoordinatorError where nobody answers within `connect_seconds`."""
        seconds = seconds_of(connect_seconds, "connect_seconds")
        fill_standard_descriptors(inheritable=False)
        self._tasks.start("client session", self._session.run())
        try:
            async with asyncio.timeout(seconds):
                await heard(self._opened)
        except TimeoutError:
            await self._end()
            raise self._session.not_reached(seconds) from None
        except BaseException:
            await self._end()
            raise

    # Submission.

    @overload
    async def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncFuture[T]: ...

    @overload
    async def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncFuture[T]: ...

    @overload
    async def submit(
        self, fn: Callable[..., Any], /, *args: Any, key: str, **rest: Any
    ) -> AsyncFuture[Any]: ...

    @overload
    async def submit(
        self, fn: Callable[..., Any], /, *args: Any, queue: str, **rest: Any
    ) -> AsyncFuture[Any]: ...

    @overload
    async def submit(
        self, fn: Callable[..., Any], /, *args: Any, tags: Iterable[str], **rest: Any
    ) -> AsyncFuture[Any]: ...

    @overload
    async def submit(
        self, fn: Callable[..., Any], /, *args: Any, priority: int, **rest: Any
    ) -> AsyncFuture[Any]: ...

    @overload
    async def submit(
        self, fn: Callable[..., Any], /, *args: Any, delay: float, **rest: Any
    ) -> AsyncFuture[Any]: ...

    async def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> AsyncFuture[Any]:
        """Submit a call and return its future; it waits only at the bound on submissions.

        `queue`, `tags`, `priority`, `key` and `delay` (seconds) are Holdfast's, all other keywords
        the function's; `task.options(…)` says the same and keeps the types. Function and arguments
        are pickled once there is room. Who is cancelled here has submitted nothing. Raises
        InvalidInputError where a keyword could be meant for both, or an option cannot be;
        NotSerializableError naming what does not serialise; RefusedError on a closed client.
        """
        options, own = options_of(fn, kwargs)
        await self._room()
        return self._put(call_of(fn, options), args, own)

    @overload
    async def run(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def run(self, fn: Callable[..., Any], /, *args: Any, key: str, **rest: Any) -> Any: ...

    @overload
    async def run(self, fn: Callable[..., Any], /, *args: Any, queue: str, **rest: Any) -> Any: ...

    @overload
    async def run(
        self, fn: Callable[..., Any], /, *args: Any, tags: Iterable[str], **rest: Any
    ) -> Any: ...

    @overload
    async def run(
        self, fn: Callable[..., Any], /, *args: Any, priority: int, **rest: Any
    ) -> Any: ...

    @overload
    async def run(
        self, fn: Callable[..., Any], /, *args: Any, delay: float, **rest: Any
    ) -> Any: ...

    async def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Submit a call and return its result: `await (await submit(…))`, as a TaskGroup takes it.

        Cancelling it cancels the task. Raises like `submit` and like awaiting an `AsyncFuture`.
        """
        return await (await self.submit(fn, *args, **kwargs))

    @overload
    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, T]],
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        ordered: bool = ...,
        buffersize: int | None = ...,
        timeout: float | None = ...,
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        ordered: bool = ...,
        buffersize: int | None = ...,
        timeout: float | None = ...,
    ) -> AsyncGenerator[T, None]: ...

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        ordered: bool = True,
        buffersize: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Return the results of one task for each row of `iterables`, in order or as they come.

        Iterables may be asynchronous, and endless: at most `buffersize` tasks (2,000 where it is
        None) are ahead of the reader. Nothing is submitted before the first result is awaited.
        `timeout` is in seconds from this call. Leaving the loop early, or an error in it, cancels
        the tasks that wait in the queue; who is cancelled while it waits for a result cancels also
        those that run. Raises like `submit` and like awaiting an `AsyncFuture`.
        """
        self._check()
        call = call_of(fn, options_of(fn, {})[0])

        async def start(row: tuple[Any, ...]) -> AsyncFuture[Any]:
            await self._room()
            return self._put(call, row, {})

        return map_awaited(
            start,
            self._drop,
            lambda feeding: self._tasks.watched("client reads rows", feeding),
            iterables,
            ordered=ordered,
            buffersize=buffersize,
            deadline=self._deadline(timeout),
        )

    def _put(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncFuture[Any]:
        future = self._intake.submit(self._behind, call, args, kwargs)
        return AsyncFuture(self, future, submitted=True)

    async def _room(self) -> None:
        """Wait while a bound is reached. Nothing may be awaited between this and `_put`."""
        self._check()
        await self._turns.take(self._intake)

    def _intake_changed(self) -> None:
        self._changed.set()
        self._turns.look(self._intake)

    # Futures.

    async def future(self, task: str) -> AsyncFuture[Any]:
        """Return a future for a task by its id, or by any unique beginning of it.

        Who is cancelled while awaiting it leaves the task alone. Raises UnknownTaskError where a
        beginning fits none or several; where a whole id fits none, awaiting the future raises it.
        Raises InvalidInputError for what is no id.
        """
        future: Future[Any] = Future(self._behind, await self._find(task))
        self._check()
        self._session.watch(future)
        return AsyncFuture(self, future, submitted=False)

    async def _find(self, task: str) -> TaskId:
        self._check()
        if not isinstance(task, str):
            raise InvalidInputError(f"{task!r} is not the id of a task: give a text, future.id")
        found = whole_id(task)
        return parse_id((await self.ask("status", task=task))["id"]) if found is None else found

    def as_completed(
        self, futures: Iterable[AsyncFuture[T]], timeout: float | None = None
    ) -> AsyncGenerator[AsyncFuture[T], None]:
        """Yield each of the futures once it is done; `timeout` is in seconds from this call.

        The tasks are the caller's: they go on where the loop ends early, or is cancelled. Raises
        TimeoutError.
        """
        self._check()
        return as_they_end([*futures], self._deadline(timeout))

    # Questions.

    async def ask(self, question: str, /, **parameters: Any) -> Any:
        """See `Asking.ask`. A question about a `task` submitted here waits until it is accepted.

        So does one by the beginning of an id, until all that it may mean are.
        """
        self._check()
        check_question(question, parameters)
        answer: Answer = StandardFuture()
        self._session.questions.ask(question, parameters, answer)
        return await self._answered(answer, question)

    async def cancel(self, task: str) -> dict[str, Any]:
        """Cancel a task by id or unique beginning of one, and return what became of that.

        `said` is `done` or `asked` (it runs, and is being stopped), or tells that it had ended;
        `state` is the task's. Raises UnknownTaskError.
        """
        task_id = await self._find(task)
        self._check()
        answer: Answer = StandardFuture()
        self._session.cancelling.cancel_id(task_id, answer)
        said = await self._answered(answer, "cancel")
        return {"id": id_text(self._session.holder(task_id)), **said}

    async def _answered(self, answer: Answer, what: str) -> Any:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await heard(answer)
        except TimeoutError:
            raise TimeoutError(f"no answer to {what!r} in {self._answer_seconds:g} s") from None

    @property
    def held_back(self) -> str:
        """Why submissions are not kept now, "" where nothing is known to be in their way."""
        return self._session.held_back

    # For futures.

    def check_loop(self) -> None:
        """Raise on another event loop than that of this client."""
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidInputError(
                "this client is of another event loop: connect_async() in each, or once in the "
                "main one"
            )

    def give_up(self, future: Future[Any]) -> None:
        """Have a task cancelled, without waiting for it; `aclose` waits until it was said."""
        if not self._session.over:
            self._session.cancelling.cancel_in_turn((future,), begun=True)

    async def cancel_task(self, future: Future[Any]) -> bool:
        """Wish a task cancelled; see `AsyncFuture.cancel`."""
        self._check()
        answer: Answer = StandardFuture()
        self._session.cancelling.cancel(future, answer)
        said = await self._answered(answer, "cancel")
        if future.done():
            return future.cancelled()
        return bool(said["wanted"] == "cancel")

    async def wait_kept(self, future: Future[Any]) -> None:
        """Wait until a submission is durable, or its future is done."""
        self.check_loop()
        kept: Answer = StandardFuture()
        self._session.once_kept(future, lambda: kept.set_result(None))
        await heard(kept)

    def _drop(self, futures: Sequence[AsyncFuture[Any]], begun: bool) -> None:
        if futures and not self._session.over:
            self._session.cancelling.cancel_in_turn(
                [future._future for future in futures], begun=begun
            )

    # The end.

    async def aclose(self, timeout: float = CLOSE_SECONDS) -> None:
        """Send what is on its way, for at most `timeout` seconds, and disconnect; tasks go on.

        Futures that are not done end with ConnectionLostError. Raises ConnectionLostError where
        submissions were not accepted in time: whether they were kept is not known. Closing twice
        is fine.
        """
        self.check_loop()
        seconds = seconds_of(timeout)
        if self._closed:
            return
        self._closed = True
        self._intake.shut(RefusedError("the client is closed; make another", code="closed"))
        lost = 0
        try:
            async with asyncio.timeout(seconds):
                await self._until_said()
        except TimeoutError:
            # Counted before the session ends, which ends the submissions too.
            lost = self._intake.submissions
        except asyncio.CancelledError:
            if self._intake.submissions:
                _LOG.warning(
                    "%d submissions were not accepted before the client was cancelled, and whether "
                    "they were kept is not known",
                    self._intake.submissions,
                )
            raise
        finally:
            await self._end()
        if lost:
            raise ConnectionLostError(
                f"{lost} submissions were not accepted within {seconds:g} s of closing"
            )

    async def _until_said(self) -> None:
        """Wait until all is accepted, and then until wishes are answered: none is forgotten."""
        while self._intake.submissions and not self._session.over:
            self._changed.clear()
            await self._changed.wait()
        # What is idle shows in three rooms, and is asked for at the end only.
        while not (self._session.idle or self._session.over):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)

    async def _end(self) -> None:
        self._closed = True
        self._session.leave()
        await self._tasks.cancel()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        except ConnectionLostError as lost:
            if error is None:
                raise
            # The caller's own error matters more; ours must not take its place.
            _LOG.warning("%s", lost)

    def _wake(self) -> None:
        self._session.wake()

    def _deadline(self, timeout: float | None) -> float | None:
        seconds = seconds_of(timeout)
        return None if seconds is None else self._loop.time() + seconds

    def _check(self) -> None:
        self.check_loop()
        if self._closed or self._session.over:
            raise RefusedError("the client is closed; make another", code="closed")


class Connecting:
    """A connection to come: `async with` it, or `await` it and `aclose` the client at the end."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, AsyncClient]]) -> None:
        self._connect = connect
        self._client: AsyncClient | None = None

    def __await__(self) -> Generator[Any, None, AsyncClient]:
        return self._connect().__await__()

    async def __aenter__(self) -> AsyncClient:
        self._client = await self._connect()
        return self._client

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._client is not None, "left before it was entered"
        await self._client.__aexit__(kind, error, traceback)
