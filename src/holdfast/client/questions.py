"""Questions on their way to the coordinator: one about a task of ours waits until that is accepted.

Owns what a question is about, and whether it may be said yet. Used on the loop's thread only; the
words of the API are in `asking`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard

from holdfast.client.book import Book
from holdfast.client.exchange import Answer, Exchange
from holdfast.model.ids import TaskId, id_text, parse_id, prefix_range
from holdfast.model.messages import Ask


class Questions:
    """The questions of one client. `wake` has what is said sent."""

    def __init__(self, book: Book, exchange: Exchange, wake: Callable[[], None]) -> None:
        self._book = book
        self._exchange = exchange
        self._wake = wake

    def ask(self, question: str, parameters: dict[str, Any], answer: Answer) -> None:
        """Ask a question; its reply ends `answer`.

        One about a `task` of ours, by its id, is said once that is accepted; by the beginning of
        an id, once all of ours that begin so are.
        """
        named = parameters.get("task")
        about = whole_id(named)
        if about is not None:
            self._book.when_kept(
                about, lambda: self._say(question, self._naming(about, parameters), answer)
            )
        elif _begins_an_id(named):
            say = partial(self._say, question, parameters, answer)
            self._book.when_all_kept(*prefix_range(named), say)
        else:
            self._say(question, parameters, answer)

    def _naming(self, task_id: TaskId, parameters: dict[str, Any]) -> dict[str, Any]:
        """The task that a submission of ours with a key was found to be has another id."""
        return {**parameters, "task": id_text(self._book.holder(task_id))}

    def _say(self, question: str, parameters: dict[str, Any], answer: Answer) -> None:
        self._exchange.begin(lambda ref: Ask(ref, question, parameters), answer)
        self._wake()


def whole_id(task: object) -> TaskId | None:
    """Return the id that a text is all of; None where it is the beginning of one, or nothing."""
    try:
        return parse_id(task) if isinstance(task, str) else None
    except ValueError:
        return None


def _begins_an_id(task: object) -> TypeGuard[str]:
    try:
        return isinstance(task, str) and bool(prefix_range(task))
    except ValueError:
        return False
