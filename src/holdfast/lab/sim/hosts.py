"""Hosts: where the real coordinator, the real workers and clients live, die, and start again.

Owns the life of each process and what outlives it on its host: clock, disk, guard. It builds the
product's own shells over simulated ports, and nothing else of the product.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable

from holdfast.coordinator.asking import Questions
from holdfast.coordinator.facts import Death
from holdfast.coordinator.gateway import Gateway
from holdfast.coordinator.kin import GUARD_SECONDS
from holdfast.coordinator.service import Coordinator
from holdfast.core.peer import Offer
from holdfast.errors import StoreDoubtError, StoreFullError
from holdfast.lab.sim.client import SimClient, Told
from holdfast.lab.sim.clock import HostTime, SimClock
from holdfast.lab.sim.disk import SimFiles, SimHome, SimSpool, WorkerDisk
from holdfast.lab.sim.engine import SimEngine
from holdfast.lab.sim.guard import KILL_SECONDS, SimGuard
from holdfast.lab.sim.loop import Party, SimCrash
from holdfast.lab.sim.misfortunes import COORDINATOR
from holdfast.lab.sim.network import End, SimDialer
from holdfast.lab.sim.notes import Notes
from holdfast.lab.sim.plan import WorkerPlan, stream
from holdfast.lab.sim.stage import Stage
from holdfast.lab.sim.storage import DiskState, FaultyStore, SimRoom, StoreWatch, kinds_of
from holdfast.lab.sim.witness import Blobs, bytes_of
from holdfast.model.messages import WorkerHello
from holdfast.observe import Counters, TaskSet, logger
from holdfast.ports import Order
from holdfast.stores.connections import memory_disk
from holdfast.stores.reader import SQLiteReader
from holdfast.stores.sqlite import SQLiteStore
from holdfast.worker.agent import Agent, World

STORE_ID = "simulated"
SPAWN_SECONDS = 0.05
"""How long a supervisor takes to start a process again that ended by itself."""
MEND_SECONDS = 5.0
"""How long it takes after an error of ours, which would come again at once."""
DRAIN_SECONDS = 1.0
INSIST_SECONDS = 1.0
"""How long after the healing a client that died says its wishes again: nothing is late by then."""


class CoordinatorHost:
    """The host of the coordinator: its database, its disk's faults, and one process at a time."""

    def __init__(self, stage: Stage, watch: StoreWatch) -> None:
        self._stage = stage
        self._watch = watch
        self._lives = 0
        self.time = HostTime(stage.stream("coordinator host"))
        self.disk = DiskState()
        self.database: sqlite3.Connection = memory_disk()
        self.party: Party | None = None
        self._gateway: Gateway | None = None
        self._sessions: TaskSet | None = None
        self._ready: asyncio.Event | None = None
        self.kin: SimKin | None = None

    def start(self) -> None:
        """Start a process."""
        stage = self._stage
        self._lives += 1
        self.party = party = Party(COORDINATOR, "coordinator")
        stage.records.started_coordinator(stage.loop.time())
        stage.sessions.coordinator_started()
        stage.history.add(COORDINATOR, f"starts, life {self._lives}")
        party.run(self._build, party)

    def _build(self, party: Party) -> None:
        stage, rng = self._stage, stream(self._stage.plan.seed, f"coordinator {self._lives}")
        store = FaultyStore(
            SQLiteStore(self.database, inline=True, store_id=STORE_ID),
            self.disk,
            party,
            loop=stage.loop,
            rng=rng,
            points=stage.points,
            watch=self._watch,
            kinds=kinds_of,
        )
        coordinator = Coordinator(
            store=store,
            clock=SimClock(stage.loop, self.time, party),
            rng=rng,
            lease_seconds=stage.plan.lease_seconds,
            beat_seconds=stage.plan.beat_seconds,
            room=SimRoom(self.disk, stage.loop),
            counters=Counters(),
        )
        self._ready = coordinator.ready
        reader = SQLiteReader(self.database, inline=True)
        self.kin = SimKin(stage, party, lambda death: coordinator.post(None, death))
        questions = Questions(coordinator, reader)
        self._gateway = Gateway(
            coordinator,
            questions,
            python="3.11",
            version="sim",
            kin=self.kin if stage.plan.one_host else None,
        )
        self._sessions = tasks = TaskSet(logger("sim"))
        heart = tasks.watched("coordinator", coordinator.run())
        heart.add_done_callback(self._ended, context=stage.loop.world)
        tasks.start("sweeper", self._gateway.sweep())
        stage.net.listen(party, self._accept)

    def _accept(self, far: End) -> None:
        assert self._gateway is not None
        assert self._sessions is not None
        self._sessions.start(f"session of {far.peer}", self._gateway.serve(far))

    def _ended(self, heart: asyncio.Task[None]) -> None:
        """The process ended by itself, and a supervisor restarts it.

        It may where its store fails before it serves anybody; later that is an error of ours.
        """
        error = None if heart.cancelled() else heart.exception()
        if self.party is None or self.party.dead or isinstance(error, SimCrash):
            return
        now, serves = self._stage.loop.time(), self._ready is not None and self._ready.is_set()
        self._stage.history.add(COORDINATOR, f"ends: {error!r}")
        if serves or not isinstance(error, StoreDoubtError | StoreFullError):
            self._stage.records.blame(f"{now:.3f} coordinator ended: {error!r}")
            self.crash(MEND_SECONDS)
        else:
            self.crash(SPAWN_SECONDS)

    def crash(self, seconds: float) -> bool:
        """Let the process die now, and start another one so much later; False where none lives."""
        party, stage = self.party, self._stage
        if party is None or party.dead:
            return False
        stage.history.add(COORDINATOR, "dies")
        stage.records.ended_coordinator(stage.loop.time())
        stage.loop.kill(party)
        stage.net.drop(party)
        stage.loop.later(seconds, self._again)
        return True

    def _again(self) -> None:
        if self.party is not None and self.party.dead and not self._stage.over:
            self.start()

    def stall(self, seconds: float) -> bool:
        """Freeze the process; False where none lives."""
        party, loop = self.party, self._stage.loop
        if party is None or party.dead:
            return False
        loop.stall(party, seconds)
        self._stage.records.stalls.append((loop.time(), loop.time() + seconds))
        return True

    @property
    def answers(self) -> bool:
        """Whether a process lives and is not frozen."""
        return self.party is not None and not self.party.dead and not self.party.stalled

    @property
    def works(self) -> bool:
        """Whether a process lives, is not frozen, and its disk has no fault now."""
        return self.answers and not self.disk.ails(self._stage.loop.time())

    def tell(self, death: Death, word: str, answered: Callable[[], None]) -> None:
        """Bring a guard's report to the process, if one lives."""
        party = self.party
        if party is not None and not party.dead:
            loop = self._stage.loop
            loop.call_soon(self._take, party, death, word, answered, context=party.context)

    def _take(self, party: Party, death: Death, word: str, answered: Callable[[], None]) -> None:
        gateway = self._gateway if party is self.party else None
        if gateway is None:
            return
        life, records = (death.identity, death.incarnation), self._stage.records

        def judged() -> None:
            records.buried[life] = None
            answered()

        # A guard repeats itself until it was refused, or until what it said is committed.
        if gateway.death(death, word, judged):
            records.believed.setdefault(life, self._stage.loop.time())
        else:
            answered()

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


class SimKin:
    """`kin.Kindred` of one coordinator process: the kernel that it shares with its workers."""

    def __init__(self, stage: Stage, party: Party, tell: Callable[[Death], None]) -> None:
        self._stage = stage
        self._party = party
        self._tell = tell
        self._watched: dict[tuple[str, int], None] = {}

    def follow(self, hello: WorkerHello) -> None:
        """Watch the process of a worker that lives."""
        life = (hello.identity, hello.incarnation)
        if life not in self._stage.records.died:
            self._watched[life] = None

    def ended(self, identity: str, incarnation: int) -> None:
        """A process ended: tell of it, after its guard had its moment."""
        if (identity, incarnation) in self._watched:
            del self._watched[identity, incarnation]
            loop = self._stage.loop
            death = Death(identity, incarnation, certain=False)
            when = loop.time() + GUARD_SECONDS
            loop.call_at(when, self._tell, death, context=self._party.context)

    def close(self) -> None:
        """Watch nobody any more."""
        self._watched.clear()


class WorkerHost:
    """One worker's host: its disk, its clock, and one process at a time."""

    def __init__(
        self, stage: Stage, plan: WorkerPlan, blobs: Blobs, coordinator: CoordinatorHost
    ) -> None:
        self._stage = stage
        self._blobs = blobs
        self._coordinator = coordinator
        self.plan = plan
        self.name = plan.name
        self.time = HostTime(stage.stream(f"{plan.name} host"))
        self.disk = WorkerDisk(plan.name)
        self.party: Party | None = None
        self.engine: SimEngine | None = None
        self._agent: Agent | None = None
        self._guard: SimGuard | None = None
        self._lives = 0

    def start(self) -> None:
        """Start a process."""
        self._lives += 1
        self.party = party = Party(self.name, "worker")
        self._stage.history.add(self.name, f"starts, life {self._lives}")
        party.run(self._build, party)

    def _build(self, party: Party) -> None:
        stage, plan = self._stage, self.plan
        rng = stream(stage.plan.seed, f"{self.name} {self._lives}")
        self.engine = SimEngine(
            stage.loop,
            party,
            self.disk,
            rng=rng,
            points=stage.points,
            witness=stage.witness,
            incarnation=self.disk.incarnation + 1,
            handing=self._handing,
        )
        self._guard = SimGuard(stage.loop, party, rng, stage.points)
        files = SimFiles(
            self.disk,
            self._blobs,
            party,
            rng=rng,
            points=stage.points,
            reachable=self._reaches_coordinator,
        )
        world = World(
            dialers={"sim": SimDialer(stage.net, party)},
            engine=self.engine,
            guard=self._guard,
            spool=SimSpool(self.disk, party, rng, stage.points),
            shelf=files,
            transfers=files,
            home=SimHome(self.disk, party, stage.points),
            clock=SimClock(stage.loop, self.time, party),
            rng=rng,
            printed=_print_nothing,
        )
        offer = Offer(
            name=self.name,
            slots=plan.slots,
            concurrent_slots=plan.concurrent_slots,
            pull=plan.pull,
            tags=plan.tags,
            host=self.name,
        )
        self._agent = Agent(offer, world, counters=Counters())
        running = TaskSet(logger("sim")).watched(self.name, self._agent.run())
        running.add_done_callback(self._ended, context=stage.loop.world)

    def _handing(self, order: Order) -> None:
        """A task starts: in a session whose hello was answered, and with its function."""
        stage, party = self._stage, self.party
        wrong = ""
        if party is not None and not stage.sessions.is_welcome(party):
            wrong = f"while {self.name} had no session"
        elif stage.records.specs[order.task].code and order.code != bytes_of(order.function):
            wrong = "without its function"
        if wrong:
            name = stage.history.name_of(order.task)
            stage.records.blame(
                f"{stage.loop.time():.3f} {name}: run {order.fence} was handed to a child {wrong}"
            )

    def _reaches_coordinator(self) -> bool:
        return self._coordinator.answers and self.name not in self._stage.net.refused

    def _ended(self, running: asyncio.Task[None]) -> None:
        """The process ended by itself: drained, or by an error of the product."""
        party, stage = self.party, self._stage
        if party is None or party.dead:
            return
        error = None if running.cancelled() else running.exception()
        if error is not None and not isinstance(error, SimCrash):
            stage.records.blame(f"{stage.loop.time():.3f} {self.name} ended: {error!r}")
        stage.history.add(self.name, "ends in order")
        self._gone(party)
        stage.loop.later(SPAWN_SECONDS, self._again)

    def drain(self) -> bool:
        """Ask the process to leave in order; False where none lives."""
        party, agent = self.party, self._agent
        if party is None or party.dead or agent is None:
            return False
        self._stage.loop.call_soon(agent.drain, DRAIN_SECONDS, context=party.context)
        return True

    def crash(self, seconds: float, *, guarded: bool) -> bool:
        """Let the process die now, with its guard where not `guarded`; False where none lives."""
        party, stage, engine, guard = self.party, self._stage, self.engine, self._guard
        if party is None or party.dead:
            return False
        stage.history.add(self.name, "dies" if guarded else "dies with its guard")
        self._gone(party)
        if guarded and engine is not None and guard is not None:
            rng = stage.stream(f"{self.name} {self._lives} death")
            stage.loop.later(rng.uniform(*KILL_SECONDS), self._mourn, engine, guard)
        stage.loop.later(seconds, self._again)
        return True

    def crash_child(self, *, every: bool) -> bool:
        """Let a child die that runs something, or `every` child; False where none does."""
        party, engine = self.party, self.engine
        if party is None or party.dead or engine is None or not engine.fail(every=every):
            return False
        self._stage.history.add(self.name, "loses its children" if every else "loses a child")
        return True

    def _mourn(self, engine: SimEngine, guard: SimGuard) -> None:
        """The guard has ended all children; it tells of the death as long as nobody answers."""
        engine.end("killed")
        guard.report(self._carry)

    def _carry(self, death: Death, word: str, answered: Callable[[], None]) -> None:
        stage = self._stage
        stage.records.testaments[death.identity, death.incarnation] = death
        if self.name not in stage.net.refused:
            self._coordinator.tell(death, word, answered)

    def _gone(self, party: Party) -> None:
        self._stage.records.died[self.name, self.disk.incarnation] = self._stage.loop.time()
        if self._coordinator.kin is not None:
            self._coordinator.kin.ended(self.name, self.disk.incarnation)
        self._stage.loop.kill(party)
        self._stage.net.drop(party)

    def _again(self) -> None:
        if self.party is not None and self.party.dead and not self._stage.over:
            self.start()


class ClientHost:
    """One user's host: its clock, its notes, and one submitting process at a time."""

    def __init__(self, stage: Stage, number: int, told: Told, blobs: Blobs) -> None:
        plan = stage.plan
        self._blobs = blobs
        self._stage = stage
        self._told = told
        self._submissions = [task for task in plan.submissions if task.client == number]
        self._wishes = [wish for wish in plan.wishes if wish.client == number]
        self._lives = 0
        self.name = f"client-{number}"
        self.time = HostTime(stage.stream(f"{self.name} host"))
        self.notes = Notes(blobs)
        self.party: Party | None = None

    def start(self) -> None:
        """Start a process."""
        stage = self._stage
        self._lives += 1
        self.party = party = Party(self.name, "client")
        again = f" {self._lives}" if self._lives > 1 else ""
        client = SimClient(
            stage.loop,
            party,
            clock=SimClock(stage.loop, self.time, party),
            dialer=SimDialer(stage.net, party),
            rng=stage.stream(f"{self.name}{again}"),
            told=self._told,
            notes=self.notes,
            submissions=self._submissions,
            wishes=self._wishes,
            pickled=stage.plan.pickled,
            large=stage.plan.large,
            blobs=self._blobs,
        )
        party.run(client.start)
        if again:
            stage.history.add(self.name, f"starts, life{again}")
            insist_at = max(stage.loop.time(), stage.plan.heal_at) + INSIST_SECONDS
            stage.loop.call_at(insist_at, client.insist, context=party.context)

    def crash(self, seconds: float) -> bool:
        """Let the process die now, and start another one so much later; False where none lives."""
        party, stage = self.party, self._stage
        if party is None or party.dead:
            return False
        lost = self.notes.forget(stage.stream(f"{self.name} {self._lives} death"))
        self._told.forgotten(self.name, lost)
        stage.loop.kill(party)
        stage.net.drop(party)
        stage.loop.later(seconds, self._again)
        return True

    def _again(self) -> None:
        if not self._stage.over:
            self.start()


def _print_nothing(lane: int, error: bool, data: bytes) -> None:
    """Simulated children print nothing."""
