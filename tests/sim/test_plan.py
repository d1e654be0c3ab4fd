"""Plans: the same from the same seed, and streams that do not shift each other."""

from __future__ import annotations

from holdfast.lab.sim.plan import COUNTED, Fault, FaultKind, draw, stream
from holdfast.lab.sim.witness import BEHAVIOURS
from holdfast.model.task import Wanted


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
            assert fault.at + fault.seconds <= plan.heal_at + 1e-9 or fault.kind is FaultKind.CRASH
            kinds[fault.kind] = kinds.get(fault.kind, 0) + 1
        for task in plan.submissions:
            doings[task.behaviour.do] = doings.get(task.behaviour.do, 0) + 1
            endless = task.behaviour.do in ("forever", "stubborn")
            wishes = [wish.wanted for wish in plan.wishes if wish.task == task.number]
            assert not endless or Wanted.CANCEL in wishes
            assert Wanted.PAUSE not in wishes or Wanted.RUN in wishes
    assert set(COUNTED) <= set(kinds)
    assert set(doings) == set(BEHAVIOURS)
