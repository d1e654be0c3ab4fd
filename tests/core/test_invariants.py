"""Each rule sees what breaks it, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.core import invariants
from holdfast.model.outcome import Encoding, Payload, Reason
from holdfast.model.task import Charges, Lease, Life, Owed, Phase, State, Wanted
from tests.core.leases import NEWEST, NEXT, events, perform, shapes

CLAIMED: dict[str, Any] = {"fence": 1, "token": NEWEST}
HELD = Life(state=State.RUNNING, lease=Lease.HELD, phase=Phase.ASSIGNED, **CLAIMED)
SPENT = Life(lease=Lease.SPENT, phase=Phase.ENDED, **CLAIMED)
LAPSED = Life(lease=Lease.LAPSED, phase=Phase.ASSIGNED, owed=Owed.FREE, **CLAIMED)
DONE = replace(SPENT, state=State.SUCCEEDED)


def used(**budgets: int) -> Life:
    return replace(SPENT, used=Charges(**budgets))


@pytest.mark.parametrize(
    ("life", "rule"),
    [
        (replace(SPENT, state=State.RUNNING), "running exactly while the lease is held"),
        (replace(HELD, state=State.QUEUED), "running exactly while the lease is held"),
        (
            replace(LAPSED, state=State.FAILED, reason=Reason.LOST),
            "a terminal state has spent its token",
        ),
        (replace(SPENT, wanted=Wanted.PAUSE), "queued means wanted to run"),
        (replace(SPENT, state=State.PAUSED), "paused means a pause is wanted"),
        (replace(SPENT, token=b""), "a token exactly where there was a claim"),
        (replace(SPENT, fence=0), "a token exactly where there was a claim"),
        (replace(HELD, phase=Phase.ENDED), "a held lease is assigned or started"),
        (replace(LAPSED, owed=Owed.NOTHING), "a lapsed lease owes its charge"),
        (replace(SPENT, owed=Owed.LOSS), "a lapsed lease owes its charge"),
        (replace(SPENT, state=State.FAILED), "failed exactly with a reason"),
        (replace(SPENT, result=Payload(Encoding.JSON)), "a result only where it succeeded"),
        (used(losses=106), "losses in budget"),
        (used(crashes=4), "crashes in budget"),
        (used(out_of_memory=2), "out of memory in budget"),
        (used(environment=6), "environment in budget"),
        (used(free_returns=101), "free returns in budget"),
        (used(free_returns=-1), "every freed token was charged as free"),
        (replace(SPENT, freed=(NEXT,)), "every freed token was charged as free"),
        (replace(used(free_returns=1), freed=(NEWEST,)), "freed tokens are older ones"),
    ],
)
def test_a_broken_row_is_seen(life: Life, rule: str) -> None:
    assert invariants.of_life(life) == [rule]


@pytest.mark.parametrize(
    "life",
    [
        Life(),
        HELD,
        SPENT,
        LAPSED,
        DONE,
        replace(DONE, result=Payload(Encoding.JSON)),
        Life(state=State.CANCELLED, wanted=Wanted.CANCEL),
        replace(used(losses=6, crashes=4), state=State.FAILED, reason=Reason.LOST),
        used(losses=5, crashes=3, out_of_memory=1, environment=5, free_returns=100),
    ],
)
def test_a_right_row_is_not(life: Life) -> None:
    assert invariants.of_life(life) == []


def changed(life: Life, **fields: Any) -> Life:
    return replace(life, **{"version": life.version + 1, **fields})


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (DONE, changed(DONE), "a terminal task never changes"),
        (HELD, changed(HELD, version=1), "the version grows"),
        (HELD, changed(HELD, fence=0, token=b""), "fences only grow"),
        (HELD, changed(HELD, token=NEXT), "a token lives as long as its fence"),
        (HELD, changed(HELD, fence=2), "a token lives as long as its fence"),
        (SPENT, changed(SPENT, lease=Lease.LAPSED), "a spent token stays spent"),
        (replace(HELD, wish=2), changed(HELD, wish=1), "wish numbers only grow"),
        (HELD, changed(HELD, wanted=Wanted.PAUSE), "a new wish has a new number"),
        (replace(HELD, mark=2), changed(HELD, mark=1), "the progress mark never falls"),
        (
            replace(HELD, phase=Phase.STARTED),
            changed(HELD),
            "an attempt that started stays started",
        ),
        (
            replace(HELD, wanted=Wanted.CANCEL),
            changed(HELD, wanted=Wanted.RUN, wish=1),
            "a cancel is final",
        ),
        (
            used(free_returns=2, losses=1),
            changed(used(free_returns=1, losses=1)),
            "charges never fall",
        ),
        (used(retries=1), changed(SPENT), "charges never fall"),
        (used(losses=1), changed(SPENT), "charges never fall"),
        (used(crashes=2), changed(used(crashes=1)), "charges never fall"),
        (used(out_of_memory=1), changed(SPENT), "charges never fall"),
        (used(environment=1), changed(SPENT), "charges never fall"),
        (used(unheard=1), changed(SPENT), "charges never fall"),
    ],
)
def test_a_broken_change_is_seen(before: Life, after: Life, rule: str) -> None:
    assert invariants.of_change(before, after) == [rule]


def test_charges_may_move_and_crashes_may_begin_again_after_progress() -> None:
    moved = changed(used(free_returns=1, losses=2))
    assert invariants.of_change(used(free_returns=2, losses=1), moved) == []
    begun = changed(replace(used(crashes=1), mark=3))
    assert invariants.of_change(used(crashes=3), begun) == []


def test_no_event_on_a_right_row_breaks_a_rule() -> None:
    for life in shapes(few=True):
        assert invariants.of_life(life) == []
        for event in events():
            after, _ = perform(life, event)
            assert invariants.of_change(life, after) == []
            assert invariants.of_life(after) == []
