"""What the shell completes besides words that never change: ids, workers, queues, states.

Each function is a `shell_complete` of click. They look at the coordinator that runs, if one does;
they start none, never wait for long, and where there is nothing to say they say nothing: a person
is in the middle of a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from holdfast import wiring

_LOOK_SECONDS = 0.3
_TASKS = 50
"""Tasks that are offered: more than a person reads."""
_SEEN_TASKS = 50
"""Tasks of which the queues and functions are offered."""
_STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
_LIVE = _STATES[:3]
_ID_DIGITS = 32

Items: TypeAlias = "list[CompletionItem[str]]"


def tasks(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer ids, newest first, with state and function beside them."""
    return _tasks(context, parameter, incomplete, ())


def live_tasks(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the ids of tasks that have not ended."""
    return _tasks(context, parameter, incomplete, _LIVE)


def _tasks(
    context: click.Context, parameter: click.Parameter, incomplete: str, states: Iterable[str]
) -> Items:
    wanted: dict[str, Any] = {"states": [*states], "limit": _TASKS}
    digits = incomplete.replace("-", "").lower()
    if digits:
        # The newest that may begin so, however long ago that was; above all of them where it is
        # the beginning of no id, which is refused.
        wanted["before"] = digits.ljust(_ID_DIGITS, "f")
    (found,) = _look(context, ("list", wanted)) or [()]
    given = context.params.get(str(parameter.name)) or ()
    return [
        CompletionItem(task["id"], help=f"{task['state']} {_printable(task['function'])}")
        for task in found
        if task["id"].startswith(incomplete.lower()) and task["id"] not in given
    ]


def workers(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the names of the workers that are here."""
    (found,) = _look(context, ("workers", {})) or [()]
    return _beginning(
        incomplete,
        {w["name"]: f"{w['state']}, {w['running']} of {w['slots']} running" for w in found},
    )


def queues(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the queues that workers serve and that tasks were lately submitted to."""
    told = _look(context, ("workers", {}), ("list", {"limit": _SEEN_TASKS}))
    if not told:
        return []
    served = (queue for worker in told[0] for queue in worker["queues"])
    return _beginning(incomplete, dict.fromkeys(sorted({*served, *(t["queue"] for t in told[1])})))


def functions(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the functions of the tasks that were submitted last."""
    (found,) = _look(context, ("list", {"limit": _SEEN_TASKS})) or [()]
    return _beginning(incomplete, dict.fromkeys(sorted({task["function"] for task in found})))


def states(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the states of tasks."""
    return _beginning(incomplete, dict.fromkeys(_STATES))


def _look(context: click.Context, *questions: tuple[str, dict[str, Any]]) -> list[Any] | None:
    url, state_dir = context.params.get("url"), context.params.get("state_dir")
    return wiring.glance(url, state_dir, questions, seconds=_LOOK_SECONDS)


def _beginning(incomplete: str, words: dict[str, str | None]) -> Items:
    return [
        CompletionItem(word, help=told)
        for word, told in words.items()
        if word.startswith(incomplete) and word.isprintable()
    ]


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
