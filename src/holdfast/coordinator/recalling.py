"""Recalls: work that waits at one worker while another has nothing to do, or before urgent work.

A recall takes nothing away: the worker gives the task back if it has not started, and else goes on.
So it needs no commit, and may be said twice.
"""

from __future__ import annotations

import heapq
from operator import itemgetter

from holdfast.coordinator.turn import Turn
from holdfast.core.dispatch import Offer
from holdfast.model.limits import FREE_RETURNS_MAX
from holdfast.model.messages import Recall
from holdfast.model.task import Phase, Task, needs_of, rank_of

AGE_SECONDS = 0.05
"""How long a task waits at a worker before it may be recalled; also how often we look."""
AGAIN_SECONDS = 1.0
"""How long a recall is not repeated for the same attempt."""
_RECALLS_MAX = 256
"""Recalls within `AGAIN_SECONDS`."""
_URGENT_MAX = 8
"""Lines for whose first task others may be asked to give way, in one turn."""
_LOOKED_TASKS = 5_000
"""What one look may cost; one that looks at more is made less often."""
_RETURNS_MAX = FREE_RETURNS_MAX // 2
"""A task that was given back so often is left where it is: its free returns are for mishaps."""


def recall(turn: Turn) -> float:
    """Ask workers for what others could run now, and for what holds up more urgent work.

    Those behind which most waits are asked first. Returns in how many seconds to look again, 0
    where there is nothing to look for.
    """
    state = turn.state
    behind = [offer for offer in state.crew.offers.values() if _behind(offer) > 0]
    if not behind:
        return 0.0
    if turn.now < state.recall_at:
        return state.recall_at - turn.now
    asked = {token: at for token, at in state.recalled.items() if turn.now - at < AGAIN_SECONDS}
    wants = _wants(turn)
    looked, young = 0, False
    for offer in sorted(behind, key=_behind, reverse=True):
        mine = [want for want in wants if want.count > 0 and want.concerns(offer)]
        if mine:
            held = turn.held_by(offer.identity)
            looked += len(held)
            young |= _ask(turn, offer, held, mine, asked)
    state.recalled = asked
    # The more there was to look at, the later the next look.
    state.recall_at = turn.now + AGE_SECONDS * (1 + looked // _LOOKED_TASKS)
    return state.recall_at - turn.now if young else 0.0


def _ask(
    turn: Turn, offer: Offer, held: list[Task], wants: list[_Want], asked: dict[bytes, float]
) -> bool:
    """Recall what is wanted of one worker. Returns whether some of it is too young yet."""
    session, left, young = turn.state.sessions[offer.identity], _behind(offer), False
    # The youngest stand last in the worker's own line, so that they would wait longest.
    for task in reversed(held):
        want = _want_of(wants, task) if left > 0 else None
        token = task.life.token
        if want is None:
            continue
        if token not in asked:
            if offer.age_seconds(token, turn.now) < AGE_SECONDS:
                young = True
                continue
            if len(asked) >= _RECALLS_MAX:
                break
            asked[token] = turn.now
            turn.say(session, Recall(task.spec.id, token))
            turn.count("recalls")
        # One that was asked for before is on its way back, or about to start.
        want.count -= 1
        left -= 1
    return young


class _Want:
    """What a worker's free slots, or a task that waits, would have others give back."""

    __slots__ = ("count", "head", "idle", "serving")

    def __init__(
        self, count: int, *, idle: Offer | None = None, head: Task | None = None, serving: str = ""
    ) -> None:
        self.count = count
        """Tasks wanted still."""
        self.idle = idle
        self.head = head
        self.serving = serving
        """The class of `head`: only who serves it can make room for it."""

    def concerns(self, offer: Offer) -> bool:
        """Whether anything may be wanted of this worker."""
        return self.head is None or offer.serves(self.serving)

    def takes(self, task: Task) -> bool:
        """Whether it helps that this task is given back."""
        if self.count <= 0:
            return False
        if self.head is not None:
            behind = rank_of(task.spec) > rank_of(self.head.spec)
            return behind and task.spec.priority < self.head.spec.priority
        idle = self.idle
        return (
            idle is not None
            and idle.identity not in task.life.avoid.split()
            and idle.serves(needs_of(task.spec))
        )


def _wants(turn: Turn) -> list[_Want]:
    """Return what is wanted of those that are behind: for free slots, then for urgent tasks."""
    state = turn.state
    busy: dict[str, None] = {}
    heads: list[tuple[int, str, Task]] = []
    for needs, line in state.lines.lines.items():
        if line.held or line.more:
            busy.update((offer.identity, None) for offer in state.crew.serving(needs))
        first = line.head()
        task = turn.get(first[1]) if first is not None else None
        if task is not None and not task.spec.concurrent:
            heads.append((task.spec.priority, needs, task))
    idle = (o for o in state.crew.offers.values() if _free(o) > 0 and o.identity not in busy)
    wants = [_Want(_free(offer), idle=offer) for offer in idle]
    for _, needs, task in heapq.nlargest(_URGENT_MAX, heads, key=itemgetter(0)):
        # A long task waits until all that is short has left, a short one for its own room.
        short = state.pace.cost_us(task.spec.function)
        count = len(state.lines.lines[needs].held) if short else _RECALLS_MAX
        wants.append(_Want(count, head=task, serving=needs))
    return wants


def _want_of(wants: list[_Want], task: Task) -> _Want | None:
    if task.life.phase is not Phase.ASSIGNED or task.spec.concurrent:
        return None
    if task.life.used.free_returns >= _RETURNS_MAX:
        return None
    return next((want for want in wants if want.takes(task)), None)


def _free(offer: Offer) -> int:
    if not offer.open or offer.pull:
        return 0
    return offer.free


def _behind(offer: Offer) -> int:
    """How many leases of a worker certainly wait for a slot."""
    return -offer.free
