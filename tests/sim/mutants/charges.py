"""Mutants of what is charged: to which budget, when, how often, and with which end."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.coordinator import placing
from holdfast.core import invariants, lease
from holdfast.core.lifecycle import (
    JUDGEMENTS,
    OUTCOMES,
    WRITES,
    Charge,
    Judgement,
    Move,
    Standing,
    Write,
)
from holdfast.model import limits
from holdfast.model.outcome import Answer, OutcomeKind
from holdfast.model.task import Charges, Life, Owed
from tests.sim.mutants.mutant import Mutant


def _charged_to(patch: pytest.MonkeyPatch, kind: OutcomeKind, charge: Charge) -> None:
    moves, _, reason = OUTCOMES[kind]
    patch.setitem(OUTCOMES, kind, (moves, charge, reason))


def free_return_uncounted(patch: pytest.MonkeyPatch) -> None:
    """Law 4: what is handed back unrun is free, and not counted as a free return either."""
    _charged_to(patch, OutcomeKind.RETURNED, Charge.NOTHING)


def free_lapse_uncounted(patch: pytest.MonkeyPatch) -> None:
    """Claim: a lapse of what had not started is not counted as a free return."""
    original = lease._charge_lapse

    def charge_lapse(life: Life) -> Life:
        charged = original(life)
        used = replace(charged.used, free_returns=life.used.free_returns)
        return replace(charged, used=used)

    patch.setattr(lease, "_charge_lapse", charge_lapse)


def what_was_not_started_is_charged(patch: pytest.MonkeyPatch) -> None:
    """Law 4: what is handed back unrun costs a loss."""
    _charged_to(patch, OutcomeKind.RETURNED, Charge.LOSS)


def crashes_cost_nothing(patch: pytest.MonkeyPatch) -> None:
    """Outcomes: a crash is charged to no budget, so that it has no end."""
    _charged_to(patch, OutcomeKind.CRASHED, Charge.NOTHING)


def crash_count_starts_again_without_progress(patch: pytest.MonkeyPatch) -> None:
    """Outcomes: the count of crashes starts again at 1 although the progress mark stands still."""
    original = lease._charge_outcome

    def charge_outcome(life: Life, charge: Charge) -> tuple[Charges, bool]:
        return original(replace(life, crash_mark=-1), charge)

    patch.setattr(lease, "_charge_outcome", charge_outcome)


def a_lapse_is_charged_at_once(patch: pytest.MonkeyPatch) -> None:
    """Silence, death: the charge falls at the lapse, and not at the claim that supersedes it."""
    lapse, charge_lapse = lease._lapse, lease._charge_lapse

    def lapsed(life: Life, owed: Owed, judgement: Judgement, now_ms: int) -> Life:
        after = lapse(life, owed, judgement, now_ms)
        charged = charge_lapse(after)
        return replace(after, used=charged.used, freed=charged.freed)

    patch.setattr(lease, "_lapse", lapsed)
    patch.setattr(lease, "_charge_lapse", lambda life: life)


def a_revived_lease_is_charged(patch: pytest.MonkeyPatch) -> None:
    """Started: a lapsed lease that goes on under its token costs a loss all the same."""
    original = lease._write

    def write(life: Life, token: bytes, move: Move, phase: Any, now_ms: int) -> Life:
        after = original(life, token, move, phase, now_ms)
        if move is not Move.REVIVE:
            return after
        return replace(after, used=replace(after.used, losses=after.used.losses + 1))

    patch.setattr(lease, "_write", write)


def unheard_lapses_have_no_bound(patch: pytest.MonkeyPatch) -> None:
    """Silence: of lapses that nobody can tell anything of, more than five are free."""
    patch.setattr(lease, "UNHEARD_MAX", 1_000)


def losses_have_no_bound(patch: pytest.MonkeyPatch) -> None:
    """Claim: a charge over its budget does not end the task."""
    patch.setattr(lease, "LOSSES_MAX", 1_000)


def _budget_is_one_larger(patch: pytest.MonkeyPatch, name: str) -> None:
    """As if the limit had been edited: the product's own invariants believe it as well."""
    larger = getattr(limits, name) + 1
    for module in (limits, lease, invariants):
        patch.setattr(module, name, larger)


def a_crash_too_many_is_allowed(patch: pytest.MonkeyPatch) -> None:
    """Law 4: the budget of crashes is one larger than it is said to be."""
    _budget_is_one_larger(patch, "CRASHES_MAX")


def a_loss_too_many_is_allowed(patch: pytest.MonkeyPatch) -> None:
    """Law 4: the budget of losses is one larger than it is said to be."""
    _budget_is_one_larger(patch, "LOSSES_MAX")


def outcomes_over_budget_do_not_fail(patch: pytest.MonkeyPatch) -> None:
    """Outcomes: one more crash, or one more lack of environment, than allowed does not end it."""
    original = lease._charge_outcome

    def charge_outcome(life: Life, charge: Charge) -> tuple[Charges, bool]:
        return original(life, charge)[0], False

    patch.setattr(lease, "_charge_outcome", charge_outcome)


def what_named_as_started_is_free(patch: pytest.MonkeyPatch) -> None:
    """Death: what the guard named as started is put back for free."""
    for standing in (Standing.ASSIGNED, Standing.STARTED):
        row = (Judgement.DEATH_STARTED, standing)
        patch.setitem(JUDGEMENTS, row, (Move.LAPSE, Owed.FREE))


def what_died_unstarted_is_charged(patch: pytest.MonkeyPatch) -> None:
    """Death: what the guard did not name, and so surely did not run, costs a loss."""
    patch.setitem(JUDGEMENTS, (Judgement.DEATH, Standing.ASSIGNED), (Move.LAPSE, Owed.LOSS))


def an_older_start_is_not_charged(patch: pytest.MonkeyPatch) -> None:
    """Started: a superseded lease that was charged as free, and had begun, stays free."""
    patch.setitem(WRITES, (Write.STARTED, Standing.OLDER), (Move.NOTHING, Answer.STOP))


def environment_failures_are_not_avoided(patch: pytest.MonkeyPatch) -> None:
    """Outcomes: after an environment failure the same worker gets the task again at once."""
    patch.setattr(placing, "_avoids", lambda turn, task, session: False)


CHARGES = (
    Mutant(free_return_uncounted, 0, calm=False),
    Mutant(free_lapse_uncounted, 2),
    Mutant(what_was_not_started_is_charged, 0, calm=False),
    Mutant(crashes_cost_nothing, 0, calm=False),
    Mutant(crash_count_starts_again_without_progress, 0, calm=False),
    Mutant(a_lapse_is_charged_at_once, 2),
    Mutant(a_revived_lease_is_charged, 5),
    Mutant(unheard_lapses_have_no_bound, 9),
    Mutant(losses_have_no_bound, 11),
    Mutant(a_crash_too_many_is_allowed, 6, calm=False),
    Mutant(a_loss_too_many_is_allowed, 11),
    Mutant(outcomes_over_budget_do_not_fail, 0, calm=False),
    Mutant(what_named_as_started_is_free, 2),
    Mutant(what_died_unstarted_is_charged, 8),
    Mutant(an_older_start_is_not_charged, 14),
    Mutant(environment_failures_are_not_avoided, 0, calm=False),
)
