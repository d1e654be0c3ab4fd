"""One run from one seed: the world is built, lives, heals, settles, and is judged.

Owns the order of a run and its final judgement. A run that spins or errs is judged like any other:
what could not be checked is unknown, never valid.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast.lab.sim.coverage import CrashPoints, Point
from holdfast.lab.sim.hearing import Hearing
from holdfast.lab.sim.history import History
from holdfast.lab.sim.hosts import STORE_ID, ClientHost, CoordinatorHost, WorkerHost
from holdfast.lab.sim.judge import Judge
from holdfast.lab.sim.loop import OutOfTimeError, Party, SimCrash, SimLoop, SpinError
from holdfast.lab.sim.misfortunes import COUNTED, FaultKind
from holdfast.lab.sim.nemesis import Nemesis
from holdfast.lab.sim.network import End, Network
from holdfast.lab.sim.overdue import LOOK_SECONDS, Overdue
from holdfast.lab.sim.plan import Plan, draw, stream
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.sessions import Sessions
from holdfast.lab.sim.stage import Stage
from holdfast.lab.sim.witness import Blobs, Witness
from holdfast.model.task import TERMINAL_MIN, Lease, Task
from holdfast.model.words import Word
from holdfast.stores.sqlite import SQLiteStore

T = TypeVar("T")

STEPS_MAX = 3_000_000
REAL_SECONDS_MAX = 60.0
SETTLE_SECONDS = 240.0
"""Virtual seconds after the healing within which everything must be settled, beside the time
that the tasks themselves take."""
QUIET_SECONDS = 20.0
"""After that, children of leases that are over must have been stopped."""


class Verdict(Word):
    """What a run shows; the numbers are exit codes."""

    VALID = 0
    INVALID = 1
    UNKNOWN = 2


@dataclass(slots=True)
class Report:
    """The result of one run."""

    seed: int
    verdict: Verdict
    digest: str
    violations: list[str]
    faults: dict[FaultKind, int]
    passed: dict[Point, int]
    crashed: dict[Point, int]
    tasks: int
    runs: int
    seconds: float
    steps: int
    history: list[str] = field(default_factory=list)

    @property
    def counted_faults(self) -> int:
        """How many faults met somebody, delays and orderly departures not counted."""
        return sum(self.faults[kind] for kind in COUNTED)


def run(seed: int, *, keep: bool = False, faults_max: int | None = None) -> Report:
    """Live through one seed and judge it; `keep` the lines of its history."""
    return SimWorld(draw(seed, faults_max=faults_max), keep=keep).run()


class SimWorld:
    """The world of one run."""

    def __init__(self, plan: Plan, *, keep: bool) -> None:
        self._plan = plan
        loop = SimLoop(steps_max=STEPS_MAX, real_seconds_max=REAL_SECONDS_MAX)
        records, witness = Records(), Witness()
        blobs: Blobs = {}
        history = History(loop, keep=keep)
        points = CrashPoints(self._reached)
        sessions = Sessions(lease_seconds=plan.lease_seconds, now=loop.time)
        self._hearing = Hearing(records, sessions, history, loop.time)
        net = Network(loop, stream(plan.seed, "network"), points, self._hearing)
        self._stage = stage = Stage(
            plan,
            loop,
            net,
            points,
            history=history,
            records=records,
            sessions=sessions,
            witness=witness,
        )
        judge = Judge(
            records,
            sessions,
            witness,
            history,
            blobs,
            self,
            lease_seconds=plan.lease_seconds,
            now=loop.time,
        )
        self._overdue = Overdue(records, witness, self, lease_seconds=plan.lease_seconds)
        self._coordinator = CoordinatorHost(stage, judge)
        self._workers = {
            worker.name: WorkerHost(stage, worker, blobs, self._coordinator)
            for worker in plan.workers
        }
        numbers = range(plan.clients)
        clients = (ClientHost(stage, number, self._hearing, blobs) for number in numbers)
        self._clients = {client.name: client for client in clients}
        self._nemesis = Nemesis(stage, self._coordinator, self._workers, self._clients)

    # What the judge may ask.

    def spooled(self, worker: str) -> Collection[bytes]:
        """See `judge.Outside`."""
        return self._workers[worker].disk.spooled

    def latest_wall_ms(self) -> int:
        """See `judge.Outside`."""
        return self._coordinator.time.latest_ms(self._stage.loop.time())

    def coordinator_works(self) -> bool:
        """See `overdue.Surroundings`."""
        return self._coordinator.works

    def line_of(self, worker: str) -> End | None:
        """See `overdue.Surroundings`."""
        stage, party = self._stage, self._workers[worker].party
        if party is None or party.dead or party.stalled or not stage.sessions.is_welcome(party):
            return None
        end = stage.sessions.welcome_of(worker)
        return end if end is not None and stage.net.is_clear(end) else None

    # Life.

    def _look(self) -> None:
        stage = self._stage
        now, name_of = stage.loop.time(), stage.history.name_of
        for task, wrong in self._overdue.look(now):
            stage.records.blame(f"{now:.3f} {name_of(task)}: {wrong}")
        stage.loop.later(LOOK_SECONDS, self._look)

    def _reached(self, party: Party, point: Point) -> None:
        self._nemesis.reached(party, point)

    def run(self) -> Report:
        """Live through it all, and judge."""
        stage = self._stage
        unknown = ""
        with overheard(stage.records):
            try:
                self._live()
            except SpinError as error:
                stage.records.blame(f"{stage.loop.time():.3f} {error}")
            except OutOfTimeError as error:
                unknown = str(error)
            else:
                self._judge_end()
            seconds = stage.loop.time()
            self._close()
        for problem in stage.loop.problems:
            stage.records.blame(f"nobody caught: {problem}")
        return self._report(unknown, seconds)

    def _live(self) -> None:
        loop, plan = self._stage.loop, self._plan
        loop.call_soon(self._begin, context=loop.world)
        loop.run_until(lambda: False, deadline=plan.heal_at)
        settled_by = plan.heal_at + SETTLE_SECONDS + plan.work_seconds
        if not loop.run_until(self._settled, deadline=settled_by):
            self._blame_the_stuck()
        loop.run_until(lambda: False, deadline=loop.time() + QUIET_SECONDS)

    def _begin(self) -> None:
        self._coordinator.start()
        for worker in self._workers.values():
            worker.start()
        for client in self._clients.values():
            client.start()
        self._nemesis.start()
        self._look()

    def _settled(self) -> bool:
        asked = self._hearing.submissions == len(self._plan.submissions)
        at_rest = asked and all(client.notes.at_rest for client in self._clients.values())
        return at_rest and not self._hearing.in_the_dark()

    # The end.

    def _blame_the_stuck(self) -> None:
        records, name_of = self._stage.records, self._stage.history.name_of
        for name, client in self._clients.items():
            for task in client.notes.waits_for:
                life = records.rows.get(task)
                where = "not kept" if life is None else f"{life.state.text} {life.phase.text}"
                records.blame(f"{name} waits for {name_of(task)} for ever: {where}")
        for task in self._hearing.in_the_dark():
            records.blame(f"{name_of(task)}, whose client died, goes on for ever")
        if not records.violations:
            records.blame("a wish was never answered")

    def _judge_end(self) -> None:
        """Hold the database against what was acknowledged, committed and witnessed."""
        records, hearing = self._stage.records, self._hearing
        name_of = self._stage.history.name_of
        rows = {task.spec.id: task for task in self._database_rows()}
        for given, holder in hearing.accepted_ids.items():
            if holder not in rows:
                records.blame(f"{name_of(given)} was acknowledged, and is lost")
        for task_id, life in records.rows.items():
            row = rows.get(task_id)
            if row is None or row.life != life:
                records.blame(f"{name_of(task_id)} is not in the database as it was committed")
            if life.state < TERMINAL_MIN:
                records.blame(f"{name_of(task_id)} is {life.state.text} at the end")
            told = hearing.told.get(task_id)
            if told is not None and (told.state, told.result) != (life.state, life.result):
                records.blame(f"{name_of(task_id)} ended otherwise than a client was told")
        for task_id in rows:
            if task_id not in records.rows:
                records.blame(f"{name_of(task_id)} is in the database, and was never committed")
        for run in self._stage.witness.robbed:
            records.blame(f"run {run.fence} of {name_of(run.task)} did not find its arguments")
        self._blame_runaways()

    def _database_rows(self) -> list[Task]:
        store = SQLiteStore(self._coordinator.database, inline=True, store_id=STORE_ID)
        ids = list(dict.fromkeys([*self._stage.records.rows, *self._hearing.accepted_ids]))

        async def read() -> list[Task]:
            await store.open()
            try:
                return await store.load(ids)
            finally:
                await store.close()

        return at_once(read())

    def _blame_runaways(self) -> None:
        """No child of a living worker may still run for a lease that is over."""
        records = self._stage.records
        for runs in self._stage.witness.runs.values():
            for each in runs:
                life = records.rows.get(each.task)
                alive = (each.worker, each.incarnation) not in records.died
                held = life is not None and life.token == each.token and life.lease is Lease.HELD
                if each.ended < 0 and alive and not held:
                    name = self._stage.history.name_of(each.task)
                    records.blame(f"run {each.fence} of {name} on {each.worker} was never stopped")

    def _close(self) -> None:
        stage = self._stage
        stage.over = True
        hosts: list[CoordinatorHost | WorkerHost | ClientHost] = [self._coordinator]
        for host in [*hosts, *self._workers.values(), *self._clients.values()]:
            if host.party is not None:
                stage.loop.kill(host.party)
        stage.loop.run_until(lambda: True, deadline=stage.loop.time())
        stage.loop.close()
        self._coordinator.close()

    def _report(self, unknown: str, seconds: float) -> Report:
        stage = self._stage
        violations = list(stage.records.violations)
        verdict = Verdict.INVALID if violations else Verdict.VALID
        if unknown:
            verdict = Verdict.INVALID if violations else Verdict.UNKNOWN
            violations.append(unknown)
        return Report(
            seed=self._plan.seed,
            verdict=verdict,
            digest=stage.history.digest(),
            violations=violations,
            faults=dict(self._nemesis.counts),
            passed=dict(stage.points.passed),
            crashed=dict(stage.points.crashed),
            tasks=len(stage.records.rows),
            runs=sum(map(len, stage.witness.runs.values())),
            seconds=seconds,
            steps=stage.loop.steps,
            history=stage.history.lines,
        )


class _Overheard(logging.Handler):
    """Takes errors of the product's own making out of its log."""

    def __init__(self, records: Records) -> None:
        super().__init__(logging.ERROR)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        """Note an exception that a task of the product ended with."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, SimCrash):
            self._records.blame(f"the product logged: {record.getMessage()}: {error!r}")


@contextmanager
def overheard(records: Records) -> Iterator[None]:
    """Listen to the product's log instead of showing it."""
    log = logging.getLogger("holdfast")
    handler = _Overheard(records)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise RuntimeError("it waits for something")
