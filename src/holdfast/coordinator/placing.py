"""Claims: the tasks that stand first in line go to the workers that have room, within the turn.

The least-loaded worker is served first, and gets what stands first in line over all the classes
that it serves. A task that came in with this very turn is claimed in it, so that it costs one row.
"""

from __future__ import annotations

import heapq

from holdfast.coordinator.sessions import WorkerSession
from holdfast.coordinator.turn import Turn
from holdfast.core import lease
from holdfast.core.dispatch import Line, Offer, weight
from holdfast.model.ids import TOKEN_BYTES, Token
from holdfast.model.messages import Assign
from holdfast.model.task import State, Task, rank_of
from holdfast.ports import Attempt

Head = tuple[tuple[int, bytes], str, Line]
"""The first of a line, its class, and the line."""

_CLAIMS_MAX = 2_000
"""Claims of one turn, so that a turn has a bound."""
_PASSED_MAX = 64
"""Tasks that may be passed over because they avoid a worker, for each worker and turn."""


def place(turn: Turn) -> bool:
    """Claim what can be claimed now. Returns whether more could be claimed in another turn."""
    offers = turn.state.crew.offers
    served, dry = _heads(turn, [offer for offer in offers.values() if not offer.full])
    waiting = [(offers[identity].load, order, identity) for order, identity in enumerate(served)]
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
            line.restore(rank_of(task.spec), task.spec.id, weight(task.spec))
    dried = any(not line.held for line in dry)
    return turn.unread or claims >= _CLAIMS_MAX or (claims > 0 and dried)


def _heads(turn: Turn, offers: list[Offer]) -> tuple[dict[str, list[Head]], list[Line]]:
    """Return the heaps of the workers with room, and the lines that may run dry before the store.

    An entry may be older than the head of its line: it is compared when its turn has come.
    """
    heaps: dict[str, list[Head]] = {offer.identity: [] for offer in offers}
    dry: list[Line] = []
    for needs, line in turn.state.lines.lines.items() if heaps else ():
        first = line.head()
        if first is None:
            continue
        for offer in turn.state.crew.serving(needs):
            heap = heaps.get(offer.identity)
            if heap is not None:
                heap.append((first, needs, line))
        if line.more:
            dry.append(line)
    for heap in heaps.values():
        heapq.heapify(heap)
    return {identity: heap for identity, heap in heaps.items() if heap}, dry


def _place_one(
    turn: Turn, session: WorkerSession, heads: list[Head], passed: list[tuple[Line, Task]]
) -> bool:
    """Give one task to a worker; False where none fits it.

    What stands first and finds no room keeps the room from what stands behind it: short work
    never overtakes a long task for ever.
    """
    offer = session.offer
    full: list[bool] = []
    while heads:
        entry, needs, line = heads[0]
        first = line.head()
        if first is None:
            heapq.heappop(heads)
            continue
        if first != entry:
            heapq.heapreplace(heads, (first, needs, line))
            continue
        task = turn.get(first[1])
        if task is None or task.life.state is not State.QUEUED or task.life.due_ms:
            turn.pop(line)
        elif task.spec.concurrent in full:
            heapq.heappop(heads)
        elif _avoids(turn, task, session):
            if len(passed) >= _PASSED_MAX:
                heapq.heappop(heads)
            else:
                turn.pop(line)
                passed.append((line, task))
        else:
            cost_us = turn.state.pace.cost_us(task.spec.function)
            ahead_max = turn.state.urgency.ahead_max(task.spec.priority, turn.now)
            if not offer.takes(cost_us, concurrent=task.spec.concurrent, ahead_max=ahead_max):
                full.append(task.spec.concurrent)
                heapq.heappop(heads)
                continue
            turn.pop(line)
            if _claim(turn, session, task, cost_us):
                return True
    return False


def _avoids(turn: Turn, task: Task, session: WorkerSession) -> bool:
    return session.identity in lease.avoided(task.life, turn.now_ms)


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
    session.offer.hold(token, cost_us, concurrent=task.spec.concurrent, now=turn.now)
    session.offer.given += 1
    turn.state.urgency.learn(task.spec.priority, turn.now)
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
