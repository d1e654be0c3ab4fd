"""What user code sees of the task it runs in. Cheap to import; it knows no engine."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass, field

from holdfast.errors import InvalidInputError
from holdfast.model.ids import TaskId, id_text


class TaskCancelled(BaseException):
    """Raised inside a task that is to stop. No `Exception`, so that `except Exception` lets it by.

    A task may catch it to clean up; it is killed when it has not ended after the grace.
    """


@dataclass(frozen=True, slots=True)
class Current:
    """The attempt that runs here.

    `id` is the task's, as `future.id` has it. `fence` counts the attempts of the task from 1: hand
    it to systems outside, so that they can refuse an attempt that was superseded.
    """

    task: TaskId = field(repr=False)
    fence: int
    function: str

    @property
    def id(self) -> str:
        """The task's id, 36 characters."""
        return id_text(self.task)

    def __repr__(self) -> str:
        return f"Current(id={self.id!r}, fence={self.fence}, function={self.function!r})"


_CURRENT: ContextVar[Current] = ContextVar("holdfast_current")


def current() -> Current:
    """Return the attempt that runs here. Raises InvalidInputError outside of a task."""
    try:
        return _CURRENT.get()
    except LookupError:
        raise InvalidInputError("current() was called outside of a running task") from None


def enter(attempt: Current) -> Token[Current]:
    """Make an attempt the current one of this context. For engines."""
    return _CURRENT.set(attempt)


def leave(token: Token[Current]) -> None:
    """Undo `enter`. For engines."""
    _CURRENT.reset(token)
