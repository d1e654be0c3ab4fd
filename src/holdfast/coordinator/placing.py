"""Claims: the tasks that stand first in line go to the workers that have room, within the turn.

The least-loaded worker is served first, and gets what stands first in line over all the classes
that it serves. A task that came in with this very turn is claimed in it, so that it costs one row.
"""

from __future__ import annotations

import heapq

from holdfast.coordinator.sessions import WorkerSession
from holdfast.coordinator.turn import Turn
from holdfast.core import lease
from holdfast.core.dispatch import Line, Offer
from holdfast.model.ids import TOKEN_BYTES, Token
from holdfast.model.messages import Assign
from holdfast.model.task import State, Task, rank_of
from holdfast.ports import Attempt

_CLAIMS_MAX = 2_000
"""Claims of one turn, so that a turn has a bound."""
_PASSED_MAX = 64
"""Tasks that may be passed over because they avoid a worker, for each worker and turn."""


def place(turn: Turn) -> bool:
    """Claim what can be claimed now. Returns whether more could be claimed in another turn."""
    served = {
        identity: lines
        for identity, offer in turn.state.crew.offers.items()
        if not offer.full and (lines := _lines_of(turn, offer))
    }
    waiting = [
        (turn.state.crew.offers[identity].load, order, identity)
        for order, identity in enumerate(served)
    ]
    heapq.heapify(waiting)
    claims = 0
    while waiting and claims < _CLAIMS_MAX:
        _, order, identity = heapq.heappop(waiting)
        session = turn.state.sessions.get(identity)
        if session is None or session.closed or not turn.is_current(session):
            continue
        passed: list[tuple[Line, Task]] = []
        if _place_one(turn, session, served[identity], passed):
            claims += 1
            heapq.heappush(waiting, (session.offer.load, order, identity))
        for line, task in passed:
            # What this worker must not run, the next one may.
            line.restore(rank_of(task.spec), task.spec.id)
    dry = any(line.more and not line.held for lines in served.values() for _, line in lines)
    return claims >= _CLAIMS_MAX or (claims > 0 and dry)


def _lines_of(turn: Turn, offer: Offer) -> list[tuple[str, Line]]:
    lines = turn.state.lines.lines.items()
    return [(needs, line) for needs, line in lines if line.held and offer.serves(needs)]


def _place_one(
    turn: Turn,
    session: WorkerSession,
    lines: list[tuple[str, Line]],
    passed: list[tuple[Line, Task]],
) -> bool:
    """Give one task to a worker; False where none fits it."""
    offer = session.offer
    closed: list[Line] = []
    while True:
        best: Line | None = None
        head: tuple[int, bytes] | None = None
        for _, line in lines:
            first = line.head() if line not in closed else None
            if first is not None and (head is None or first < head):
                best, head = line, first
        if best is None or head is None:
            return False
        task = turn.get(head[1])
        if task is None or task.life.state is not State.QUEUED or task.life.due_ms:
            turn.pop(best)
            continue
        if _avoids(turn, task, session):
            if len(passed) >= _PASSED_MAX:
                closed.append(best)
            else:
                turn.pop(best)
                passed.append((best, task))
            continue
        cost_us = turn.state.pace.cost_us(task.spec.function)
        if not offer.takes(cost_us, concurrent=task.spec.concurrent):
            closed.append(best)
            continue
        turn.pop(best)
        if _claim(turn, session, task, cost_us):
            return True


def _avoids(turn: Turn, task: Task, session: WorkerSession) -> bool:
    life = task.life
    return life.avoid == session.identity and life.avoid_until_ms > turn.now_ms


def _claim(turn: Turn, session: WorkerSession, task: Task, cost_us: int) -> bool:
    """Claim a task for a worker; False where its former lease's charge ends it instead."""
    token = Token(turn.rng.randbytes(TOKEN_BYTES))
    before = task.life
    step = lease.claim(
        before,
        token=token,
        worker=session.identity,
        incarnation=session.incarnation,
        epoch=session.epoch,
        now_ms=turn.now_ms,
    )
    if before.fence:
        turn.attempts.append(
            Attempt(
                task=task.spec.id,
                fence=before.fence,
                token=before.token,
                worker=before.worker,
                incarnation=before.incarnation,
                claimed_ms=before.claimed_ms,
                started_ms=before.started_ms,
                ended_ms=before.ended_ms,
                ended=before.lease.text,
            )
        )
    after = turn.put(task, step.life)
    if step.life.state is not State.RUNNING:
        turn.tell("lost", after)
        return False
    session.offer.hold(token, cost_us, concurrent=task.spec.concurrent)
    session.offer.given += 1
    turn.claimed.append((task.spec.id, session, token))
    return True


def assignment(session: WorkerSession, task: Task) -> Assign:
    """Return the order for a committed claim, counted in the session's ledger."""
    spec, life = task.spec, task.life
    return Assign(
        session.ledger.assign(life.token, spec.id),
        session.epoch,
        spec.id,
        life.token,
        life.fence,
        spec.function,
        spec.payload,
        spec.code,
        spec.python,
        spec.concurrent,
        life.wanted,
        life.wish,
    )
