"""Recalls: work that waits at one worker while another has nothing to do.

A recall takes nothing away: the worker gives the task back if it has not started, and else goes on.
So it needs no commit, and may be said twice.
"""

from __future__ import annotations

from holdfast.coordinator.turn import Turn
from holdfast.core.dispatch import Offer
from holdfast.model.messages import Recall
from holdfast.model.task import Phase, Task, needs_of

AGE_SECONDS = 0.05
"""How long a task waits at a worker before it may be recalled; also how often we look."""
AGAIN_SECONDS = 1.0
"""How long a recall is not repeated for the same attempt."""
_RECALLS_MAX = 256


def recall(turn: Turn) -> float:
    """Ask the fullest worker for what the idle ones could run now.

    Returns in how many seconds to look again, 0 where there is nothing to look for.
    """
    state = turn.state
    offers = state.crew.offers
    idle = [offer for offer in offers.values() if _free(offer) > 0 and not _waits(turn, offer)]
    full = max(offers.values(), key=_behind, default=None)
    if not idle or full is None or _behind(full) <= 0:
        return 0.0
    if turn.now < state.recall_at:
        return state.recall_at - turn.now
    state.recall_at = turn.now + AGE_SECONDS
    asked = {token: at for token, at in state.recalled.items() if turn.now - at < AGAIN_SECONDS}
    wanted = min(sum(map(_free, idle)), _behind(full), _RECALLS_MAX)
    session, young = state.sessions[full.identity], False
    # The youngest stand last in the worker's own line, so that they would wait longest.
    for task in reversed(turn.held_by(full.identity)):
        if wanted <= 0:
            break
        if task.life.token in asked or not _movable(task, idle):
            continue
        if turn.now_ms - task.life.claimed_ms < AGE_SECONDS * 1000:
            young = True
            continue
        asked[task.life.token] = turn.now
        turn.say(session, Recall(task.spec.id, task.life.token))
        turn.count("recalls")
        wanted -= 1
    state.recalled = asked
    return AGE_SECONDS if young else 0.0


def _free(offer: Offer) -> int:
    if not offer.open or offer.pull:
        return 0
    return offer.slots - (len(offer.leases) - offer.concurrent)


def _behind(offer: Offer) -> int:
    """How many leases of a worker certainly wait for a slot."""
    return len(offer.leases) - offer.concurrent - offer.slots


def _waits(turn: Turn, offer: Offer) -> bool:
    """Whether there is work for this worker that nobody has yet."""
    lines = turn.state.lines.lines.items()
    return any((line.held or line.more) and offer.serves(needs) for needs, line in lines)


def _movable(task: Task, idle: list[Offer]) -> bool:
    if task.life.phase is not Phase.ASSIGNED or task.spec.concurrent:
        return False
    needs = needs_of(task.spec)
    return any(offer.serves(needs) and offer.identity != task.life.avoid for offer in idle)
