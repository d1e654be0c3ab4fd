"""In which words a function service speaks with clients that were written for another one."""

from __future__ import annotations

import msgspec

from holdfast.errors import ConfigurationError
from holdfast.model.task import State

_CHOICES = {
    "unknown": ("404", "400"),
    "completed": ("COMPLETED", "COMPLETE"),
    "error": ("text", "object"),
    "unfinished": ("200", "404"),
}


class Dialect(msgspec.Struct, frozen=True):
    """How the function service says what its known clients differ in.

    `unknown` and `unfinished` are the statuses for an id that nobody knows, and for the result of a
    task that has not ended; `completed` is its word for a task that succeeded; `error` tells
    whether the result of a failed task is the exception's text, or the exception.
    """

    unknown: int = 404
    completed: str = "COMPLETED"
    error: str = "text"
    unfinished: int = 200

    def word(self, state: State) -> str:
        """Return the service's word for a state."""
        if state is State.SUCCEEDED:
            return self.completed
        if state in (State.FAILED, State.CANCELLED):
            return "FAILED"
        return "RUNNING" if state is State.RUNNING else "QUEUED"


def dialect_of(text: str) -> Dialect:
    """Read `unknown=400,completed=COMPLETE,error=object,unfinished=404`; "" is the default.

    Raises ConfigurationError naming what can be said.
    """
    given: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.strip().partition("=")
        if value not in _CHOICES.get(name, ()):
            known = "; ".join(f"{each}={'|'.join(words)}" for each, words in _CHOICES.items())
            raise ConfigurationError(f"--dialect {pair!r}: {known}")
        given[name] = value
    return msgspec.convert(given, Dialect, strict=False)
