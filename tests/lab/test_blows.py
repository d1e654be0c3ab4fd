"""The blows: a plan of one seed, whom they strike, which count, and what breaks the striker."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import NoCoordinatorError
from holdfast.lab import blows as room
from holdfast.lab.blows import Blow, Plan, Striker, is_at_work
from holdfast.lab.killtest import FULL
from holdfast.lab.witness import Run, WitnessReader

SOURCE = Path(room.__file__).parents[2]

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


# --- Which blows count ---------------------------------------------------------------------------


def run_of(*, begun: int, ended: int | None, task: str = "t", pid: int = 7) -> Run:
    return Run(task, 1, pid, 1, "", "", "", begun, ended)


@pytest.mark.parametrize(
    ("kind", "ended", "counts"),
    [
        ("child", None, True),
        ("child", 29, False),
        ("child", 31, False),
        ("worker", None, True),
        ("worker", 29, False),
        ("worker", 31, True),
        ("coordinator", 29, False),
        ("coordinator", 31, True),
    ],
)
def test_a_blow_counts_where_its_target_was_at_work(
    kind: str, ended: int | None, *, counts: bool
) -> None:
    blow = Blow(kind, "", 30, frozenset({7}), target=run_of(begun=10, ended=None))
    assert is_at_work(blow, [run_of(begun=10, ended=ended)]) is counts


def test_what_broke_off_long_ago_is_not_at_work() -> None:
    """Of a run without an end nobody knows how long it lasted, unless it is the target."""
    broken_off = run_of(begun=5, ended=None, task="broken off")
    blow = Blow("coordinator", "", 30, frozenset(), target=run_of(begun=10, ended=None))
    assert not is_at_work(blow, [broken_off, run_of(begun=10, ended=20)])
    assert not is_at_work(Blow("coordinator", "", 30, frozenset()), [broken_off])


# --- The striker ---------------------------------------------------------------------------------

RUN = """
    import sys
    from holdfast.lab.witness import Witness
    with Witness(sys.argv[1]).running(sys.argv[2], 1):
        sys.stdin.read()
"""


class Fleet:
    """Stands for a `Cluster` of one worker. Its tasks are real processes, children of this one."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness
        self.said: list[str] = []
        self.running: list[subprocess.Popen[bytes]] = []
        self.all: list[subprocess.Popen[bytes]] = []
        self.too_late = 0
        """So many tasks end in the moment between the look and the blow."""
        self.broken = False

    def run(self) -> None:
        """Begin a task."""
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RUN), self.witness, f"t{len(self.all)}"],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        self.all.append(process)
        self.running.append(process)
        begun = len(self.all)
        WitnessReader(self.witness).wait_until(
            "the task has begun", lambda seen: len(seen.runs()) == begun
        )

    def end(self) -> None:
        """Let the oldest task end by itself."""
        process = self.running.pop(0)
        process.communicate()

    def close(self) -> None:
        for process in self.all:
            process.kill()
            process.communicate()

    # What the striker asks of a cluster.

    def worker_of(self, pid: int) -> str:
        return "w" if any(process.pid == pid for process in self.running) else ""

    def worker_pid(self, name: str) -> int:
        if self.too_late:
            self.too_late -= 1
            self.end()
        return os.getpid()

    def kill_worker(self, name: str) -> int:
        self.said.append("kill worker")
        for process in self.running:
            process.kill()
            process.wait()
        self.running.clear()
        return 1

    def start_worker(self, name: str) -> None:
        self.said.append("start worker")
        self.run()

    def kill_coordinator(self) -> int:
        self.said.append("kill coordinator")
        return 1

    def start_coordinator(self) -> None:
        if self.broken:
            raise NoCoordinatorError("it does not start")
        self.said.append("start coordinator")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "witness")
    yield fleet
    fleet.close()


def striker(fleet: Fleet, **plan: int) -> Striker:
    counts = {"children": 0, "workers": 0, "coordinators": 0} | plan

    def tell(blow: Blow, hit: bool) -> None:
        fleet.said.append(f"{'struck' if hit else 'missed'} {blow.kind}")

    return Striker(
        fleet,  # type: ignore[arg-type]  # a stand-in
        WitnessReader(fleet.witness),
        Plan(seconds=0, **counts),
        seed=1,
        spared=frozenset({"spared"}),
        tell=tell,
    )


def await_end(striking: Striker) -> None:
    deadline = time.monotonic() + 20
    while striking.strikes:
        assert time.monotonic() < deadline, "the striker does not end"
        time.sleep(0.01)


def test_a_child_is_gone_before_its_blow_is_judged(fleet: Fleet) -> None:
    fleet.run()
    with striker(fleet, children=1) as striking:
        await_end(striking)
    assert fleet.said == ["struck child"]
    assert fleet.all[0].wait(0) == -9
    (blow,) = striking.blows
    assert blow.pids == {fleet.all[0].pid}
    assert blow.target is not None
    assert blow.target.task == "t0"


def test_a_worker_that_was_missed_is_back_before_the_next_blow(fleet: Fleet) -> None:
    fleet.run()
    fleet.too_late = 1
    with striker(fleet, workers=1) as striking:
        await_end(striking)
    assert fleet.said == [
        *("kill worker", "missed worker", "start worker"),
        *("kill worker", "struck worker", "start worker"),
    ]
    assert [blow.kind for blow in striking.blows] == ["worker", "worker"]


def test_a_coordinator_is_struck_while_a_task_runs(fleet: Fleet) -> None:
    with striker(fleet, coordinators=1) as striking:
        assert fleet.said == []
        fleet.run()
        await_end(striking)
    assert fleet.said == ["kill coordinator", "struck coordinator", "start coordinator"]


@pytest.mark.parametrize(("apart_ns", "times"), [(room.PAIR_NS_MAX * 100, 1), (-1, 3)])
def test_a_pair_that_was_drawn_apart_falls_again(
    apart_ns: int, times: int, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PAIR_NS_MAX", apart_ns)
    for _ in range(times + 1):
        fleet.run()
    striking = striker(fleet)
    striking._strike(("child", "coordinator"))
    assert [blow.kind for blow in striking.blows] == ["child", "coordinator"] * times


def test_what_a_spared_worker_runs_is_no_reason(fleet: Fleet) -> None:
    fleet.run()
    looked = threading.Event()

    def worker_of(pid: int) -> str:
        looked.set()
        return "spared"

    fleet.worker_of = worker_of  # type: ignore[method-assign]  # of this test alone
    with striker(fleet, coordinators=1):
        assert looked.wait(10)
    with striker(fleet, children=1):
        looked.clear()
        assert looked.wait(10)
    assert fleet.said == []


def test_who_leaves_early_does_not_wait_for_blows(fleet: Fleet) -> None:
    begun = time.monotonic()
    with striker(fleet, children=1, workers=1, coordinators=1):
        pass
    assert time.monotonic() - begun < room.BUSY_SECONDS / 4
    assert fleet.said == []


def fight(fleet: Fleet, error: BaseException | None = None) -> None:
    """Strike a coordinator that does not come back, and leave the block with an error."""
    fleet.run()
    fleet.broken = True
    with striker(fleet, coordinators=1) as striking:
        await_end(striking)
        if error is not None:
            raise error
        striking.check()


def test_what_broke_the_striker_explains_what_broke_the_block(fleet: Fleet) -> None:
    closed = ConnectionError("the client was closed")
    with pytest.raises(NoCoordinatorError, match="does not start") as raised:
        fight(fleet, closed)
    assert raised.value.__cause__ is closed


def test_what_broke_the_striker_is_there_for_who_waits(fleet: Fleet) -> None:
    with pytest.raises(NoCoordinatorError) as raised:
        fight(fleet)
    assert raised.value.__cause__ is None


def test_an_interrupt_stays_one(fleet: Fleet) -> None:
    with pytest.raises(KeyboardInterrupt):
        fight(fleet, KeyboardInterrupt())
