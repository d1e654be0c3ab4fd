"""The simulator is judged by mutants: the product is altered a little, and it must notice."""

from __future__ import annotations

import pytest

from holdfast.lab.sim.world import Verdict, run
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.tables import SEEDS, first_seed

CALM_SEEDS = (0, 3, 4)
"""In the last of them, functions travel."""
NAMED = """
    token_check_off ack_before_commit epoch_ignored one_way_reconcile overlay_off grace_unbounded
    free_return_uncounted spool_after_replace wish_not_told_again late_hello_accepted
    digest_compared_past_the_last_assignment_read late_death_report_accepted
    terminal_state_without_spending_the_token
""".split()
"""Those that the simulator was asked to notice before all others."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    # The seed that is noted comes first, to be quick; all of them come after it.
    assert mutant.seed in SEEDS
    seed = first_seed(mutant, (mutant.seed, *SEEDS))
    assert seed is not None, f"{len(SEEDS)} seeds, and nobody noticed: {mutant.breaks}"


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if mutant.calm], ids=lambda mutant: mutant.name
)
def test_a_mutant_does_its_work_while_nothing_goes_wrong(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.alter(monkeypatch)
    for seed in CALM_SEEDS:
        report = run(seed, faults_max=0)
        assert report.verdict is Verdict.VALID, (seed, report.violations)


def test_the_product_itself_is_not_accused() -> None:
    for seed in sorted({mutant.seed for mutant in MUTANTS}):
        report = run(seed)
        assert report.verdict is Verdict.VALID, (seed, report.violations)


def test_the_mutants_are_many_and_each_says_what_it_breaks() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 24
    assert set(NAMED) <= set(names)
    for mutant in MUTANTS:
        assert mutant.breaks.endswith("."), mutant.name
