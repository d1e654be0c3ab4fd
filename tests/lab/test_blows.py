"""The plan of the blows: complete, of one seed, with pairs that fall at once."""

from __future__ import annotations

import random
from collections import Counter

from holdfast.lab.blows import Plan
from holdfast.lab.killtest import FULL

PLAN = Plan(seconds=10, children=5, workers=4, coordinators=3, pairs=2, cuts=1)


def test_every_blow_of_a_plan_falls() -> None:
    entries = PLAN.blows(random.Random(1))
    counts = Counter(kind for entry in entries for kind in entry)
    assert counts == {"child": 5, "worker": 4, "coordinator": 3, "cut": 1}
    assert sum(len(entry) == 2 and entry[1] == "coordinator" for entry in entries) == 2


def test_a_seed_gives_one_order() -> None:
    assert PLAN.blows(random.Random(1)) == PLAN.blows(random.Random(1))
    assert PLAN.blows(random.Random(1)) != PLAN.blows(random.Random(2))


def test_the_full_form_is_as_hard_as_promised() -> None:
    plan = FULL.plan
    assert plan.children >= 20
    assert plan.workers >= 10
    assert plan.coordinators >= 6
    assert plan.pairs >= 2
    assert FULL.tasks >= 50_000
    assert FULL.long_tasks >= 20
    assert FULL.slow_seconds == 3.0
