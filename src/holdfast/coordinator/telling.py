"""Tasks, workers and stories as plain data for people and programs.

A story is derived from the row, from former attempts, and from the events that neither can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.coordinator.reconcile import Facts
from holdfast.coordinator.state import CoordinatorState
from holdfast.model.ids import id_text
from holdfast.model.task import TERMINAL_MIN, Lease, Life, Phase, State, Task, queue_of
from holdfast.ports import Attempt, Depth, Event

_LINE_BYTES = 256
"""What the line takes that says how many are left out, from above."""


def status(task: Task, names: dict[str, str]) -> dict[str, Any]:
    """Return what `holdfast status` shows of a task; times are milliseconds since the epoch."""
    spec, life = task.spec, task.life
    failure = life.failure
    return {
        "id": id_text(spec.id),
        "state": life.state.text,
        "reason": life.reason.text if life.reason else "",
        "function": spec.function,
        "queue": spec.queue,
        "tags": list(spec.tags),
        "priority": spec.priority,
        "key": spec.key,
        "meta": dict(spec.meta),
        "wanted": life.wanted.text,
        "version": life.version,
        "run": life.fence,
        "phase": life.phase.text,
        "worker": names.get(life.worker, life.worker),
        "submitted_ms": spec.submitted_ms,
        "due_ms": life.due_ms,
        "claimed_ms": life.claimed_ms,
        "started_ms": life.started_ms,
        "ended_ms": life.ended_ms if life.state >= TERMINAL_MIN else 0,
        "charges": msgspec.to_builtins(msgspec.structs.asdict(life.used)),
        "error": "" if failure is None else failure.message,
        "error_type": failure.types[0] if failure is not None and failure.types else "",
        "traceback": "" if failure is None else failure.traceback,
        "evidence": "" if failure is None else failure.evidence,
    }


def story(
    task: Task, events: Sequence[Event], attempts: Sequence[Attempt], names: dict[str, str]
) -> list[dict[str, Any]]:
    """Return all that happened to a task, in order."""
    spec, life = task.spec, task.life
    lines = [_line(spec.submitted_ms, "submitted", 0, "", spec.function)]
    for attempt in attempts:
        worker = names.get(attempt.worker, attempt.worker)
        lines.append(_line(attempt.claimed_ms, "assigned", attempt.fence, worker, ""))
        if attempt.started_ms:
            lines.append(_line(attempt.started_ms, "started", attempt.fence, worker, ""))
    if life.fence:
        lines += _newest(life, names)
    lines += [
        _line(e.at_ms, e.kind, e.fence, names.get(e.worker, e.worker), e.detail) for e in events
    ]
    if life.state >= TERMINAL_MIN:
        word = life.state.text
        detail = life.reason.text if life.reason else ""
        worker = names.get(life.worker, life.worker)
        lines.append(_line(life.ended_ms, word, life.fence, worker, detail))
    return sorted(lines, key=lambda line: (line["at_ms"], line["run"]))


def abridged(lines: list[dict[str, Any]], bytes_max: int) -> list[dict[str, Any]]:
    """Return a story that encodes to at most so many bytes: its first line and its newest ones.

    A line between them says how many are left out, where any are.
    """
    sizes = [len(msgspec.msgpack.encode(line)) for line in lines]
    if sum(sizes) <= bytes_max:
        return lines
    room = bytes_max - sizes[0] - _LINE_BYTES
    kept = len(lines)
    while kept > 1 and sizes[kept - 1] <= room:
        kept -= 1
        room -= sizes[kept]
    text = f"{kept - 1} lines from here on: one answer does not hold the whole story"
    return [lines[0], _line(lines[1]["at_ms"], "left out", 0, "", text), *lines[kept:]]


def _newest(life: Life, names: dict[str, str]) -> list[dict[str, Any]]:
    worker = names.get(life.worker, life.worker)
    lines = [_line(life.claimed_ms, "assigned", life.fence, worker, "")]
    if life.started_ms:
        lines.append(_line(life.started_ms, "started", life.fence, worker, ""))
    return lines


def _line(at_ms: int, what: str, run: int, worker: str, detail: str) -> dict[str, Any]:
    return {"at_ms": at_ms, "what": what, "run": run, "worker": worker, "detail": detail}


def attempts(task: Task, former: Sequence[Attempt], names: dict[str, str]) -> list[dict[str, Any]]:
    """Return every try of a task, the newest last."""
    told = [
        {
            "run": attempt.fence,
            "worker": names.get(attempt.worker, attempt.worker),
            "claimed_ms": attempt.claimed_ms,
            "started_ms": attempt.started_ms,
            "ended_ms": attempt.ended_ms,
            "ended": attempt.ended,
        }
        for attempt in former
    ]
    life = task.life
    over = life.lease is not Lease.HELD
    if life.fence:
        newest = {
            "run": life.fence,
            "worker": names.get(life.worker, life.worker),
            "claimed_ms": life.claimed_ms,
            "started_ms": life.started_ms,
            "ended_ms": life.ended_ms if over else 0,
            "ended": life.lease.text if over else "",
        }
        told = [*(each for each in told if each["run"] != life.fence), newest]
    return told


def queues(state: CoordinatorState, depths: Sequence[Depth], now_ms: int) -> list[dict[str, Any]]:
    """Return what waits and runs in each queue, by name; those that are paused as well."""
    told: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        fresh = {"name": name, "paused": name in state.crew.paused, "queued": 0, "delayed": 0}
        return told.setdefault(name, {**fresh, "running": 0, "oldest_seconds": 0.0})

    for depth in depths:
        queue = of(queue_of(depth.needs))
        queue["delayed" if depth.delayed else "queued"] += depth.tasks
        if not depth.delayed:
            age = max(0, now_ms - depth.oldest_ms) / 1000
            queue["oldest_seconds"] = max(queue["oldest_seconds"], age)
    for task in (state.tasks[each] for held in state.held.values() for each in held):
        of(task.spec.queue)["running"] += 1
    for name in state.crew.paused:
        of(name)
    return [told[name] for name in sorted(told)]


def workers(state: CoordinatorState, now: float) -> list[dict[str, Any]]:
    """Return all workers that are connected or hold something, newest first."""
    told = []
    for identity, row in reversed(state.workers.items()):
        session = state.sessions.get(identity)
        held = state.held.get(identity, {})
        if session is None and not held:
            continue
        facts = msgspec.msgpack.decode(row.facts, type=Facts)
        heard = session.heard if session is not None else state.heard.get(identity, now)
        phases = [state.tasks[task].life for task in held]
        told.append(
            {
                "name": row.name,
                "identity": identity,
                "state": _presence(session is not None, session is None or session.offer.open),
                "slots": facts.slots,
                "mode": "pull" if facts.pull else "push",
                "queues": list(facts.queues),
                "tags": list(facts.tags),
                "running": sum(life.phase is Phase.STARTED for life in phases),
                "holds": sum(life.lease is Lease.HELD for life in phases),
                "incarnation": row.incarnation,
                "epoch": row.epoch,
                "heard_seconds_ago": round(now - heard, 3),
                "host": facts.host,
                "pid": facts.pid,
                "python": facts.python,
                "version": facts.version,
            }
        )
    return told


def _presence(connected: bool, open: bool) -> str:
    if not connected:
        return "disconnected"
    return "connected" if open else "draining"


def unfinished(counts: dict[str, int]) -> int:
    """Return how many tasks are not settled, from the counts by state."""
    live = (State.QUEUED, State.RUNNING, State.PAUSED)
    return sum(counts.get(state.text, 0) for state in live)
