"""A simulated submitter: it repeats what was not answered, until it was.

Owns what a client must do to lose nothing: the same id again after a lost answer, watch again and
wish again after every reconnect, and after the death of the process before. It speaks the protocol
by itself, so that it shares no mistake with the SDK. It sends a function once a session, and again
only where it is told that it lacks.
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
from holdfast.lab.sim.notes import Notes
from holdfast.lab.sim.plan import Submission, WishPlan
from holdfast.lab.sim.witness import Blobs, arguments, bytes_of, large_arguments
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
from holdfast.model.outcome import Payload
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

    def forgotten(self, client: str, tasks: Sequence[TaskId]) -> None: ...

    def settled(self, client: str, message: Settled) -> None: ...

    def replied(self, client: str, wish: WishPlan, task: TaskId, code: str) -> None: ...


class SimClient:
    """One client process, over the notes of its user."""

    def __init__(
        self,
        loop: SimLoop,
        party: Party,
        *,
        clock: SimClock,
        dialer: Dialer,
        rng: random.Random,
        told: Told,
        notes: Notes,
        submissions: Sequence[Submission],
        wishes: Sequence[WishPlan],
        pickled: Collection[str],
        large: Collection[int],
        blobs: Blobs,
    ) -> None:
        self._loop = loop
        self._party = party
        self._clock = clock
        self._dialer = dialer
        self._rng = rng
        self._told = told
        self._notes = notes
        self._submissions = submissions
        self._wishes = wishes
        self._pickled = pickled
        self._large = large
        self._blobs = blobs
        self._sent_code: dict[bytes, None] = {}
        """Digests of functions that were sent in this session."""
        self._mint = IdMint(rng)
        self._tasks = TaskSet(logger("sim.client"))
        self._wake = asyncio.Event()
        self._out: deque[Message] = deque()
        self._wire: Wire[ClientFrame] = Wire(ClientFrame)
        self._welcomed = False

    def start(self) -> None:
        """Begin, as this client's party."""
        notes, now = self._notes, self._loop.time()
        for submission in self._submissions:
            if submission.number not in notes.ids:
                self._loop.call_at(max(now, submission.at), self._submit, submission)
        for number, wish in enumerate(self._wishes):
            if number not in notes.made:
                self._loop.call_at(max(now, wish.at), self._wish, number, wish)
        self._say_wishes()
        self._tasks.start(self._party.name, self._live())

    def insist(self) -> None:
        """Wish again what was wished last for each task that goes on.

        What a former life said may have arrived after what this one did.
        """
        notes = self._notes
        for task in notes.unsettled:
            number, wish = notes.said.get(task, (-1, None))
            if wish is not None and number not in notes.wanted:
                self._want(number, wish, task)

    # What it wants.

    def _arguments(self, plan: Submission) -> Payload:
        if plan.number in self._large:
            return large_arguments(plan.behaviour, self._blobs)
        return arguments(plan.behaviour)

    def _submit(self, plan: Submission) -> None:
        now_ms = self._clock.wall_ms()
        pickled = plan.function in self._pickled
        spec = Spec(
            id=self._mint.next(now_ms),
            function=plan.function,
            payload=self._arguments(plan),
            submitted_ms=now_ms,
            due_ms=now_ms + plan.delay_ms if plan.delay_ms else 0,
            tags=plan.tags,
            priority=plan.priority,
            key=plan.key,
            code=sha256(bytes_of(plan.function)).digest() if pickled else b"",
            concurrent=plan.concurrent,
        )
        self._notes.ids[plan.number] = spec.id
        self._told.submitted(spec, plan)
        self._submit_spec(spec, again=False)
        if plan.twice:
            later = self._loop.time() + self._rng.random() * 3.0
            self._loop.call_at(later, self._submit_again, spec)

    def _submit_again(self, spec: Spec) -> None:
        self._submit_spec(spec, again=True)

    def _submit_spec(self, spec: Spec, *, again: bool) -> None:
        self._notes.unanswered[spec.id] = (spec, self._welcomed or again)
        if self._welcomed:
            self._say_tasks((spec,), again=again)

    def _say_tasks(self, specs: Sequence[Spec], *, again: bool) -> None:
        for spec in specs:
            if spec.code and spec.code not in self._sent_code:
                self._sent_code[spec.code] = None
                self._say(PutCode(spec.code, bytes_of(spec.function)))
        self._say(Submit(tuple(specs), again=again))

    def _wish(self, number: int, wish: WishPlan) -> None:
        self._notes.made[number] = None
        self._notes.early.append((number, wish))
        self._say_wishes()

    def _say_wishes(self) -> None:
        """Say the wishes whose tasks are accepted, in their order."""
        notes = self._notes
        waiting: list[tuple[int, WishPlan]] = []
        for number, wish in notes.early:
            task = notes.ids.get(wish.task)
            if task is None or task in notes.unanswered:
                waiting.append((number, wish))
            elif task in notes.holders:
                self._want(number, wish, notes.holders[task])
        notes.early = waiting

    def _want(self, number: int, wish: WishPlan, holder: TaskId) -> None:
        self._notes.wanted[number] = wish
        self._notes.said[holder] = (number, wish)
        if self._welcomed:
            self._say(SetWanted(number, holder, wish.wanted))

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
            self._notes.unsettled.pop(message.task, None)
            self._told.settled(name, message)
        elif isinstance(message, Reply):
            self._replied(message)
        elif isinstance(message, Goodbye):
            raise ChannelClosedError(message.text)

    def _begin(self) -> None:
        """Say again what was not answered in any session before."""
        self._welcomed = True
        notes = self._notes
        again = [spec for spec, said in notes.unanswered.values() if said]
        fresh = [spec for spec, said in notes.unanswered.values() if not said]
        for spec in fresh:
            notes.unanswered[spec.id] = (spec, True)
        if fresh:
            self._say_tasks(fresh, again=False)
        if again:
            self._say_tasks(again, again=True)
        if notes.unsettled:
            self._say(Watch(tuple(notes.unsettled)))
        for number, wish in notes.wanted.items():
            self._say(SetWanted(number, notes.holder_of(wish), wish.wanted))

    def _accepted(self, given: TaskId, holder: TaskId) -> None:
        self._notes.accepted(given, holder)
        self._told.accepted(self._party.name, given, holder)
        self._say_wishes()

    def _refused(self, message: Refused) -> None:
        if message.retry_after_seconds > 0:
            known = self._notes.unanswered.get(message.task)
            if known is not None:
                if message.code == "no_code":
                    self._sent_code.pop(known[0].code, None)
                later = self._loop.time() + message.retry_after_seconds
                self._loop.call_at(later, self._try_again, message.task)
            return
        self._told.refused(self._party.name, message.task, message.code)
        self._notes.refused(message.task)

    def _try_again(self, task: TaskId) -> None:
        known = self._notes.unanswered.get(task)
        if known is not None:
            self._submit_spec(known[0], again=True)

    def _replied(self, message: Reply) -> None:
        wish = self._notes.wanted.pop(message.ref, None)
        if wish is not None:
            holder = self._notes.holder_of(wish)
            self._told.replied(self._party.name, wish, holder, message.code)
