"""Wishes to cancel: one that somebody waits for is said at once, the others in turn.

Owns the line of futures that are to be cancelled and that nobody waits for, be they however many:
so many are seen to at once, and each that is answered lets the next one in, until all are said,
over one session after another. Used on the loop's thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future as StandardFuture
from functools import partial
from typing import Any

from holdfast.client.book import Book
from holdfast.client.exchange import Answer, Exchange
from holdfast.client.future import Future
from holdfast.errors import UnknownTaskError
from holdfast.model.ids import TaskId
from holdfast.model.messages import Settled, SetWanted
from holdfast.model.outcome import Reason
from holdfast.model.task import State, Wanted
from holdfast.observe import logger

AT_ONCE_MAX = 256
"""More than a coordinator answers at once, so that it never waits for us, and few beside them."""
_LOG = logger("client")


class Cancelling:
    """The wishes to cancel of one client. `wake` has what is said sent."""

    def __init__(self, book: Book, exchange: Exchange, wake: Callable[[], None]) -> None:
        self._book = book
        self._exchange = exchange
        self._wake = wake
        self._line: deque[tuple[Future[Any], bool]] = deque()
        self._open = 0
        self._refused = 0
        self._refusal = ""
        self._ended = False

    @property
    def idle(self) -> bool:
        """Whether nothing stands in line or waits for its answer."""
        return not (self._line or self._open)

    # What somebody waits for.

    def cancel(self, future: Future[Any], answer: Answer) -> None:
        """Wish a task of ours cancelled, once it is accepted; `answer` gets what is said."""

        def say() -> None:
            if future.done():
                answer.set_result({"said": "ended", "state": "", "wanted": ""})
            else:
                self._wish(future._task_id, answer)

        self._book.when_kept(future._task_id, say)

    def cancel_id(self, task_id: TaskId, answer: Answer) -> None:
        """Wish a task cancelled: where it is of ours, once it is accepted."""
        self._book.when_kept(task_id, lambda: self._wish(self._book.holder(task_id), answer))

    def _wish(
        self, task_id: TaskId, answer: Answer, *, waiting: bool = False, counted: bool = True
    ) -> None:
        said: Answer = StandardFuture()
        said.add_done_callback(lambda said: self._told(task_id, said, answer))
        self._exchange.begin(
            lambda ref: SetWanted(ref, task_id, Wanted.CANCEL, waiting), said, counted=counted
        )
        self._wake()

    def _told(self, task_id: TaskId, said: Answer, answer: Answer) -> None:
        """The reply comes before the word that the task is settled, and is the same news."""
        error = said.exception()
        if error is not None:
            answer.set_exception(error)
            return
        if said.result()["state"] == State.CANCELLED.text:
            end = Settled(task_id, State.CANCELLED, Reason.NONE, None, None)
            self._book.settle([(task_id, end)])
        answer.set_result(said.result())

    # What nobody waits for.

    def cancel_in_turn(self, futures: Iterable[Future[Any]], *, begun: bool) -> None:
        """Cancel tasks of ours, without an answer; those that have begun only with `begun`."""
        self._line.extend((future, begun) for future in futures)
        self._let_in()
        self._wake()

    def _let_in(self) -> None:
        while self._line and self._open < AT_ONCE_MAX:
            future, begun = self._line.popleft()
            if future.done():
                continue
            if not future.accepted:
                # It takes no room meanwhile: those behind it may be accepted long before.
                self._book.once_kept(future, partial(self._again, future, begun))
                continue
            self._open += 1
            answer: Answer = StandardFuture()
            answer.add_done_callback(self._out)
            self._wish(future._task_id, answer, waiting=not begun, counted=False)

    def _again(self, future: Future[Any], begun: bool) -> None:
        self._line.append((future, begun))
        self._let_in()

    def _out(self, answer: Answer) -> None:
        """One is seen to: the next may come. Tells at the end how many were refused, and why."""
        self._open -= 1
        error = answer.exception()
        # A task that is not there any more does not run either.
        if error is not None and not isinstance(error, UnknownTaskError):
            self._refused += 1
            self._refusal = str(error)
        self._let_in()
        if self._refused and self.idle and not self._ended:
            _LOG.warning("%d tasks are not cancelled and go on: %s", self._refused, self._refusal)
            self._refused = 0

    def end(self) -> None:
        """Nothing can be said any more: tell how many tasks go on that were to be cancelled."""
        left = self._open + sum(not future.done() for future, _ in self._line)
        self._line.clear()
        if left and not self._ended:
            _LOG.warning("the client ended before %d tasks were cancelled; they may go on", left)
        self._ended = True
