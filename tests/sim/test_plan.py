"""Plans: the same from the same seed, and streams that do not shift each other."""

from __future__ import annotations

from holdfast.lab.sim.charges import LOSSES_MAX
from holdfast.lab.sim.misfortunes import (
    CHILD,
    CHILDREN,
    CLIENT_POINTS,
    CODE_POINTS,
    COORDINATOR,
    COORDINATOR_POINTS,
    COUNTED,
    EFFECT_POINTS,
    STORM_DEATHS,
    STORM_LEASE_SECONDS,
    WORKER_POINTS,
    Fault,
    FaultKind,
)
from holdfast.lab.sim.plan import Plan, draw, stream
from holdfast.model.task import Wanted

DOINGS = "ok raise crash forever stubborn big poison environment out_of_memory invalid".split()
"""All that user code does in the simulator."""


def test_a_seed_is_a_plan() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_fewer_faults_leave_the_tasks_as_they_were() -> None:
    whole, calm = draw(3), draw(3, faults_max=0)
    assert calm.faults == ()
    assert (calm.submissions, calm.wishes, calm.workers) == (
        whole.submissions,
        whole.wishes,
        whole.workers,
    )


def test_streams_are_the_same_everywhere() -> None:
    assert stream(1, "a").random() == stream(1, "a").random()
    assert stream(1, "a").random() != stream(1, "b").random()
    # Pinned, because a digest of a history must mean the same on every machine.
    assert stream(0, "shape").getrandbits(32) == 4192265698


def test_plans_hold_what_they_promise() -> None:
    kinds: dict[FaultKind, int] = {}
    doings: dict[str, int] = {}
    for seed in range(60):
        plan = draw(seed)
        for fault in plan.faults:
            assert isinstance(fault, Fault)
            # A host takes its time to start; an ambush waits, and ends with all others.
            late = fault.kind in (FaultKind.CRASH, FaultKind.AMBUSH)
            assert late or fault.at + fault.seconds <= plan.heal_at + 1e-9
            kinds[fault.kind] = kinds.get(fault.kind, 0) + 1
        for task in plan.submissions:
            doings[task.behaviour.do] = doings.get(task.behaviour.do, 0) + 1
            endless = task.behaviour.do in ("forever", "stubborn")
            wishes = [wish.wanted for wish in plan.wishes if wish.task == task.number]
            assert not endless or Wanted.CANCEL in wishes
            assert Wanted.PAUSE not in wishes or Wanted.RUN in wishes
    assert set(COUNTED) <= set(kinds)
    flavours = {fault.flavour for seed in range(60) for fault in draw(seed).faults}
    assert {"cut WorkerHello", "crash Ended", "partition Started"} <= flavours
    assert set(doings) == set(DOINGS)


def test_some_functions_travel() -> None:
    plans = [plan for plan in map(draw, range(60)) if plan.pickled]
    assert 5 < len(plans) < 20
    for plan in plans:
        assert plan.pickled <= {task.function for task in plan.submissions}
        assert is_shaken(plan) or any(fault.flavour == "full" for fault in plan.faults)
    flavours = " ".join(fault.flavour for plan in plans for fault in plan.faults)
    assert all(f" {point}" in flavours for _, point in CODE_POINTS)


def test_everybody_dies() -> None:
    deaths = [
        fault for seed in range(400) for fault in draw(seed).faults if fault.kind is FaultKind.CRASH
    ]
    flavours = " ".join(fault.flavour for fault in deaths)
    points = (*CLIENT_POINTS, *EFFECT_POINTS, *WORKER_POINTS, *COORDINATOR_POINTS)
    assert all(f"{when} {point}" in flavours for point in points for when in ("before", "after"))
    targets = {fault.target.rstrip("0123456789") for fault in deaths}
    assert targets == {"coordinator", "worker-", "client-"}
    assert {CHILD, CHILDREN} <= {fault.flavour for fault in deaths}


def test_a_storm_uses_budgets_up() -> None:
    stormy = [plan for plan in map(draw, range(60)) if _deaths(plan) >= STORM_DEATHS]
    assert stormy
    for plan in stormy:
        assert plan.lease_seconds == STORM_LEASE_SECONDS
        worker = plan.workers[0].name
        flavours = [fault.flavour for fault in plan.faults if fault.target == worker]
        assert max(flavours.count(each) for each in set(flavours)) > LOSSES_MAX


def _deaths(plan: Plan) -> int:
    """Return the most deaths of one kind that a plan has for its first worker."""
    crashes = [
        fault.flavour
        for fault in plan.faults
        if fault.kind is FaultKind.CRASH and fault.target == plan.workers[0].name
    ]
    return max((crashes.count(each) for each in crashes), default=0)


def test_some_tasks_outlast_the_leases_in_which_their_worker_is_gone() -> None:
    eclipsed = 0
    for seed in range(60):
        plan = draw(seed)
        marathons = [task for task in plan.submissions if task.function == "sim:marathon"]
        eclipsed += bool(marathons)
        for task in marathons:
            assert task.behaviour.ms > 2000 * plan.lease_seconds
            assert is_shaken(plan) or any(fault.at == task.at - 0.005 for fault in plan.faults)
    assert eclipsed > 5


def is_shaken(plan: Plan) -> bool:
    return {fault.kind for fault in plan.faults} == {FaultKind.CRASH} and all(
        fault.flavour in ("", "silent") for fault in plan.faults
    )


def test_in_some_runs_coordinators_alone_die() -> None:
    shaken = [plan for plan in map(draw, range(200)) if is_shaken(plan)]
    assert 5 < len(shaken) < 30
    lost = [plan for plan in shaken if any(f.flavour == "silent" for f in plan.faults)]
    assert 0 < len(lost) < len(shaken)
    for plan in shaken:
        deaths = [fault for fault in plan.faults if fault.target == COORDINATOR]
        assert len(deaths) > 1
        assert len(plan.faults) - len(deaths) == (plan in lost)
        assert all(fault.at + fault.seconds <= plan.heal_at for fault in deaths)


def test_some_plans_have_a_crowd_that_nobody_can_run_at_first() -> None:
    crowded = 0
    for plan in map(draw, range(60)):
        crowd = [task for task in plan.submissions if task.function == "sim:crowd"]
        behind = [task for task in plan.submissions if task.function == "sim:behind"]
        crowded += bool(crowd)
        assert bool(crowd) == bool(behind)
        assert not crowd or len(crowd) > 64
        assert {(task.behaviour.do, task.behaviour.ms) for task in crowd} <= {("environment", 1)}
        assert all(task.at > crowd[0].at for task in behind)
    assert crowded > 3


def test_the_work_of_a_plan_bounds_how_long_it_may_take() -> None:
    for seed in range(20):
        plan = draw(seed)
        once = sum(task.behaviour.ms for task in plan.submissions) / 1000
        assert once <= plan.work_seconds <= 7 * once
