"""A simulated submitter: it repeats what was not answered, until it was.

Owns what a client must do to lose nothing: the same id again after a lost answer, watch again and
wish again after every reconnect. It speaks the protocol by itself, so that it shares no mistake
with the SDK. It sends a function once a session, and again only where it is told that it lacks.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Protocol

from holdfast.core.wire import Wire
from holdfast.errors import ChannelClosedError, ProtocolError
from holdfast.lab.sim.clock import SimClock
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.lab.sim.plan import Submission, WishPlan
from holdfast.lab.sim.witness import arguments, bytes_of
from holdfast.model.ids import IdMint, TaskId
from holdfast.model.messages import (
    PROTOCOL,
    Accepted,
    ClientFrame,
    ClientHello,
    ClientWelcome,
    Goodbye,
    Message,
    PutCode,
    Refused,
    Reply,
    Settled,
    SetWanted,
    Submit,
    Watch,
)
from holdfast.model.task import Spec
from holdfast.observe import TaskSet, logger
from holdfast.ports import Channel, Dialer

DIAL_SECONDS = 5.0
SILENCE_SECONDS = 8.0
"""A session in which nothing comes for so long is given up."""
REDIAL_SECONDS = (0.01, 0.6)


class Told(Protocol):
    """Who notes what a client was told."""

    def submitted(self, spec: Spec, plan: Submission) -> None: ...

    def accepted(self, client: str, given: TaskId, holder: TaskId) -> None: ...

    def refused(self, client: str, task: TaskId, code: str) -> None: ...

    def settled(self, client: str, message: Settled) -> None: ...

    def replied(self, client: str, wish: WishPlan, task: TaskId, code: str) -> None: ...


class SimClient:
    """One client process. It lives as long as the run."""

    def __init__(
        self,
        loop: SimLoop,
        party: Party,
        *,
        clock: SimClock,
        dialer: Dialer,
        rng: random.Random,
        told: Told,
        submissions: Sequence[Submission],
        wishes: Sequence[WishPlan],
        pickled: Collection[str],
    ) -> None:
        self._loop = loop
        self._party = party
        self._clock = clock
        self._dialer = dialer
        self._rng = rng
        self._told = told
        self._submissions = submissions
        self._wishes = wishes
        self._pickled = pickled
        self._sent_code: dict[bytes, None] = {}
        """Digests of functions that were sent in this session."""
        self._mint = IdMint(rng)
        self._tasks = TaskSet(logger("sim.client"))
        self._wake = asyncio.Event()
        self._out: deque[Message] = deque()
        self._wire: Wire[ClientFrame] = Wire(ClientFrame)
        self._welcomed = False
        self._ids: dict[int, TaskId] = {}
        self._unanswered: dict[TaskId, tuple[Spec, bool]] = {}
        """What was submitted and not answered, and whether it was said before."""
        self._holders: dict[TaskId, TaskId] = {}
        """Accepted ids, and the tasks that hold them."""
        self._unsettled: dict[TaskId, None] = {}
        self._wanted: dict[int, WishPlan] = {}
        self._early: list[tuple[int, WishPlan]] = []
        self._refs = 0

    @property
    def at_rest(self) -> bool:
        """Whether all it had to say was said, answered and settled."""
        return not (self._unanswered or self._unsettled or self._wanted or self._early)

    @property
    def waits_for(self) -> list[TaskId]:
        """Return the tasks of which it was told nothing final."""
        return [*self._unanswered, *self._unsettled]

    def start(self) -> None:
        """Begin, as this client's party."""
        for submission in self._submissions:
            self._loop.call_at(submission.at, self._submit, submission)
        for wish in self._wishes:
            self._loop.call_at(wish.at, self._wish, wish)
        self._tasks.start(self._party.name, self._live())

    # What it wants.

    def _submit(self, plan: Submission) -> None:
        now_ms = self._clock.wall_ms()
        pickled = plan.function in self._pickled
        spec = Spec(
            id=self._mint.next(now_ms),
            function=plan.function,
            payload=arguments(plan.behaviour),
            submitted_ms=now_ms,
            due_ms=now_ms + plan.delay_ms if plan.delay_ms else 0,
            tags=plan.tags,
            priority=plan.priority,
            key=plan.key,
            code=sha256(bytes_of(plan.function)).digest() if pickled else b"",
            concurrent=plan.concurrent,
        )
        self._ids[plan.number] = spec.id
        self._told.submitted(spec, plan)
        self._submit_spec(spec, again=False)
        if plan.twice:
            later = self._loop.time() + self._rng.random() * 3.0
            self._loop.call_at(later, self._submit_again, spec)

    def _submit_again(self, spec: Spec) -> None:
        self._submit_spec(spec, again=True)

    def _submit_spec(self, spec: Spec, *, again: bool) -> None:
        self._unanswered[spec.id] = (spec, self._welcomed or again)
        if self._welcomed:
            self._say_tasks((spec,), again=again)

    def _say_tasks(self, specs: Sequence[Spec], *, again: bool) -> None:
        for spec in specs:
            if spec.code and spec.code not in self._sent_code:
                self._sent_code[spec.code] = None
                self._say(PutCode(spec.code, bytes_of(spec.function)))
        self._say(Submit(tuple(specs), again=again))

    def _wish(self, wish: WishPlan) -> None:
        self._refs += 1
        self._early.append((self._refs, wish))
        self._say_wishes()

    def _say_wishes(self) -> None:
        """Say the wishes whose tasks are accepted, in their order."""
        waiting: list[tuple[int, WishPlan]] = []
        for ref, wish in self._early:
            task = self._ids.get(wish.task)
            if task is None or task in self._unanswered:
                waiting.append((ref, wish))
            elif task in self._holders:
                self._wanted[ref] = wish
                if self._welcomed:
                    self._say(SetWanted(ref, self._holders[task], wish.wanted))
        self._early = waiting

    def _say(self, message: Message) -> None:
        self._out.append(message)
        self._wake.set()

    # Sessions.

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(*REDIAL_SECONDS))
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    channel = await self._dialer.dial()
            except (ChannelClosedError, TimeoutError):
                continue
            try:
                await self._session(channel)
            except (ChannelClosedError, ProtocolError, TimeoutError):
                self._welcomed = False

    async def _session(self, channel: Channel) -> None:
        self._wire = wire = Wire(ClientFrame)
        self._out.clear()
        self._sent_code.clear()
        self._say(ClientHello(PROTOCOL, self._party.name, "sim", "3.11"))
        tasks = TaskSet(logger("sim.client"))
        tasks.start("write", self._write(channel, wire))
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    frame = wire.read(await channel.receive())
                for message in frame.body:
                    self._hear(message)
                if wire.ack_due or self._out:
                    self._wake.set()
        finally:
            self._welcomed = False
            await tasks.cancel()
            await channel.close()

    async def _write(self, channel: Channel, wire: Wire[ClientFrame]) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while wire.writable and (self._out or wire.ack_due):
                    await channel.send(wire.write(self._out))
        except ChannelClosedError:
            await channel.close()

    def _hear(self, message: Message) -> None:
        name = self._party.name
        if isinstance(message, ClientWelcome):
            self._begin()
        elif isinstance(message, Accepted):
            known = dict(message.known)
            for given in message.tasks:
                self._accepted(given, known.get(given, given))
        elif isinstance(message, Refused):
            self._refused(message)
        elif isinstance(message, Settled):
            self._unsettled.pop(message.task, None)
            self._told.settled(name, message)
        elif isinstance(message, Reply):
            self._replied(message)
        elif isinstance(message, Goodbye):
            raise ChannelClosedError(message.text)

    def _begin(self) -> None:
        """Say again what was not answered in any session before."""
        self._welcomed = True
        again = [spec for spec, said in self._unanswered.values() if said]
        fresh = [spec for spec, said in self._unanswered.values() if not said]
        for spec in fresh:
            self._unanswered[spec.id] = (spec, True)
        if fresh:
            self._say_tasks(fresh, again=False)
        if again:
            self._say_tasks(again, again=True)
        if self._unsettled:
            self._say(Watch(tuple(self._unsettled)))
        for ref, wish in self._wanted.items():
            self._say(SetWanted(ref, self._holders[self._ids[wish.task]], wish.wanted))

    def _accepted(self, given: TaskId, holder: TaskId) -> None:
        if self._unanswered.pop(given, None) is not None and given not in self._holders:
            self._unsettled[holder] = None
        self._holders[given] = holder
        self._told.accepted(self._party.name, given, holder)
        self._say_wishes()

    def _refused(self, message: Refused) -> None:
        if message.retry_after_seconds > 0:
            known = self._unanswered.get(message.task)
            if known is not None:
                if message.code == "no_code":
                    self._sent_code.pop(known[0].code, None)
                later = self._loop.time() + message.retry_after_seconds
                self._loop.call_at(later, self._try_again, message.task)
            return
        self._told.refused(self._party.name, message.task, message.code)
        self._unanswered.pop(message.task, None)
        self._unsettled.pop(message.task, None)
        self._early = [
            (ref, wish) for ref, wish in self._early if self._ids.get(wish.task) != message.task
        ]

    def _try_again(self, task: TaskId) -> None:
        known = self._unanswered.get(task)
        if known is not None:
            self._submit_spec(known[0], again=True)

    def _replied(self, message: Reply) -> None:
        wish = self._wanted.pop(message.ref, None)
        if wish is not None:
            task = self._holders[self._ids[wish.task]]
            self._told.replied(self._party.name, wish, task, message.code)
