"""The worker itself: one pass for each wake-up, one session after another, and an orderly end.

Owns the order in which things are done. What is heard from the coordinator and what engines report
is only noted; one *pass* then does all of it: what ended, what was heard, what falls due, what can
be handed out, and at last one nudge to the link, which writes as few frames as hold it. Decisions
are in `core` (peer, outbox, lanes); this shell performs them. It depends on ports alone, uses no
thread, and reads time only from its clock, so that a simulator can run it as it is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

import msgspec

from holdfast.core.outbox import Entry, Outbox
from holdfast.core.peer import Heard, Held, Offer, Origin, Peer, PeerState, check_slots
from holdfast.core.redial import Redial
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.model.ids import Entropy, Token
from holdfast.model.messages import Ended, Goodbye, ToWorker, WorkerWelcome
from holdfast.model.outcome import Failure, OutcomeKind
from holdfast.model.task import Phase, Wanted
from holdfast.observe import Counters, TaskSet, logger
from holdfast.ports import Channel, Clock, Dialer, Engine, Guard, Order, Spool, WorkerHome
from holdfast.worker.alarm import Alarm
from holdfast.worker.backup import Backup
from holdfast.worker.inputs import Inputs
from holdfast.worker.link import Link
from holdfast.worker.results import Results, Stored
from holdfast.worker.slots import Over, Printed, Slots
from holdfast.worker.transfers import PAYLOADS, Shelf, Transfers

DIAL_SECONDS = 5.0
NAME_TAKEN = "name_taken"
"""The code of the goodbye that no redial mends: another worker has our name."""
FAREWELL_SECONDS = 2.0
"""How long the end of a worker waits for answers to its last outcomes."""


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
        self._offer = offer
        self._world = world
        self._clock = world.clock
        self._counters = counters
        self._log = log = logger("worker")
        self._tasks = tasks = TaskSet(log)
        self._urls = list(world.dialers)
        self._redial = Redial(world.rng, doors=len(self._urls))
        self._outbox = outbox = Outbox()
        wake, guard, transfers = self._wake, world.guard, world.transfers
        self._slots = Slots(
            engine=world.engine,
            guard=guard,
            keeper=self,
            slots=offer.slots,
            concurrent_slots=offer.concurrent_slots,
            wake=wake,
            printed=world.printed,
        )
        folder = world.home.path / PAYLOADS
        self._inputs = Inputs(transfers=transfers, folder=folder, tasks=tasks, wake=wake)
        self._results = Results(
            transfers=transfers,
            shelf=world.shelf,
            outbox=outbox,
            tasks=tasks,
            store_now=self._store_now,
            wake=wake,
        )
        self._backup = Backup(
            spool=world.spool, guard=guard, outbox=outbox, tasks=tasks, log=log, wake=wake
        )
        self._incarnation = incarnation = world.home.next_incarnation()
        identity, origin = world.home.identity, world.home.store()
        self._peer = Peer(offer, identity=identity, incarnation=incarnation, origin=origin)
        self._heard = Heard()
        self._link: Link | None = None
        self._url = ""
        self._asked = 0
        self._scheduled = False
        self._alarm = Alarm(self._wake)
        self._drain_until = math.inf
        self._draining = False
        self._closing = False
        """The engine is being closed, or is closed: nothing is asked of it any more."""
        self._childless = False
        """It is closed: what is left is to speak of it."""
        self._finished = False
        self._idle = asyncio.Event()
        self._failed: BaseException | None = None
        self._refused: ConfigurationError | None = None
        """What only an operator can mend, as the coordinator has told it."""

    # Life.

    async def run(self) -> None:
        """Serve until drained. Cancelling it is a sudden death: nothing is said or spooled.

        Raises what made the worker useless (its guard or its engine is gone), what the spool
        raised at the end, and ConfigurationError where the coordinator refuses the worker's name.
        """
        for ended in self._world.spool.load():
            ready = not self._results.rests_here(ended)
            self._outbox.restore([ended], self._peer.origin, ready=ready)
        self._backup.cut_off(self._clock.monotonic())
        try:
            await self._slots.open()
            self._tasks.start("keep a session", self._connect())
            await self._idle.wait()
            if self._failed is None:
                self._closing = True
                await self._slots.close()
                self._childless = True
                await self._farewell()
            if (failed := self._failed or self._refused) is not None:
                raise failed
        finally:
            self._finished = True
            self._alarm.stop()
            await self._tasks.cancel()
            if not self._closing:
                await self._slots.close()

    def drain(self, within_seconds: float) -> None:
        """Take no more, give back what has not started, and end when the rest has ended.

        What still runs after `within_seconds` is stopped and reported as such.
        """
        until = self._clock.monotonic() + within_seconds
        self._drain_until = min(self._drain_until, until)
        if not self._draining:
            self._draining = True
            self._outbox.draining()
        self._wake()

    @property
    def session(self) -> PeerState:
        """Where the session stands."""
        return self._peer.state

    @property
    def occupied(self) -> bool:
        """Whether it holds a lease, or an outcome that no coordinator has answered."""
        return bool(self._peer.leases) or bool(len(self._outbox))

    def _connected(self) -> bool:
        return self._peer.state is PeerState.WELCOMED

    def _store_now(self) -> Origin | None:
        """Return the store whose session this is; None where there is no session."""
        return self._peer.origin if self._connected() else None

    async def _connect(self) -> None:
        """Hold one session after another, until cancelled; a failure of ours ends the worker."""
        try:
            while True:
                await self._connect_once()
        except Exception as error:
            self._log.exception("the worker cannot go on")
            self._failed = error
            self._idle.set()

    async def _connect_once(self) -> None:
        """Dial the next coordinator, and serve a session if it answers."""
        door, delay = self._redial.next()
        await asyncio.sleep(delay)
        self._url = self._urls[door]
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                channel = await self._world.dialers[self._url].dial()
        except (TimeoutError, OSError, HoldfastError) as error:
            self._counters.add("worker.dials_failed")
            self._log.debug("no coordinator at %s: %s", self._url, error)
        else:
            await self._serve(channel)

    async def _serve(self, channel: Channel) -> None:
        """Serve one session to its end; its channel is closed when this returns."""
        outcomes, owed = self._outbox.rejoin(self._peer.origin)
        hello = self._peer.hello(outcomes=outcomes, owed=owed, draining=self._draining)
        self._link = link = Link(
            channel,
            peer=self._peer,
            outbox=self._outbox,
            clock=self._clock,
            hear=self._hear,
            log=self._log,
        )
        try:
            await link.run(hello)
        except (HoldfastError, OSError) as error:
            self._counters.add("worker.sessions_ended")
            self._log.info("the session with %s is over: %s", self._url, error)
        finally:
            self._link = None
            self._peer.closed()
            self._backup.cut_off(self._clock.monotonic())
            self._wake()

    async def _farewell(self) -> None:
        """Say and keep what is left after the children have ended, then go."""
        for over in self._slots.collect(self._clock.monotonic()):
            self._over(over)
        self._give_up()
        self._wake()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                while self._connected() and len(self._outbox):
                    # Whatever is heard, and the end of the session, has a pass that sets it.
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            self._log.warning("%d outcomes are unanswered and go to the spool", len(self._outbox))
        self._backup.cut_off(self._clock.monotonic())
        try:
            await self._backup.save()
        except (HoldfastError, OSError) as error:
            self._log.error("outcomes are lost with this worker: %s", error)
            self._failed = error
        if (link := self._link) is not None and self._connected():
            try:
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await link.say_goodbye(Goodbye("drained", "the worker has ended in good order"))
            except TimeoutError:
                self._log.debug("the coordinator did not take our goodbye")

    # The pass.

    def _hear(self, body: Sequence[ToWorker]) -> None:
        try:
            self._peer.hear(body, self._heard)
        finally:
            self._wake()

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
            self._log.exception("the worker cannot go on")
            self._failed = error
            self._idle.set()

    def _pass(self, now: float) -> None:
        for over in self._slots.collect(now):
            self._over(over)
        for stored in self._results.collect():
            self._stored(stored)
        heard, self._heard = self._heard, Heard()
        self._obey(heard, now)
        ready, spoiled = self._inputs.collect()
        for order, concurrent in ready:
            self._slots.add(order, concurrent=concurrent)
        for each in spoiled:
            self._fail(each.token, each.why)
        self._backup.act(now)
        if self._childless:
            self._give_up()
        elif not self._closing:
            self._slots.act(now)
            if self._draining:
                self._give_back(now)
            elif self._connected():
                self._hand_out(now)
        if self._link is not None and self._outbox.pending(now):
            self._link.wake()
        self._alarm.set(
            now,
            self._slots.next_due(),
            self._outbox.due(),
            self._backup.due(),
            self._drain_until,
        )

    def _hand_out(self, now: float) -> None:
        """Start what may start, and ask for more."""
        if not self._outbox.full:
            self._slots.dispatch(now)
        if self._offer.pull:
            self._pull()

    def _obey(self, heard: Heard, now: float) -> None:
        """Do what the coordinator said, in the order of the fields."""
        if heard.welcome is not None:
            self._welcomed(heard.welcome)
        for lease in heard.orders:
            self._take_order(lease)
        if heard.answered:
            self._answered(heard)
        if heard.welcome is not None:
            # Its answers have told what is owed to this store.
            self._results.clear()
        for token in heard.stops:
            self._stop(token, now)
        for token in heard.recalls:
            self._recall(token, now)
        for lease in heard.wishes:
            self._grant(lease, now)
        for message in heard.code:
            self._inputs.code_came(message)
        if heard.drain:
            self.drain(math.inf)
        if heard.goodbye is not None:
            self._log.warning("the coordinator said goodbye: %s", heard.goodbye.text)
            if heard.goodbye.code == NAME_TAKEN:
                self._refused = ConfigurationError(heard.goodbye.text)
                self.drain(0.0)

    def _welcomed(self, welcome: WorkerWelcome) -> None:
        if not self._connected() or self._link is None:
            return  # That session is over already.
        self._redial.welcomed()
        self._backup.welcomed()
        self._asked = 0
        self._outbox.welcomed(self._peer.origin)
        self._world.guard.session(
            url=self._url,
            identity=self._world.home.identity,
            incarnation=self._incarnation,
            last_word=welcome.last_word,
        )
        if self._world.home.store() != self._peer.origin and not self._outbox.has_foreign:
            self._world.home.remember_store(welcome.store, welcome.timeline)
        self._link.expect(
            lease_seconds=welcome.lease_seconds, heartbeat_seconds=welcome.heartbeat_seconds
        )
        for digest in self._inputs.code_wanted():
            self._outbox.code_wanted(digest)
        if self._draining:
            self._outbox.draining()

    def _take_order(self, lease: Held) -> None:
        assign = lease.order
        if assign.token not in self._peer.leases:
            return  # Stopped in the same breath.
        order = self._inputs.admit(assign)
        if order is not None:
            self._slots.add(order, concurrent=assign.concurrent)
        elif assign.code in self._inputs.code_wanted():
            self._outbox.code_wanted(assign.code)

    def _answered(self, heard: Heard) -> None:
        done: list[Entry] = []
        for token, answer in heard.answered:
            entry = self._outbox.answered(token, answer)
            if entry is not None:
                done.append(entry)
        if done:
            self._backup.answered(done)

    def _stop(self, token: Token, now: float) -> None:
        """The lease is not ours any more: see that its attempt ends, and say nothing of it."""
        self._outbox.not_started(token)
        if self._unbegun(token, now):
            # A suspect that waits to run again has begun before, and nothing will answer it.
            self._world.guard.done([token])
        else:
            self._slots.stop(token, now)

    def _recall(self, token: Token, now: float) -> None:
        lease = self._peer.leases.get(token)
        if lease is None:
            return  # Its outcome is on the way, or the lease was never ours: the view tells.
        if self._unbegun(token, now):
            self._end(Ended(lease.order.task, token, OutcomeKind.RETURNED))
        else:
            self._outbox.started_again(lease.order.task, token)

    def _grant(self, lease: Held, now: float) -> None:
        """Do what the user wishes of a task, as far as its attempt has not ended."""
        token = lease.order.token
        if token not in self._peer.leases:
            return
        if lease.wanted is Wanted.RUN:
            self._slots.spare(token)
        elif self._unbegun(token, now):
            self._end(Ended(lease.order.task, token, OutcomeKind.RETURNED))
        elif lease.wanted is Wanted.CANCEL:
            self._slots.stop(token, now)

    def _unbegun(self, token: Token, now: float) -> bool:
        """Take an attempt out of all lines; return whether it surely did not run."""
        return self._inputs.drop(token) or self._slots.withdraw(token, now)

    def _give_back(self, now: float) -> None:
        """While draining: return what has not started; see whether the rest has ended."""
        self._slots.take_back_all(now)
        for token, lease in list(self._peer.leases.items()):
            if self._unbegun(token, now):
                self._end(Ended(lease.order.task, token, OutcomeKind.RETURNED))
        at_rest = not self._slots.busy and not self._results.busy
        if at_rest or now >= self._drain_until:
            self._idle.set()

    def _give_up(self) -> None:
        """The children have ended: whatever is held still has surely stopped, or never started."""
        for token, lease in list(self._peer.leases.items()):
            kind = OutcomeKind.STOPPED if lease.phase is Phase.STARTED else OutcomeKind.RETURNED
            self._end(Ended(lease.order.task, token, kind))
        self._idle.set()

    def _pull(self) -> None:
        """Ask for one task for each free slot, counted since the hello."""
        plain = sum(not lease.order.concurrent for lease in self._peer.leases.values())
        asked = self._peer.assigned + max(0, self._offer.slots - plain)
        if asked > self._asked:
            self._asked = asked
            self._outbox.pull(asked)

    # Outcomes. The first two are what `Slots` tells its keeper.

    def handed(self, order: Order, now: float) -> None:
        """Note that a child may take an order up: it counts as started."""
        lease = self._peer.leases.get(order.token)
        if lease is not None and lease.phase is not Phase.STARTED:
            lease.phase = Phase.STARTED
            self._outbox.started(order.task, order.token, now=now)

    def taken_back(self, token: Token) -> None:
        """Note that no child took an order up: it has not started after all."""
        lease = self._peer.leases.get(token)
        if lease is not None:
            lease.phase = Phase.ASSIGNED
        self._outbox.not_started(token)

    def _over(self, over: Over) -> None:
        self._inputs.release(over.ended.token)
        lease = self._peer.leases.get(over.ended.token)
        if lease is None:
            self._unwanted(over.ended)
            if over.result_path:
                self._world.transfers.discard(over.result_path)
        elif over.result_path:
            self._results.store(over, lease.origin)
        else:
            self._end(over.ended)

    def _stored(self, stored: Stored) -> None:
        if stored.ended.token not in self._peer.leases:
            self._unwanted(stored.ended)
            self._results.drop(stored)
            return
        self._end(stored.ended, ready=stored.ready)
        if not stored.ready:
            self._results.clear()

    def _unwanted(self, ended: Ended) -> None:
        """Nobody answers this outcome, so that the guard is to forget it now."""
        self._counters.add("worker.outcomes_unwanted")
        if not self._outbox.has(ended.token):
            self._world.guard.done([ended.token])

    def _end(self, ended: Ended, *, ready: bool = True) -> None:
        """Let a lease go: its outcome is in the outbox from here on."""
        lease = self._peer.ended(ended.token)
        if lease is not None:
            self._outbox.ended(ended, lease.origin, ready=ready)

    def _fail(self, token: Token, why: str) -> None:
        lease = self._peer.leases.get(token)
        if lease is not None:
            failure = Failure(message=why)
            self._end(Ended(lease.order.task, token, OutcomeKind.ENVIRONMENT, failure=failure))
