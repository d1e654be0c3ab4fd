"""The coordinator's disk with its faults: what fails, what is durable all the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from holdfast.errors import StoreDoubtError, StoreFullError, StoreRefusedError
from holdfast.lab.sim.coverage import CrashPoints, Point, missing, table
from holdfast.lab.sim.loop import Party, SimCrash, SimLoop
from holdfast.lab.sim.storage import DiskState, FaultyStore, SimRoom, kinds_of
from holdfast.lab.sim.witness import Behaviour, arguments
from holdfast.model.ids import TaskId, Token
from holdfast.model.outcome import Encoding, Payload
from holdfast.model.task import Lease, Life, Phase, Spec, State, Task
from holdfast.observe import TaskSet, logger
from holdfast.ports import Changes, Receipt, Update
from holdfast.stores.connections import memory_disk
from holdfast.stores.sqlite import SQLiteStore

ID = TaskId(bytes.fromhex("018bcfe565727000800000000000000a"))
SPEC = Spec(ID, "sim:ok", arguments(Behaviour("ok", 1)), 1)
INSERT = Changes(turn=1, inserts=[Task(SPEC, Life())])


class Cellar:
    """A store on a disk that can fail."""

    def __init__(self) -> None:
        self.loop = SimLoop(steps_max=10_000, real_seconds_max=20.0)
        self.party = Party("coordinator", "coordinator")
        self.disk = DiskState()
        self.database = memory_disk()
        self.points = CrashPoints(self._die)
        self.seen: list[str] = []
        self.store = self.open_store(self.party)

    def open_store(self, party: Party) -> FaultyStore:
        return FaultyStore(
            SQLiteStore(self.database, inline=True, store_id="s"),
            self.disk,
            party,
            loop=self.loop,
            rng=random.Random(5),
            points=self.points,
            watch=self,
            kinds=kinds_of,
        )

    def _die(self, party: Party, point: Point) -> None:
        self.loop.kill(party)

    def deciding(self) -> None:
        self.seen.append("deciding")

    def committed(self, changes: Changes, receipt: Receipt) -> None:
        self.seen.append(f"turn {changes.turn}")


def play(scene: Callable[[Cellar], Coroutine[Any, Any, None]]) -> Cellar:
    cellar, tasks = Cellar(), TaskSet(logger("test"))
    ended: list[BaseException | None] = []

    async def whole() -> None:
        try:
            await scene(cellar)
        except (Exception, SimCrash) as error:
            ended.append(error)
        else:
            ended.append(None)

    cellar.loop.call_soon(tasks.start, "scene", whole(), context=cellar.loop.world)
    assert cellar.loop.run_until(lambda: bool(ended), deadline=1000.0)
    cellar.loop.close()
    cellar.database.close()
    if ended[0] is not None:
        raise ended[0]
    return cellar


def test_a_commit_takes_time_and_is_seen_when_it_is_durable() -> None:
    async def scene(cellar: Cellar) -> None:
        await cellar.store.open()
        began = cellar.loop.time()
        await cellar.store.commit(INSERT)
        assert cellar.loop.time() > began
        assert [task.spec.id for task in await cellar.store.load([ID])] == [ID]

    assert play(scene).seen == ["deciding", "turn 1"]


def test_a_full_disk_refuses_and_says_that_it_is_short() -> None:
    async def scene(cellar: Cellar) -> None:
        await cellar.store.open()
        room = SimRoom(cellar.disk, cellar.loop)
        cellar.disk.full_until = cellar.loop.time() + 10.0
        assert room.short()
        with pytest.raises(StoreFullError):
            await cellar.store.commit(INSERT)
        await asyncio.sleep(10.0)
        assert not room.short()
        await cellar.store.commit(INSERT)

    play(scene)


@pytest.mark.parametrize("happened", [False, True])
def test_a_doubt_lasts_until_the_store_is_opened_again(happened: bool) -> None:
    async def scene(cellar: Cellar) -> None:
        await cellar.store.open()
        if happened:
            cellar.disk.doubts_after = 1
        else:
            cellar.disk.doubts_before = 1
        with pytest.raises(StoreDoubtError):
            await cellar.store.commit(INSERT)
        with pytest.raises(StoreDoubtError):
            await cellar.store.load([ID])
        await cellar.store.close()
        await cellar.store.open()
        assert bool(await cellar.store.load([ID])) is happened
        assert (await cellar.store.last_turn() == 1) is happened

    assert ("turn 1" in play(scene).seen) is happened


def test_an_unreadable_disk_heals() -> None:
    async def scene(cellar: Cellar) -> None:
        cellar.disk.unreadable_until = 100.0
        with pytest.raises(StoreDoubtError):
            await cellar.store.open()
        cellar.disk.heal()
        await cellar.store.open()

    play(scene)


@pytest.mark.parametrize(("when", "durable"), [("before", False), ("after", True)])
def test_a_coordinator_dies_at_a_commit(when: str, durable: bool) -> None:
    async def scene(cellar: Cellar) -> None:
        await cellar.store.open()
        cellar.points.arm("coordinator", "commit insert", when, skip=0)
        with pytest.raises(SimCrash):
            await cellar.store.commit(INSERT)
        with pytest.raises(SimCrash):
            await cellar.store.load([ID])
        heir = cellar.open_store(Party("coordinator", "coordinator"))
        await heir.open()
        assert bool(await heir.load([ID])) is durable

    cellar = play(scene)
    assert cellar.points.crashed == {("coordinator", "commit insert", when): 1}


def test_a_poisonous_result_is_refused() -> None:
    async def scene(cellar: Cellar) -> None:
        await cellar.store.open()
        await cellar.store.commit(INSERT)
        result = Payload(Encoding.JSON, b'["poison"]')
        life = Life(version=2, state=State.SUCCEEDED, result=result)
        with pytest.raises(StoreRefusedError):
            await cellar.store.commit(Changes(turn=2, updates=[Update(Task(SPEC, life), 1)]))

    play(scene)


def test_commits_are_named_by_what_they_do() -> None:
    held = Life(state=State.RUNNING, fence=1, lease=Lease.HELD, phase=Phase.ASSIGNED)
    lapsed = Life(fence=1, lease=Lease.LAPSED)
    ended = Life(state=State.SUCCEEDED, fence=1, lease=Lease.SPENT)
    changes = Changes(
        turn=1,
        inserts=[Task(SPEC, held), Task(SPEC, Life())],
        updates=[
            Update(Task(SPEC, held), 1),
            Update(Task(SPEC, lapsed), 1),
            Update(Task(SPEC, ended), 1, Token(b"t")),
            Update(Task(SPEC, ended), 1),
        ],
        outages=["w"],
    )
    assert kinds_of(changes) == [
        "commit outage",
        "commit insert+claim",
        "commit insert",
        "commit claim",
        "commit lapse",
        "commit outcome",
        "commit wish",
    ]
    assert kinds_of(Changes(turn=1)) == ["commit other"]


def test_crash_points_are_counted_and_listed() -> None:
    deaths: list[Point] = []
    points = CrashPoints(lambda party, point: deaths.append(point))
    party = Party("worker-0", "worker")
    points.arm("worker-0", "Ended", "after", skip=1)
    points.touch(party, ["Started", "Ended"], "after")
    with pytest.raises(SimCrash):
        points.touch(party, ["Ended"], "after")
    points.touch(party, ["Ended"], "after")
    assert deaths == [("worker", "Ended", "after")]
    assert missing(points.passed, points.crashed) == [("worker", "Started", "after")]
    assert any("worker Ended" in line for line in table(points.passed, points.crashed))
    points.arm("worker-0", "Pull", "before", skip=0)
    assert points.disarm() == [("worker-0", "Pull", "before")]
