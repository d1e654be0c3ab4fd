"""What is late: it is accused where nothing is in the way, and only there."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from holdfast.lab.sim.overdue import LATE_SECONDS, LOOK_SECONDS, TOLD_SECONDS, Overdue
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.witness import Behaviour, Witness, arguments
from holdfast.model.ids import Token
from holdfast.model.task import Lease, Life, Phase, State
from holdfast.ports import Order
from tests.core.wording import task

TOKEN = Token(b"t" * 16)
HELD = Life(
    state=State.RUNNING, fence=1, token=TOKEN, lease=Lease.HELD, phase=Phase.ASSIGNED, worker="w"
)


class Around:
    """A world in which things can be in the way."""

    def __init__(self) -> None:
        self.works = True
        self.line: object | None = "a line"
        self.records = Records()
        self.records.rows[task(1)] = HELD
        self.witness = Witness()
        self.overdue = Overdue(self.records, self.witness, self, lease_seconds=10.0)

    def coordinator_works(self) -> bool:
        return self.works

    def line_of(self, worker: str) -> object | None:
        return self.line

    def run(self, began: float) -> None:
        order = Order(task(1), TOKEN, 1, "sim:ok", arguments(Behaviour("ok", 1)))
        self.witness.began(order, worker="w", incarnation=1, now=began)

    def accused_at(self, until: float, *, hear: bool = False) -> float:
        """Look on until something is accused; return when, or infinity."""
        now = 0.0
        while now < until:
            if hear:
                self.records.hear("w", now)
            if list(self.overdue.look(now)):
                return now
            now += LOOK_SECONDS
        return float("inf")


def test_a_lease_outlives_the_silence_of_its_holder() -> None:
    assert 10.0 < Around().accused_at(60.0) <= 10.0 + LATE_SECONDS + LOOK_SECONDS


def test_a_lease_may_outlive_it_where_nobody_can_judge() -> None:
    around = Around()
    around.works = False
    assert around.accused_at(60.0) == float("inf")


def test_what_is_not_held_is_not_late() -> None:
    around = Around()
    around.records.rows[task(1)] = replace(HELD, lease=Lease.LAPSED, state=State.QUEUED)
    assert around.accused_at(60.0) == float("inf")


def test_who_is_heard_keeps_its_lease() -> None:
    assert Around().accused_at(60.0, hear=True) == float("inf")


@pytest.mark.parametrize("counted", [True, False])
def test_who_does_not_come_back_is_counted(counted: bool) -> None:
    around = Around()
    around.records.started_coordinator(1.0)
    around.records.outages["w"] = int(counted)
    at = around.accused_at(60.0)
    due = 10.0 if counted else 3.0
    assert 1.0 + due < at <= 1.0 + due + LATE_SECONDS + LOOK_SECONDS


def test_what_runs_has_to_be_told() -> None:
    around = Around()
    around.run(20.0)
    at = around.accused_at(60.0, hear=True)
    assert 20.0 + TOLD_SECONDS < at <= 20.0 + TOLD_SECONDS + 2 * LOOK_SECONDS


def test_what_runs_is_told_later_where_something_is_in_the_way() -> None:
    around = Around()
    around.run(20.0)
    around.line = None
    assert around.accused_at(60.0, hear=True) == float("inf")


def test_what_is_known_to_run_is_not_late() -> None:
    around = Around()
    around.run(20.0)
    around.records.rows[task(1)] = replace(HELD, phase=Phase.STARTED)
    assert around.accused_at(60.0, hear=True) == float("inf")
