"""The judge of the kill test sees each planted offence, and excuses what a blow explains."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import pytest

from holdfast.lab.blows import Blow, Plan
from holdfast.lab.judgement import Case, Findings, Verdict, judge
from holdfast.lab.killtest import report
from holdfast.lab.witness import Record, Run, WitnessReader
from holdfast.lab.workloads.marking import answer

MS = 1_000_000
BOOT = "boot"
NURSERY = 50
SUCCEEDED, FAILED = 3, 4
SPENT, HELD = 3, 1

COLUMNS = "id, state, fence, token, lease, result_encoding, result, claimed_ms"


def task_id(number: int) -> str:
    return str(UUID(int=number + 1))


@dataclass
class World:
    """A history by hand: rows of a store, records of a witness, blows, and what was told."""

    folder: Path
    rows: dict[str, list[object]] = field(default_factory=dict)
    former: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    results: dict[str, object] = field(default_factory=dict)
    long_lived: set[str] = field(default_factory=set)
    plan: Plan = field(
        default_factory=lambda: Plan(seconds=1, children=0, workers=0, coordinators=0)
    )

    def run(
        self, number: int, fence: int = 1, *, pid: int = 100, begin: int = 10, end: int = 20
    ) -> None:
        """Witness a run; times in milliseconds, `end` 0 where it broke off."""
        for kind, at in (("begin", begin), ("end", end)):
            if at:
                self.records.append(
                    Record(kind, task_id(number), fence, pid, 1, BOOT, "", at * MS, str(NURSERY))
                )

    def row(self, number: int, *, fence: int = 1, **changes: object) -> None:
        """Keep an acknowledged task that succeeded in this attempt."""
        task = task_id(number)
        kept = [answer(number), fence]
        columns: dict[str, object] = {
            "id": UUID(task).bytes,
            "state": SUCCEEDED,
            "fence": fence,
            "token": b"%d.%d" % (number, fence),
            "lease": SPENT,
            "result_encoding": 1,
            "result": json.dumps(kept).encode(),
            "claimed_ms": 0,
        }
        self.rows[task] = list((columns | changes).values())
        self.numbers[task] = number
        self.results[task] = kept

    def once(self, number: int, **times: int) -> None:
        """Let a task run once and succeed."""
        self.run(number, **times)
        self.row(number)

    def twice(self, number: int = 0, *, pid: int = 100) -> None:
        """Let a first attempt break off in `pid`, and a second succeed in another process."""
        self.run(number, 1, pid=pid, begin=10, end=0)
        self.run(number, 2, pid=pid + 1, begin=40, end=50)
        self.row(number, fence=2)
        self.former.append((UUID(task_id(number)).bytes, 1, b"%d.1" % number))

    def judged(self) -> Findings:
        database = self.folder / "store.db"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(f"CREATE TABLE tasks ({COLUMNS})")
            connection.execute("CREATE TABLE attempts (task, fence, token)")
            connection.executemany("INSERT INTO tasks VALUES (?,?,?,?,?,?,?,?)", self.rows.values())
            connection.executemany("INSERT INTO attempts VALUES (?,?,?)", self.former)
        witness = self.folder / "witness"
        witness.write_text("".join(f"{json.dumps(r._asdict())}\n" for r in self.records))
        case = Case(
            plan=self.plan,
            numbers=self.numbers,
            results=self.results,
            long_lived=frozenset(self.long_lived),
            tasks_min=1,
        )
        return judge(case, self.blows, database=database, witness=WitnessReader(witness))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def blow(kind: str, at: int, *pids: int, healed: int = 0, target: Run | None = None) -> Blow:
    return Blow(kind, "", at * MS, frozenset(pids), target, healed_ns=healed * MS)


def seen(number: int, *, begin: int, pid: int = 100) -> Run:
    """Return a first attempt as it was seen before a blow fell on it."""
    return Run(task_id(number), 1, pid, 1, BOOT, "", str(NURSERY), begin * MS, None)


def test_a_history_in_order_is_valid(world: World) -> None:
    world.once(0)
    world.once(1)
    found = world.judged()
    assert found.verdict is Verdict.VALID
    assert (found.tasks, found.runs, found.begun_twice) == (2, 2, 0)
    assert report(found).endswith("verdict: valid")


def test_a_task_that_is_not_kept_is_lost(world: World) -> None:
    world.once(0)
    del world.rows[task_id(0)]
    found = world.judged()
    assert found.verdict is Verdict.INVALID
    assert found.lost == [f"{task_id(0)}: not kept"]
    assert "lost: 1" in report(found)


def test_a_task_that_did_not_succeed_is_lost(world: World) -> None:
    world.run(0)
    world.row(0, state=FAILED)
    assert world.judged().lost == [f"{task_id(0)}: state 4"]


def test_a_task_that_nobody_submitted_is_unexpected(world: World) -> None:
    world.once(0)
    world.once(1)
    del world.numbers[task_id(1)]
    found = world.judged()
    assert found.verdict is Verdict.INVALID
    assert found.unexpected == [task_id(1)]


@pytest.mark.parametrize(
    "changes",
    [
        {"result": json.dumps([answer(1), 1]).encode()},
        {"result": json.dumps([answer(0), 2]).encode()},
        {"result_encoding": 2},
        {"lease": HELD},
    ],
    ids=["another answer", "another attempt", "another encoding", "a token that still writes"],
)
def test_a_result_that_is_not_of_the_accepted_attempt_is_wrong(
    world: World, changes: dict[str, object]
) -> None:
    world.run(0)
    world.row(0, **changes)
    found = world.judged()
    assert found.verdict is Verdict.INVALID
    assert len(found.wrong) == 1


def test_a_late_outcome_that_was_accepted_is_wrong(world: World) -> None:
    """Both attempts ran to their end, and the result is the first one's."""
    world.run(0, 1, pid=100, begin=10, end=60)
    world.run(0, 2, pid=101, begin=40, end=90)
    world.row(0, fence=2, result=json.dumps([answer(0), 1]).encode())
    world.blows = [blow("cut", 20, 100, healed=65)]
    found = world.judged()
    assert found.begun_twice_alive == []
    assert found.verdict is Verdict.INVALID
    assert "under fence 2" in found.wrong[0]


def test_a_result_that_was_told_otherwise_is_wrong(world: World) -> None:
    world.once(0)
    world.results[task_id(0)] = [answer(0), 7]
    assert "told" in world.judged().wrong[0]


def test_an_attempt_that_never_ended_cannot_be_accepted(world: World) -> None:
    world.run(0, end=0)
    world.row(0)
    assert "ended: []" in world.judged().wrong[0]


def test_a_token_is_given_once(world: World) -> None:
    world.once(0)
    world.run(1)
    world.row(1, token=b"0.1")
    assert world.judged().wrong == ["a token was given twice"]


def test_a_task_that_began_twice_although_its_process_lived(world: World) -> None:
    world.twice()
    found = world.judged()
    assert found.verdict is Verdict.INVALID
    assert found.begun_twice == len(found.begun_twice_alive) == 1


@pytest.mark.parametrize(
    ("excuse", "holds"),
    [
        (blow("child", 30, 100), True),
        (blow("worker", 30, NURSERY), True),
        (blow("cut", 30, 100, healed=60), True),
        (blow("child", 30, 101), False),
        (blow("child", 45, 100), False),
        (blow("coordinator", 30, 100), False),
    ],
    ids=["child", "worker", "cut", "another child", "too late", "a coordinator ends no run"],
)
def test_what_excuses_a_second_begin(world: World, excuse: Blow, *, holds: bool) -> None:
    world.twice()
    world.blows = [excuse]
    assert (world.judged().begun_twice_alive == []) is holds


def test_a_blow_does_not_excuse_what_had_long_been_delivered(world: World) -> None:
    world.run(0, 1, begin=10, end=20)
    world.run(0, 2, pid=101, begin=9_000, end=9_010)
    world.row(0, fence=2)
    world.blows = [blow("child", 8_000, 100)]
    assert len(world.judged().begun_twice_alive) == 1


def test_one_attempt_that_began_twice_has_no_excuse(world: World) -> None:
    world.twice()
    world.run(0, 2, pid=102, begin=45, end=55)
    world.blows = [blow("child", 30, 100), blow("child", 42, 101)]
    assert world.judged().begun_twice_alive == [f"{task_id(0)}: fences [1, 2, 2]"]


def test_times_are_from_the_blow_to_the_next_begin(world: World) -> None:
    world.twice()
    world.once(1, begin=70, end=80)
    world.blows = [blow("child", 30, 100), blow("coordinator", 15, 9)]
    found = world.judged()
    assert found.begun_again_ms["child"] == [10.0]
    assert "p50 10" in report(replace(found, blows={"child": 1}))


def test_a_later_blow_on_the_same_nursery_broke_nothing_off_that_had_ended(world: World) -> None:
    world.twice()
    world.blows = [blow("worker", 300, NURSERY), blow("child", 30, 100)]
    found = world.judged()
    assert found.begun_again_ms == {"worker": [], "child": [10.0]}


@pytest.mark.parametrize("short", ["children", "workers", "coordinators", "pairs", "cuts"])
def test_too_few_blows_prove_nothing(world: World, short: str) -> None:
    world.once(0)
    world.plan = replace(world.plan, **{short: 1})
    found = world.judged()
    assert found.verdict is Verdict.UNKNOWN
    assert found.unproven


def test_a_blow_counts_where_the_witness_shows_work(world: World) -> None:
    world.twice()
    world.once(1, pid=105, begin=5, end=70)
    world.once(2, pid=106, begin=5, end=8)
    world.plan = Plan(seconds=1, children=1, workers=0, coordinators=1, pairs=1)
    world.blows = [
        blow("child", 30, 100, target=seen(0, begin=10)),
        blow("child", 31, 106, target=seen(2, begin=5, pid=106)),
        blow("coordinator", 35, 9, target=seen(1, begin=5, pid=105)),
    ]
    found = world.judged()
    assert found.blows == {"child": 1, "worker": 0, "coordinator": 1, "cut": 0}
    assert found.pairs == 1
    assert found.verdict is Verdict.VALID


def test_long_tasks_have_to_live_through_every_blow_to_a_coordinator(world: World) -> None:
    world.once(0, begin=10, end=100)
    world.once(1, begin=10, end=40)
    world.long_lived = {task_id(0), task_id(1)}
    world.blows = [blow("coordinator", 20, 9), blow("coordinator", 50, 9)]
    found = world.judged()
    assert found.unproven == [f"{task_id(1)} did not live through every blow to a coordinator"]


def test_a_damaged_witness_proves_nothing(world: World) -> None:
    world.once(0)
    world.records.append(world.records[-1])
    found = world.judged()
    assert found.verdict is Verdict.UNKNOWN
    assert "not shown: the witness file is damaged" in report(found)


def test_too_few_tasks_prove_nothing(world: World) -> None:
    found = world.judged()
    assert found.unproven == ["0 tasks, not 1"]


def test_a_cut_without_a_late_outcome_proves_nothing(world: World) -> None:
    world.once(0, begin=10, end=40)
    world.plan = replace(world.plan, cuts=1)
    world.blows = [blow("cut", 20, 100, healed=50, target=seen(0, begin=10))]
    assert world.judged().unproven == ["no outcome came late"]


def test_a_long_task_that_broke_off_is_judged_as_lost(world: World) -> None:
    world.run(0, end=0)
    world.row(0, state=HELD)
    world.long_lived = {task_id(0)}
    found = world.judged()
    assert found.unproven == []
    assert found.verdict is Verdict.INVALID
