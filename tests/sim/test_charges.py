"""The judge's arithmetic of budgets, by the rows of LEASES.md."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from holdfast.lab.sim.charges import CRASHES_MAX, LOSSES_MAX, UNHEARD_MAX, fault, over
from holdfast.model.ids import Token
from holdfast.model.outcome import Reason
from holdfast.model.task import Charges, Lease, Life, Owed, State, Wanted

HELD = Life(version=2, state=State.RUNNING, fence=1, token=Token(b"a"), lease=Lease.HELD)
NEXT = replace(HELD, fence=2, token=Token(b"b"))


def used(**counts: int) -> Charges:
    return Charges(**counts)


@pytest.mark.parametrize(
    ("kind", "budget"),
    [
        ("raised", "retries"),
        ("crashed", "crashes"),
        ("out_of_memory", "out_of_memory"),
        ("environment", "environment"),
        ("returned", "free_returns"),
        ("stopped", "losses"),
    ],
)
def test_an_outcome_is_charged_once_and_to_its_budget(kind: str, budget: str) -> None:
    back = replace(HELD, state=State.QUEUED, lease=Lease.SPENT)
    assert not fault(HELD, replace(back, used=used(**{budget: 1})), [kind], [])
    assert fault(HELD, replace(back, used=used(**{budget: 2})), [kind], [])
    assert fault(HELD, back, [kind], [])


@pytest.mark.parametrize("kind", ["returned", "stopped"])
def test_handing_back_for_a_pause_is_free(kind: str) -> None:
    paused = replace(HELD, state=State.PAUSED, wanted=Wanted.PAUSE, lease=Lease.SPENT)
    assert not fault(HELD, paused, [kind], [])


@pytest.mark.parametrize(
    ("owed", "charge"),
    [
        (Owed.LOSS, {"losses": 1}),
        (Owed.FREE, {"free_returns": 1}),
        (Owed.UNHEARD, {"free_returns": 1, "unheard": 1}),
    ],
)
def test_a_lapse_is_charged_at_the_next_claim(owed: Owed, charge: dict[str, int]) -> None:
    lapsed = replace(HELD, state=State.QUEUED, lease=Lease.LAPSED, owed=owed)
    assert not fault(HELD, lapsed, [], [owed.text])
    assert not fault(lapsed, replace(NEXT, used=used(**charge)), [], [])
    assert not fault(HELD, replace(NEXT, used=used(**charge)), [], [owed.text])
    assert fault(lapsed, NEXT, [], [])


def test_what_was_never_heard_of_is_a_loss_in_the_end() -> None:
    before = used(unheard=UNHEARD_MAX, free_returns=UNHEARD_MAX)
    lapsed = replace(HELD, state=State.QUEUED, lease=Lease.LAPSED, owed=Owed.UNHEARD, used=before)
    assert not fault(lapsed, replace(NEXT, used=replace(before, losses=1)), [], [])


def test_a_late_start_turns_a_free_return_into_a_loss() -> None:
    freed = replace(NEXT, freed=(Token(b"a"),), used=used(free_returns=1))
    put_right = replace(freed, freed=(), used=used(losses=1))
    assert not fault(freed, put_right, [], [])
    assert fault(freed, replace(put_right, used=used(free_returns=1)), [], [])


def test_budgets_have_an_end() -> None:
    assert not over(replace(HELD, used=used(crashes=CRASHES_MAX)), recharged=False)
    assert over(replace(HELD, used=used(crashes=CRASHES_MAX + 1)), recharged=False)
    assert over(replace(HELD, used=used(losses=LOSSES_MAX + 1)), recharged=False)
    assert not over(replace(HELD, used=used(losses=LOSSES_MAX + 1)), recharged=True)


def test_a_task_fails_by_a_budget_only_when_that_is_used_up() -> None:
    failed = replace(HELD, state=State.FAILED, lease=Lease.SPENT, reason=Reason.CRASHED)
    assert over(failed, recharged=False)
    spent = replace(failed, used=used(crashes=CRASHES_MAX + 1))
    assert not over(spent, recharged=False)


def test_a_pause_that_was_taken_back_in_the_same_turn_waives_a_charge_too() -> None:
    ended = replace(HELD, state=State.QUEUED, lease=Lease.SPENT)
    assert fault(HELD, replace(ended, wish=HELD.wish + 1), ["stopped"], [])
    assert not fault(HELD, replace(ended, wish=HELD.wish + 2), ["stopped"], [])


def test_an_outcome_settles_what_its_lease_owed() -> None:
    lapsed = replace(HELD, state=State.QUEUED, lease=Lease.LAPSED, owed=Owed.LOSS)
    claimed = replace(NEXT, used=used(crashes=1))
    assert not fault(lapsed, claimed, ["crashed"], [])
    assert fault(lapsed, replace(claimed, used=used(crashes=1, losses=1)), ["crashed"], [])


def test_the_end_of_a_task_may_leave_a_charge_out() -> None:
    """A crash and a cancel in one turn: whichever is decided first."""
    over = replace(HELD, state=State.CANCELLED, lease=Lease.SPENT)
    assert not fault(HELD, over, ["crashed"], [])
    assert not fault(HELD, replace(over, used=used(crashes=1)), ["crashed"], [])
    assert fault(HELD, replace(over, used=used(crashes=2)), ["crashed"], [])
