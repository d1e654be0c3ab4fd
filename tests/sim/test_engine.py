"""Simulated children: who has an order, what the witness sees, and what a death leaves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pytest

from holdfast.lab.sim.coverage import CrashPoints
from holdfast.lab.sim.disk import WorkerDisk
from holdfast.lab.sim.engine import LANE_ORDERS_MAX, SimEngine
from holdfast.lab.sim.loop import Party, SimCrash, SimLoop
from holdfast.lab.sim.witness import (
    Behaviour,
    Blobs,
    Witness,
    arguments,
    large_arguments,
    result_of,
)
from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import OutcomeKind
from holdfast.observe import TaskSet, logger
from holdfast.ports import LaneDeath, Order


class Bench:
    """An engine with one lane, and what it told."""

    def __init__(self) -> None:
        self.loop = SimLoop(steps_max=100_000, real_seconds_max=20.0)
        self.party = Party("worker-0", "worker")
        self.witness = Witness()
        self.disk = WorkerDisk("worker-0")
        self.handed: list[Order] = []
        self.engine = SimEngine(
            self.loop,
            self.party,
            self.disk,
            rng=random.Random(3),
            points=CrashPoints(lambda party, point: None),
            witness=self.witness,
            incarnation=1,
            handing=self.handed.append,
        )
        self.ends: list[tuple[Ended, str]] = []
        self.deaths: list[LaneDeath] = []
        self.falls: list[Sequence[tuple[int, LaneDeath]]] = []
        self.writable = 0
        self._tasks = TaskSet(logger("test"))
        opening = self.engine.open(self, lanes=1)
        self.loop.call_soon(self._tasks.start, "open", opening, context=self.party.context)
        self.wait(1.0)

    def attempt_ended(self, lane: int, ended: Ended, result_path: str) -> None:
        self.ends.append((ended, result_path))

    def lane_died(self, lane: int, death: LaneDeath) -> None:
        self.deaths.append(death)

    def all_died(self, deaths: Sequence[tuple[int, LaneDeath]]) -> None:
        self.falls.append(deaths)

    def lane_writable(self, lane: int) -> None:
        self.writable += 1

    def printed(self, lane: int, *, error: bool, data: bytes) -> None:
        raise AssertionError("simulated children print nothing")

    def wait(self, seconds: float) -> None:
        self.loop.run_until(lambda: False, deadline=self.loop.time() + seconds)

    def hand(self, number: int, do: str, ms: int = 100, *, lane: int = 0, times: int = 0) -> bool:
        return self.engine.hand(lane, order(number, Behaviour(do, ms, times)))


def order(number: int, behaviour: Behaviour, fence: int = 1) -> Order:
    return Order(task(number), token(number), fence, "sim:f", arguments(behaviour))


def task(number: int) -> TaskId:
    return TaskId(number.to_bytes(16, "big"))


def token(number: int) -> Token:
    return Token(number.to_bytes(16, "little"))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.loop.close()


def test_a_lane_runs_its_orders_one_after_another(bench: Bench) -> None:
    bench.hand(1, "ok")
    bench.hand(2, "ok")
    bench.wait(1.0)
    first, second = (bench.witness.runs[token(number)][0] for number in (1, 2))
    assert first.ended <= second.began
    assert [ended.kind for ended, _ in bench.ends] == [OutcomeKind.SUCCEEDED] * 2
    result = bench.ends[0][0].result
    assert result is not None
    assert result.data == result_of(task(1), 1, "ok")


def test_what_was_taken_back_did_not_run(bench: Bench) -> None:
    bench.hand(1, "ok")
    bench.wait(0.05)
    bench.hand(2, "ok")
    assert bench.engine.take_back(0) == [token(2)]
    bench.wait(1.0)
    assert bench.witness.ran(token(1))
    assert not bench.witness.ran(token(2))


def test_a_child_that_crashes_takes_only_what_it_had_begun(bench: Bench) -> None:
    bench.hand(1, "crash")
    bench.hand(2, "ok")
    bench.wait(1.0)
    (death,) = bench.deaths
    assert death.begun == (token(1),)
    assert death.untouched == (token(2),)
    assert not death.killed
    assert bench.witness.ended_so(token(1), "crashed")
    assert bench.hand(3, "ok")
    bench.wait(1.0)
    assert bench.witness.ended_so(token(3), "succeeded")


def test_a_child_dies_that_runs_something(bench: Bench) -> None:
    assert not bench.engine.fail(every=False)
    bench.hand(1, "ok", lane=1)
    bench.wait(0.05)
    assert bench.engine.fail(every=False)
    bench.wait(1.0)
    assert [death.begun for death in bench.deaths] == [(token(1),)]
    assert bench.witness.ended_so(token(1), "crashed")


def test_all_children_die_at_once(bench: Bench) -> None:
    bench.hand(1, "ok")
    bench.hand(2, "ok", lane=1)
    bench.wait(0.05)
    bench.hand(3, "ok")
    assert bench.engine.fail(every=True)
    bench.wait(1.0)
    (fall,) = bench.falls
    assert [(lane, death.begun, death.untouched) for lane, death in fall] == [
        (0, (token(1),), (token(3),)),
        (1, (token(2),), ()),
    ]
    assert not bench.deaths
    bench.hand(4, "ok")
    bench.wait(1.0)
    assert bench.witness.ended_so(token(4), "succeeded")


def test_memory_runs_out_for_the_first_attempts_only(bench: Bench) -> None:
    bench.hand(1, "out_of_memory", times=1)
    bench.wait(1.0)
    assert bench.deaths[0].out_of_memory
    bench.engine.hand(0, order(2, Behaviour("out_of_memory", 5, 1), fence=2))
    bench.wait(1.0)
    assert bench.witness.ended_so(token(2), "succeeded")


def test_an_interrupt_ends_user_code_unless_it_is_stubborn(bench: Bench) -> None:
    bench.hand(1, "forever")
    bench.wait(1.0)
    bench.engine.interrupt(0, token(1))
    bench.wait(1.0)
    assert bench.witness.ended_so(token(1), "interrupted")
    assert bench.ends[0][0].kind is OutcomeKind.RAISED
    bench.hand(2, "stubborn")
    bench.wait(1.0)
    bench.engine.interrupt(0, token(2))
    bench.wait(1.0)
    assert bench.witness.runs[token(2)][0].ended < 0
    bench.engine.kill(0)
    bench.wait(1.0)
    assert bench.witness.ended_so(token(2), "killed")
    assert bench.deaths[0].killed


def test_the_last_lane_runs_many_together(bench: Bench) -> None:
    for number in range(1, 6):
        bench.hand(number, "ok", lane=1)
    bench.wait(0.15)
    assert len(bench.ends) == 5


def test_a_big_result_goes_to_a_file(bench: Bench) -> None:
    bench.hand(1, "big")
    bench.wait(1.0)
    ended, path = bench.ends[0]
    assert ended.result is None
    assert bench.disk.files[path] == result_of(task(1), 1, "big")


def test_a_full_lane_says_no_and_then_that_it_has_room(bench: Bench) -> None:
    bench.hand(0, "forever")
    bench.wait(0.1)
    taken = [bench.hand(number, "ok", 1) for number in range(1, LANE_ORDERS_MAX + 2)]
    assert taken.count(False) == 1
    bench.engine.interrupt(0, token(0))
    bench.wait(1.0)
    assert bench.writable == 1


def test_a_dead_worker_hears_nothing_and_its_children_go_on(bench: Bench) -> None:
    bench.hand(1, "ok")
    bench.wait(0.05)
    bench.loop.kill(bench.party)
    bench.wait(1.0)
    assert bench.witness.ended_so(token(1), "succeeded")
    assert not bench.ends
    ports: list[Callable[[], object]] = [
        lambda: bench.hand(2, "ok"),
        lambda: bench.engine.take_back(0),
        lambda: bench.engine.kill(0),
        lambda: bench.engine.interrupt(0, token(1)),
    ]
    for port in ports:
        with pytest.raises(SimCrash):
            port()


def large(bench: Bench, number: int) -> Order:
    blobs: Blobs = {}
    payload = large_arguments(Behaviour("ok", 100), blobs)
    path = f"payloads/{number}"
    bench.disk.files[path] = blobs[payload.digest]
    return Order(task(number), token(number), 1, "sim:f", payload, path)


def test_a_child_reads_its_large_arguments(bench: Bench) -> None:
    bench.engine.hand(0, large(bench, 1))
    bench.wait(1.0)
    assert bench.witness.ended_so(token(1), "succeeded")
    assert not bench.witness.robbed


@pytest.mark.parametrize("begun", [False, True])
def test_a_child_whose_large_arguments_were_removed_is_robbed(begun: bool, bench: Bench) -> None:
    order = large(bench, 1)
    bench.engine.hand(0, order)
    if begun:
        bench.wait(0.05)
    del bench.disk.files[order.payload_path]
    bench.wait(1.0)
    assert [run.token for run in bench.witness.robbed][:1] == [token(1)]
