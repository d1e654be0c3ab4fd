"""Queues that are paused: of their tasks nothing is claimed until they go on.

What a worker holds already is not taken from it: little of a queue is assigned ahead.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.coordinator.sessions import Session
from holdfast.coordinator.turn import Turn
from holdfast.core import admission
from holdfast.model.messages import Reply, SetQueue
from holdfast.ports import QueueRow


def set_queue(turn: Turn, session: Session, message: SetQueue) -> None:
    """Pause a queue, or let it go on; said twice, it is done once."""
    if text := admission.queue_fault(message.queue):
        turn.say(session, Reply(message.ref, None, "invalid_input", text))
        return
    row = QueueRow(message.queue, message.paused)
    if message.paused != is_paused(turn, message.queue):
        turn.queues[message.queue] = row
    turn.say(session, Reply(message.ref, {"queue": row.name, "paused": row.paused}))


def is_paused(turn: Turn, queue: str) -> bool:
    """Whether a queue is paused, as this turn sees it."""
    row = turn.queues.get(queue)
    return row.paused if row is not None else queue in turn.state.crew.paused


def paused_after(before: frozenset[str], rows: Iterable[QueueRow]) -> frozenset[str]:
    """Return the queues that are paused once these rows are written."""
    rows = list(rows)
    going_on = {row.name for row in rows if not row.paused}
    return before - going_on | {row.name for row in rows if row.paused}
