"""What docs/guarantees.md shows of the simulator is what the code gives."""

from __future__ import annotations

from holdfast.lab.sim.misfortunes import COORDINATOR_POINTS, WORKER_POINTS
from tests.sim import tables
from tests.sim.mutants import MUTANTS

COMMAND = "python -m tests.sim.tables"
NEVER_SENT = "coordinator StopOrder"
"""A start is told in a session that names its lease: no healthy worker gets this answer."""


def page() -> str:
    return tables.PAGE.read_text(encoding="utf-8")


def test_the_mutants_of_the_page_are_those_of_the_tests() -> None:
    shown = tables.part_of(page(), "mutants")
    assert shown == tables.mutants(), f"run {COMMAND}"
    for mutant in MUTANTS:
        assert f"`{mutant.name}` | " in shown


def test_the_page_shows_every_crash_point() -> None:
    shown = tables.part_of(page(), "crash points")
    rows = {line.split(" | ")[0] for line in shown.splitlines() if " | " in line}
    for role, points in (("coordinator", COORDINATOR_POINTS), ("worker", WORKER_POINTS)):
        missing = {f"{role} {point}" for point in points} - rows - {NEVER_SENT}
        assert not missing, f"run {COMMAND} --seeds 2000"
    assert "crash points passed but never deadly: 0 of " in shown


def test_a_part_is_replaced_and_nothing_beside_it() -> None:
    text = "a - b\n\n<!-- x -->\n\n-\n\n<!-- /x -->\n\nc - d\n"
    changed = tables.with_part(text, "x", "1\n\\2")
    assert changed == text.replace("\n-\n", "\n1\n\\2\n")
    assert tables.part_of(changed, "x") == "1\n\\2"


def test_crash_points_are_told_of_the_seeds_that_were_run() -> None:
    told = tables.crash_points(range(7, 8))
    assert told.startswith("`python -m holdfast.lab.sim --seeds 1 --first 7 --markdown`:\n1 seeds")
