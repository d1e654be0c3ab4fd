"""The worker itself: its rooms put together, and the one pass that each wake-up makes of them.

Owns the order in which things are done. What is heard from the coordinator and what engines report
is only noted; one *pass* then does all of it: what ended, what was heard, what falls due, what can
be handed out, and at last one nudge to the link, which writes as few frames as hold it. Decisions
are in `core` (peer, outbox, lanes); what becomes of a lease is `Leases`'s, of a session
`Sessions`'s, and of the worker at its end `Leaving`'s. It depends on ports alone, uses no thread,
and reads time only from its clock, so that a simulator can run it as it is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdfast.core.outbox import Entry, Outbox
from holdfast.core.peer import Heard, Offer, Origin, Peer, PeerState, check_slots
from holdfast.errors import ConfigurationError
from holdfast.model.ids import Entropy
from holdfast.model.messages import ToWorker, WorkerWelcome
from holdfast.model.outcome import Answer
from holdfast.observe import Counters, TaskSet, logger
from holdfast.ports import Clock, Dialer, Engine, Guard, Spool, WorkerHome
from holdfast.worker.alarm import Alarm
from holdfast.worker.backup import Backup
from holdfast.worker.inputs import Inputs
from holdfast.worker.leases import Leases, Phases
from holdfast.worker.leaving import Leaving
from holdfast.worker.results import Results
from holdfast.worker.sessions import Sessions
from holdfast.worker.slots import Printed, Slots
from holdfast.worker.transfers import PAYLOADS, Shelf, Transfers

FOR_OPERATORS = ("name_taken", "outlived")
"""The codes of the goodbyes that no redial mends: another worker has our name, or a later life of
this one was let in."""
_LOG = logger("worker")


class World(msgspec.Struct, frozen=True):
    """All that an agent needs of the world. `dialers` go by the URL of their coordinator."""

    dialers: Mapping[str, Dialer]
    engine: Engine
    guard: Guard
    spool: Spool
    shelf: Shelf
    transfers: Transfers
    home: WorkerHome
    clock: Clock
    rng: Entropy
    printed: Printed


class Agent:
    """One worker. `run` serves until `drain` was asked for and is done."""

    def __init__(self, offer: Offer, world: World, *, counters: Counters) -> None:
        """Make a worker that is not connected yet.

        Raises ConfigurationError where it has no coordinator to dial, no slot, or too many.
        """
        if not world.dialers:
            raise ConfigurationError("a worker needs a coordinator's URL")
        check_slots(offer)
        self._offer, self._world = offer, world
        self._clock = clock = world.clock
        self._tasks = tasks = TaskSet(_LOG)
        self._alarm = Alarm(self._wake)
        self._scheduled = False
        self._finished = False
        self._heard = Heard()
        self._asked = [0, 0]
        """How many tasks were pulled in this session."""
        self._incarnation = world.home.next_incarnation()
        wake, guard, transfers = self._wake, world.guard, world.transfers
        self._outbox = outbox = Outbox()
        self._peer = peer = _peer(offer, world.home, self._incarnation)
        self._backup = backup = Backup(
            spool=world.spool, guard=guard, outbox=outbox, tasks=tasks, log=_LOG, wake=wake
        )
        self._sessions = sessions = Sessions(
            dialers=world.dialers,
            rng=world.rng,
            peer=peer,
            outbox=outbox,
            backup=backup,
            clock=clock,
            counters=counters,
            hear=self._hear,
            take_back=self._take_back,
            wake=wake,
        )
        self._inputs = inputs = _inputs(world, tasks, sessions, wake)
        self._slots = slots = _slots(offer, world, Phases(peer=peer, outbox=outbox), wake)
        self._results = results = _results(world, outbox, tasks, sessions.store_now, wake)
        self._leases = leases = Leases(
            peer=peer,
            outbox=outbox,
            inputs=inputs,
            slots=slots,
            results=results,
            transfers=transfers,
            guard=guard,
            counters=counters,
        )
        self._leaving = Leaving(
            leases=leases,
            slots=slots,
            results=results,
            outbox=outbox,
            backup=backup,
            sessions=sessions,
            clock=clock,
            wake=wake,
        )

    # Life.

    async def run(self) -> None:
        """Serve until drained. Cancelling it is a sudden death: nothing is said or spooled.

        Raises what made the worker useless (its guard or its engine is gone), what the spool
        raised at the end, and ConfigurationError where the coordinator refuses it for good.
        """
        inherited = self._world.spool.load()
        for ended in inherited:
            ready = not self._results.rests_here(ended)
            self._outbox.restore([ended], self._peer.origin, ready=ready)
        self._backup.cut_off(self._clock.monotonic())
        try:
            await self._slots.open()
            if inherited:
                # The guard of this life has to name them, should it end before they are answered.
                self._world.guard.spooled([ended.token for ended in inherited])
            self._tasks.start("keep a session", self._keep_sessions())
            await self._leaving.run()
        finally:
            self._finished = True
            self._alarm.stop()
            await self._tasks.cancel()
            if not self._leaving.closing:
                # Nobody has said what became of our leases: let the guard tell that they ended.
                await self._slots.close(farewell=False)

    def drain(self, within_seconds: float) -> None:
        """Take no more, give back what has not started, and end when the rest has ended.

        What still runs after `within_seconds` is stopped and reported as such.
        """
        self._leaving.ask(within_seconds)

    @property
    def session(self) -> PeerState:
        """Where the session stands."""
        return self._peer.state

    @property
    def occupied(self) -> bool:
        """Whether it holds a lease, or an outcome that no coordinator has answered."""
        return bool(self._peer.leases) or bool(len(self._outbox))

    async def _keep_sessions(self) -> None:
        """Hold one session after another, until cancelled; a failure of ours ends the worker."""
        try:
            await self._sessions.keep()
        except Exception as error:
            self._leaving.failed(error)

    # The pass.

    def _hear(self, body: Sequence[ToWorker]) -> None:
        try:
            self._peer.hear(body, self._heard)
        finally:
            self._wake()

    def _take_back(self) -> None:
        self._slots.take_back_all(self._clock.monotonic())

    def _wake(self) -> None:
        """Have a pass soon; many calls make one."""
        if not self._scheduled and not self._finished:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._guarded_pass)

    def _guarded_pass(self) -> None:
        """Run a pass; a failure of ours ends the worker, rather than leave it deaf."""
        self._scheduled = False
        if self._finished:
            return
        try:
            self._pass(self._clock.monotonic())
        except Exception as error:
            self._leaving.failed(error)

    def _pass(self, now: float) -> None:
        self._leases.collect_ended(now)
        self._leases.collect_stored()
        heard, self._heard = self._heard, Heard()
        self._obey(heard, now)
        self._leases.collect_inputs()
        self._backup.act(now)
        if self._leaving.begun:
            self._leaving.act(now)
        else:
            self._slots.act(now)
            if self._sessions.connected:
                self._hand_out(now)
        self._sessions.nudge(now)
        self._alarm.set(
            now,
            self._slots.next_due(),
            self._outbox.due(),
            self._backup.due(),
            self._leaving.due,
        )

    def _obey(self, heard: Heard, now: float) -> None:
        """Do what the coordinator said, in the order of the fields."""
        leases = self._leases
        if heard.welcome is not None:
            self._welcomed(heard.welcome)
        for lease in heard.orders:
            leases.take(lease)
        if heard.answered:
            self._answered(heard)
        if heard.welcome is not None:
            # Its answers have told what is owed to this store, and what to another one.
            self._results.clear()
            self._remember_store()
        for token in heard.stops:
            leases.stop(token, now)
        for token in heard.recalls:
            leases.recall(token, now)
        for lease in heard.wishes:
            leases.grant(lease, now)
        for message in heard.code:
            self._inputs.code_came(message)
        if heard.drain:
            self.drain(math.inf)
        if heard.goodbye is not None:
            _LOG.warning("the coordinator said goodbye: %s", heard.goodbye.text)
            if heard.goodbye.code in FOR_OPERATORS:
                self._leaving.refused(heard.goodbye.text)

    def _welcomed(self, welcome: WorkerWelcome) -> None:
        if not self._sessions.welcomed(welcome):
            return
        self._asked = [0, 0]
        home = self._world.home
        self._world.guard.session(
            url=self._sessions.url,
            identity=home.identity,
            incarnation=self._incarnation,
            last_word=welcome.last_word,
        )
        self._world.transfers.session(self._sessions.url)
        for digest in self._inputs.code_wanted():
            self._outbox.code_wanted(digest)

    def _remember_store(self) -> None:
        """Note whose outcomes a next life inherits: this store's, once no other has any to come."""
        home, origin = self._world.home, self._peer.origin
        elsewhere = self._outbox.has_foreign or bool(self._peer.strangers)
        if self._sessions.connected and not elsewhere and home.store() != origin:
            home.remember_store(*origin)

    def _answered(self, heard: Heard) -> None:
        done: list[Entry] = []
        for token, answer in heard.answered:
            entry = self._outbox.answered(token, answer)
            if entry is not None:
                done.append(entry)
            elif answer is Answer.STOP:
                self._results.unwanted(token)
        if done:
            self._backup.answered(done)

    def _hand_out(self, now: float) -> None:
        """Start what may start, and ask for more."""
        if not self._outbox.full:
            self._slots.dispatch(now)
        if self._offer.pull:
            self._pull()

    def _pull(self) -> None:
        """Ask for one task for each free slot of its kind, counted since the hello."""
        leases, assigned = self._peer.leases.values(), self._peer.assigned
        many = sum(lease.order.concurrent for lease in leases)
        free = (self._offer.slots - len(leases) + many, self._offer.concurrent_slots - many)
        wanted = [given + max(0, room) for given, room in zip(assigned, free, strict=True)]
        asked = [*map(max, self._asked, wanted)]
        if asked != self._asked:
            self._asked = asked
            self._outbox.pull(*asked)


def _peer(offer: Offer, home: WorkerHome, incarnation: int) -> Peer:
    return Peer(offer, identity=home.identity, incarnation=incarnation, origin=home.store())


def _slots(offer: Offer, world: World, keeper: Phases, wake: Callable[[], None]) -> Slots:
    return Slots(
        engine=world.engine,
        guard=world.guard,
        keeper=keeper,
        slots=offer.slots,
        concurrent_slots=offer.concurrent_slots,
        wake=wake,
        printed=world.printed,
    )


def _inputs(world: World, tasks: TaskSet, sessions: Sessions, wake: Callable[[], None]) -> Inputs:
    return Inputs(
        transfers=world.transfers,
        folder=world.home.path / PAYLOADS,
        tasks=tasks,
        connected=lambda: sessions.store_now() is not None,
        wake=wake,
    )


def _results(
    world: World,
    outbox: Outbox,
    tasks: TaskSet,
    store_now: Callable[[], Origin | None],
    wake: Callable[[], None],
) -> Results:
    return Results(
        transfers=world.transfers,
        shelf=world.shelf,
        outbox=outbox,
        tasks=tasks,
        store_now=store_now,
        wake=wake,
    )
