"""Which workers are forgotten: those that hold nothing, are not here, and left long ago.

A row keeps a late hello of an older life from taking the place of a newer one. Whoever comes back
after its row is gone is new: it begins with epoch 1, and what it brings is judged by tokens alone,
like all that a worker brings. So a hello that was late for weeks can open a session, and take
nothing from anybody with it; the newer life of that worker, when it says hello, ends it.

Owns how long and how many rows are kept. Never looks more often than once a minute.
"""

from __future__ import annotations

import heapq

from holdfast.coordinator.turn import Turn
from holdfast.ports import WorkerRow

KNOWN_SECONDS = 7 * 24 * 3600.0
"""How long after its last hello a worker is known that is not here."""
WORKERS_KNOWN_MAX = 10_000
"""Workers that are known beside those that are here or hold something; of more the oldest go."""
_LOOK_SECONDS = 60.0
_FORGOTTEN_MAX = 1_000
"""Rows that one turn removes, so that a turn has a bound."""


def forget_workers(turn: Turn) -> None:
    """Note which rows this turn removes, the oldest first."""
    state = turn.state
    if turn.now < state.forget_rows_at:
        return
    absent = [row for row in state.workers.values() if not _needed(turn, row.identity)]
    before_ms = turn.now_ms - int(KNOWN_SECONDS * 1000)
    old = [row for row in absent if row.said_ms < before_ms and row.identity not in state.heard]
    oldest = heapq.nsmallest(_FORGOTTEN_MAX, old, key=_said_ms)
    surplus = min(len(absent) - WORKERS_KNOWN_MAX, _FORGOTTEN_MAX)
    if surplus > len(oldest):
        oldest = heapq.nsmallest(surplus, absent, key=_said_ms)
    turn.forgotten += oldest
    if len(oldest) < _FORGOTTEN_MAX:
        state.forget_rows_at = turn.now + _LOOK_SECONDS


def _needed(turn: Turn, identity: str) -> bool:
    """Whether a worker holds something, is or comes here, or has a death that is being judged."""
    state = turn.state
    needed = (state.held, state.sessions, state.reporters, turn.workers)
    return any(identity in each for each in needed)


def _said_ms(row: WorkerRow) -> int:
    return row.said_ms
