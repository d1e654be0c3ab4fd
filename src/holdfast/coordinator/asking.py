"""Questions of people: status, list, story, why, workers, drain, statistics, functions.

Answers are plain data (dictionaries, lists, text, numbers), the same for the command line, the SDK
and the web. A question never changes a task; `drain` only passes an order on.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from holdfast.coordinator import telling
from holdfast.coordinator.facts import Death
from holdfast.coordinator.reconcile import Facts
from holdfast.coordinator.service import Coordinator
from holdfast.core.why import why
from holdfast.core.wire import size_of
from holdfast.errors import (
    InvalidInputError,
    PrunedTaskError,
    StoreCorruptError,
    StoreDoubtError,
    StoreRefusedError,
    UnknownTaskError,
)
from holdfast.model.ids import TaskId, id_text, parse_id, prefix_range
from holdfast.model.limits import FRAME_BYTES_MAX, PAGE_ROWS_MAX
from holdfast.model.messages import Ask, DrainOrder, Reply
from holdfast.model.task import State, Task
from holdfast.ports import StoreReader, TaskFilter

Answerer = Callable[[dict[str, Any]], Awaitable[Any]]
_PAGE = 50
_TAKES = {
    "status": ("task",),
    "list": (
        "states",
        "function",
        "queue",
        "tag",
        "key",
        "meta",
        "since_ms",
        "until_ms",
        "limit",
        "before",
    ),
    "story": ("task",),
    "why": ("task",),
    "attempts": ("task",),
    "queues": (),
    "workers": (),
    "drain": ("worker",),
    "stats": (),
    "functions": (),
}
"""The parameters of each question: a misspelt one must not widen what is asked for."""
_LATELY_TASKS = 1_000
"""Of so many tasks that ended last the functions are told."""
_FUNCTIONS = 100
"""With the longest names one frame holds so many."""
_TIME_MS_MAX = 1 << 47
_FRAME_BYTES = 1024
"""What a frame takes beside its one message, from above."""


class Questions:
    """Answers from the store's reader and from who is present."""

    def __init__(self, coordinator: Coordinator, reader: StoreReader) -> None:
        self._coordinator = coordinator
        self._reader = reader
        self._answers: dict[str, Answerer] = {
            "status": self._status,
            "list": self._list,
            "story": self._story,
            "why": self._why,
            "attempts": self._attempts,
            "queues": self._queues,
            "workers": self._workers,
            "drain": self._drain,
            "stats": self._stats,
            "functions": self._functions,
        }

    async def answer(self, ask: Ask, *, whole: bool = False) -> Reply:
        """Answer one question; what is wrong with it comes back as a code and a text.

        `whole`: however large the answer is, it need not fit a frame.
        """
        answerer = self._answers.get(ask.question)
        if answerer is None:
            known = ", ".join(sorted(self._answers))
            return Reply(
                ask.ref, None, "unknown_question", f"{ask.question!r} is not one of {known}"
            )
        try:
            _check_names(ask)
            reply = Reply(ask.ref, await answerer(ask.parameters))
            return reply if whole else _fitting(ask, reply)
        except PrunedTaskError as error:
            return Reply(ask.ref, None, "pruned", str(error))
        except UnknownTaskError as error:
            return Reply(ask.ref, None, "unknown_task", str(error))
        except (InvalidInputError, ValueError, TypeError) as error:
            return Reply(ask.ref, None, "invalid_input", str(error))
        except StoreCorruptError as error:
            self._coordinator.give_up(error)
            return Reply(ask.ref, None, "store", str(error))
        except (StoreRefusedError, StoreDoubtError) as error:
            return Reply(ask.ref, None, "store", str(error))

    def last_word_is(self, report: Death, last_word: str) -> bool:
        """Whether a guard's one-use token is the one that its incarnation was given."""
        row = self._coordinator.state.workers.get(report.identity)
        if row is None:
            return False
        if report.incarnation != row.incarnation:
            # It is late for whom the newer life replaced; the turn counts it. Of a life that nobody
            # has seen yet there can be no word.
            return report.incarnation < row.incarnation
        facts = msgspec.msgpack.decode(row.facts, type=Facts)
        return hmac.compare_digest(facts.last_word.encode(), last_word.encode())

    async def find(self, text: str) -> Task:
        """Return the one task whose id begins with a prefix.

        Raises UnknownTaskError where there is none or more than one, InvalidInputError where the
        text is no prefix of an id.
        """
        try:
            low, high = prefix_range(text)
        except ValueError as error:
            raise InvalidInputError(str(error)) from None
        chosen = TaskFilter(id_low=low, id_high=high)
        found = await self._reader.page(chosen, before=b"", limit=2)
        if not found and low == high and await self._reader.is_pruned(TaskId(low)):
            raise PrunedTaskError(f"task {text} had ended, and was removed since")
        if not found:
            raise UnknownTaskError(f"no task has an id that begins with {text!r}")
        if len(found) > 1:
            ids = " and ".join(id_text(task.spec.id) for task in found)
            raise UnknownTaskError(f"{text!r} is the beginning of more than one id: {ids}")
        return found[0]

    async def _status(self, parameters: dict[str, Any]) -> Any:
        task = await self.find(_text(parameters, "task"))
        return telling.status(task, self._names([task.life.worker]))

    async def _list(self, parameters: dict[str, Any]) -> Any:
        limit = parameters.get("limit", _PAGE)
        if not isinstance(limit, int) or not 0 < limit <= PAGE_ROWS_MAX:
            raise InvalidInputError(f"limit={limit!r} is not within 1 to {PAGE_ROWS_MAX}")
        before = _text(parameters, "before", "")
        page = await self._reader.page(
            filter_of(parameters), before=parse_id(before) if before else b"", limit=limit
        )
        names = self._names(task.life.worker for task in page)
        # What a list does not show would make its pages small.
        return [telling.status(task, names) | {"traceback": "", "evidence": ""} for task in page]

    async def _story(self, parameters: dict[str, Any]) -> Any:
        task = await self.find(_text(parameters, "task"))
        events = await self._reader.events(task.spec.id)
        attempts = await self._reader.attempts(task.spec.id)
        workers = {task.life.worker, *(e.worker for e in events), *(a.worker for a in attempts)}
        lines = telling.story(task, events, attempts, self._names(workers))
        return telling.abridged(lines, FRAME_BYTES_MAX - 2 * _FRAME_BYTES)

    async def _why(self, parameters: dict[str, Any]) -> Any:
        task = await self.find(_text(parameters, "task"))
        offers = list(self._coordinator.state.crew.offers.values())
        now_ms = self._coordinator.clock.wall_ms()
        names = self._names([task.life.worker, *task.life.avoid.split()])
        absent = self._coordinator.absent
        paused = self._coordinator.state.crew.paused
        text = why(task, offers, now_ms=now_ms, names=names, paused=paused, absent=absent)
        waits = task.life.state is State.QUEUED and task.life.due_ms > now_ms
        return {
            "id": id_text(task.spec.id),
            "state": task.life.state.text,
            "why": text,
            "due_ms": task.life.due_ms if waits else 0,
        }

    async def _attempts(self, parameters: dict[str, Any]) -> Any:
        task = await self.find(_text(parameters, "task"))
        former = await self._reader.attempts(task.spec.id)
        workers = {task.life.worker, *(attempt.worker for attempt in former)}
        return telling.attempts(task, former, self._names(workers))

    async def _queues(self, parameters: dict[str, Any]) -> Any:
        state = self._coordinator.state
        depths = await self._reader.depths()
        return telling.queues(state, depths, self._coordinator.clock.wall_ms())

    async def _workers(self, parameters: dict[str, Any]) -> Any:
        return telling.workers(self._coordinator.state, self._coordinator.clock.monotonic())

    async def _drain(self, parameters: dict[str, Any]) -> Any:
        name = _text(parameters, "worker")
        state = self._coordinator.state
        for session in state.sessions.values():
            if name in (session.name, session.identity):
                # Its socket may break before it reads this: the next session says it again.
                state.drained[session.identity] = session.incarnation
                session.offer.open = False
                session.send(DrainOrder())
                return {"worker": session.name, "draining": True}
        raise UnknownTaskError(f"no worker {name!r} is connected")

    async def _stats(self, parameters: dict[str, Any]) -> Any:
        state = self._coordinator.state
        return {
            "tasks": await self._reader.counts(),
            "waiting": await self._reader.queued_by_class(),
            "workers": len(state.sessions),
            "clients": len(state.clients),
            "counters": self._coordinator.counters.snapshot(),
        }

    async def _functions(self, parameters: dict[str, Any]) -> Any:
        rows = await self._reader.functions(tasks=_LATELY_TASKS, limit=_FUNCTIONS)
        return [msgspec.structs.asdict(row) for row in rows]

    def _names(self, identities: Iterable[str]) -> dict[str, str]:
        """Return the names of those workers that are known."""
        known = self._coordinator.state.workers
        return {each: known[each].name for each in identities if each in known}


def filter_of(parameters: Mapping[str, Any]) -> TaskFilter:
    """Return which tasks a list or a verb for many is about. Raises InvalidInputError."""
    return TaskFilter(
        states=_states(parameters.get("states", ())),
        function=_text(parameters, "function", ""),
        queue=_text(parameters, "queue", ""),
        tag=_text(parameters, "tag", ""),
        key=_text(parameters, "key", ""),
        meta=_meta(parameters.get("meta", {})),
        submitted_low_ms=_time_ms(parameters, "since_ms"),
        submitted_high_ms=_time_ms(parameters, "until_ms"),
    )


def _meta(notes: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(notes, dict) or not all(
        isinstance(each, str) for pair in notes.items() for each in pair
    ):
        raise InvalidInputError(f"meta={notes!r} is not an object of texts")
    return tuple(sorted(notes.items()))


def _time_ms(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value < _TIME_MS_MAX:
        raise InvalidInputError(f"{name}={value!r} is not a time in milliseconds since 1970")
    return value


def _check_names(ask: Ask) -> None:
    takes = _TAKES[ask.question]
    unknown = ask.parameters.keys() - set(takes)
    if unknown:
        named = ", ".join(map(repr, sorted(unknown)))
        known = ", ".join(takes) or "no parameters"
        raise InvalidInputError(f"{ask.question!r} does not take {named}; it takes {known}")


def _text(parameters: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = parameters.get(name, default)
    if not isinstance(value, str):
        raise InvalidInputError(f"the parameter {name!r} is a text; got {value!r}")
    return value


def _fitting(ask: Ask, reply: Reply) -> Reply:
    """Return the reply, or what to do about it where no frame holds it."""
    size = size_of(reply)
    if size <= FRAME_BYTES_MAX - _FRAME_BYTES:
        return reply
    limited = "limit" in _TAKES[ask.question]
    mend = "ask for less, with a lower limit" if limited else "it does not come in parts"
    text = f"the answer has {size} bytes, over {FRAME_BYTES_MAX}: {mend}"
    return Reply(reply.ref, None, "too_large", text)


def _states(words: object) -> tuple[int, ...]:
    if not isinstance(words, list | tuple):
        raise InvalidInputError(f"states={words!r} is not a list of states")
    return tuple(_state(word) for word in words)


def _state(word: object) -> int:
    try:
        return State[str(word).upper()]
    except KeyError:
        known = ", ".join(state.text for state in State)
        raise InvalidInputError(f"{word!r} is not a state; states are {known}") from None
