"""Claims: the tasks that stand first in line go to the workers that have room, within the turn.

The least-loaded worker is served first, and gets what stands first in line over all the classes
that it serves, and beside their lines. What it must avoid for now is shunted to the siding, so that
nothing waits behind it. A task that came in with this very turn is claimed in it, so that it costs
one row.
"""

from __future__ import annotations

import heapq

from msgspec.structs import replace

from holdfast.coordinator.sessions import WorkerSession
from holdfast.coordinator.turn import Turn
from holdfast.core import lease
from holdfast.core.dispatch import Line, Offer
from holdfast.core.siding import Track
from holdfast.model.ids import TOKEN_BYTES, Token
from holdfast.model.messages import Assign
from holdfast.model.task import State, Task
from holdfast.ports import Attempt

Head = tuple[tuple[int, bytes], str, Line | Track]
"""What stands first in a line or beside it, a name for the place, and the place."""

_CLAIMS_MAX = 2_000
"""Claims of one turn, so that a turn has a bound."""
_SHUNTS_MAX = 4_000
"""Tasks that one turn moves out of their lines."""


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
        if _place_one(turn, session, served):
            claims += 1
            heapq.heappush(waiting, (session.offer.load, order, identity))
    dried = any(not line.held for line in dry)
    moved = claims > 0 or turn.shunts > 0
    return turn.unread or claims >= _CLAIMS_MAX or (moved and dried)


def _heads(turn: Turn, offers: list[Offer]) -> tuple[dict[str, list[Head]], list[Line]]:
    """Return the heaps of the workers with room, and the lines that may run dry before the store.

    An entry may be older than the head of its line: it is compared when its turn has come.
    """
    state = turn.state
    heaps: dict[str, list[Head]] = {offer.identity: [] for offer in offers}
    dry: list[Line] = []
    for needs, line in state.lines.lines.items() if heaps else ():
        first = line.head()
        if first is None:
            continue
        for offer in state.crew.serving(needs):
            heap = heaps.get(offer.identity)
            if heap is not None:
                heap.append((first, needs, line))
        if line.more:
            dry.append(line)
    for track in state.siding.tracks() if heaps else ():
        _open(turn, track, heaps)
    for heap in heaps.values():
        heapq.heapify(heap)
    return {identity: heap for identity, heap in heaps.items() if heap}, dry


def _open(turn: Turn, track: Track, heaps: dict[str, list[Head]]) -> None:
    """Show a track to the workers with room that may have what is on it."""
    first = track.head()
    if first is None:
        return
    for offer in turn.state.crew.serving(track.needs):
        heap = heaps.get(offer.identity)
        if heap is not None and track.is_open_to(offer):
            heapq.heappush(heap, (first, track.key, track))


def _place_one(turn: Turn, session: WorkerSession, served: dict[str, list[Head]]) -> bool:
    """Give one task to a worker; False where none fits it.

    What stands first and finds no room keeps the room from what stands behind it: short work
    never overtakes a long task for ever.
    """
    offer, heads = session.offer, served[session.identity]
    full: list[bool] = []
    while heads:
        entry, key, source = heads[0]
        first = source.head()
        if first is None:
            heapq.heappop(heads)
            continue
        if first != entry:
            heapq.heapreplace(heads, (first, key, source))
            continue
        task = turn.get(first[1])
        if task is None and isinstance(source, Track) and source.concurrent not in full:
            # It is this worker's, whose row the next turn has read; nothing overtakes it meanwhile.
            turn.unread = True
            return False
        if task is None and isinstance(source, Track):
            heapq.heappop(heads)
        elif task is None or task.life.state is not State.QUEUED or task.life.due_ms:
            turn.pop(source)
        elif task.spec.concurrent in full:
            heapq.heappop(heads)
        elif _avoids(turn, task, session):
            if not _shunt(turn, source, task, served):
                heapq.heappop(heads)
        else:
            cost_us = turn.state.pace.cost_us(task.spec.function)
            ahead_max = turn.state.urgency.ahead_max(task.spec.priority, turn.now)
            if not offer.takes(cost_us, concurrent=task.spec.concurrent, ahead_max=ahead_max):
                full.append(task.spec.concurrent)
                heapq.heappop(heads)
                continue
            turn.pop(source)
            if _claim(turn, session, task, cost_us):
                return True
    return False


def _avoids(turn: Turn, task: Task, session: WorkerSession) -> bool:
    return session.identity in lease.avoided(task.life, turn.now_ms)


def _shunt(turn: Turn, source: Line | Track, task: Task, served: dict[str, list[Head]]) -> bool:
    """Move what a worker must avoid out of the way, and show it to those that may have it.

    False where that waits for another turn.
    """
    if turn.shunts >= _SHUNTS_MAX:
        turn.unread = True
        return False
    turn.shunts += 1
    if turn.state.siding.full:
        # The store remembers when it is tried again; until then nobody has it.
        turn.pop(source)
        life = task.life
        turn.put(task, replace(life, version=life.version + 1, due_ms=life.avoid_until_ms))
        return True
    avoids = " ".join(sorted(lease.avoided(task.life, turn.now_ms)))
    track = turn.shunt(source, task, avoids)
    first = track.head()
    if first is not None and first[1] == task.spec.id:
        _open(turn, track, served)
    return True


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
    session.offer.given[task.spec.concurrent] += 1
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
