"""What must hold of every row and of every change, whatever happened.

Tests call these; the simulator's judge re-states the rules by itself. Each function returns the
sentences that are violated, an empty list where all hold. Nothing here is used to decide.
"""

from __future__ import annotations

from holdfast.model.limits import (
    CRASHES_MAX,
    ENVIRONMENT_MAX,
    FREE_RETURNS_MAX,
    LOSSES_MAX,
    OUT_OF_MEMORY_MAX,
)
from holdfast.model.task import TERMINAL_MIN, Lease, Life, Owed, Phase, State, Wanted


def of_life(life: Life) -> list[str]:
    """Return what is wrong with one row."""
    held, lapsed = life.lease is Lease.HELD, life.lease is Lease.LAPSED
    terminal = life.state >= TERMINAL_MIN
    used = life.used
    rules = (
        ("running exactly while the lease is held", (life.state is State.RUNNING) == held),
        ("a terminal state has spent its token", not terminal or life.lease in _OVER),
        ("queued means wanted to run", life.state is not State.QUEUED or _runs(life)),
        ("paused means a pause is wanted", life.state is not State.PAUSED or _paused(life)),
        ("a token exactly where there was a claim", bool(life.token) == (life.fence > 0)),
        ("a held lease is assigned or started", not held or life.phase in _LIVE),
        ("a lapsed lease owes its charge", lapsed == (life.owed is not Owed.NOTHING)),
        ("failed exactly with a reason", life.state is not State.FAILED or life.reason > 0),
        ("a result only where it succeeded", life.result is None or _succeeded(life)),
        ("losses in budget", used.losses <= LOSSES_MAX + terminal + FREE_RETURNS_MAX),
        ("crashes in budget", used.crashes <= CRASHES_MAX + terminal),
        ("out of memory in budget", used.out_of_memory <= OUT_OF_MEMORY_MAX + terminal),
        ("environment in budget", used.environment <= ENVIRONMENT_MAX + terminal),
        ("free returns in budget", used.free_returns <= FREE_RETURNS_MAX),
        ("every freed token was charged as free", len(life.freed) <= used.free_returns),
        ("freed tokens are older ones", life.token not in life.freed),
    )
    return [rule for rule, holds in rules if not holds]


def of_change(before: Life, after: Life) -> list[str]:
    """Return what is wrong with one write over a row."""
    if before is after:
        return []
    same_attempt = before.fence == after.fence
    rules = (
        ("a terminal task never changes", before.state < TERMINAL_MIN),
        ("the version grows", after.version > before.version),
        ("fences only grow", after.fence >= before.fence),
        ("a token lives as long as its fence", (before.token == after.token) == same_attempt),
        ("a spent token stays spent", not _unspent(before, after)),
        ("wish numbers only grow", after.wish >= before.wish),
        ("a new wish has a new number", before.wanted == after.wanted or after.wish > before.wish),
        ("the progress mark never falls", after.mark >= before.mark),
        ("an attempt that started stays started", not same_attempt or after.phase >= before.phase),
        ("charges never fall", _grew(before, after)),
        ("a cancel is final", before.wanted is not Wanted.CANCEL or after.wanted is Wanted.CANCEL),
    )
    return [rule for rule, holds in rules if not holds]


_OVER = (Lease.SPENT, Lease.NONE)
_LIVE = (Phase.ASSIGNED, Phase.STARTED)


def _runs(life: Life) -> bool:
    return life.wanted is Wanted.RUN


def _paused(life: Life) -> bool:
    return life.wanted is Wanted.PAUSE


def _succeeded(life: Life) -> bool:
    return life.state is State.SUCCEEDED


def _unspent(before: Life, after: Life) -> bool:
    return (
        before.fence == after.fence
        and before.lease is Lease.SPENT
        and after.lease is not Lease.SPENT
    )


def _grew(before: Life, after: Life) -> bool:
    old, new = before.used, after.used
    moved = old.free_returns - new.free_returns
    return (
        new.retries >= old.retries
        and new.losses >= old.losses
        and new.out_of_memory >= old.out_of_memory
        and new.environment >= old.environment
        and new.unheard >= old.unheard
        and (moved <= 0 or new.losses - old.losses >= moved)
        and (new.crashes >= old.crashes or (new.crashes == 1 and after.mark > before.crash_mark))
    )
