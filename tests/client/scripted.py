"""A coordinator that does what a test says, over loopback channels or a real socket.

By default it accepts every submission, runs it in place, and settles it. A test turns on what it
wants otherwise. It keeps all messages it read, session by session.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from holdfast.client.aio_client import AsyncClient
from holdfast.client.client import Client
from holdfast.client.session import Terms
from holdfast.clock import SystemClock
from holdfast.core.wire import Wire
from holdfast.errors import ChannelClosedError
from holdfast.model.ids import IdMint, TaskId, id_text
from holdfast.model.messages import (
    PROTOCOL,
    Accepted,
    Ask,
    ClientHello,
    ClientWelcome,
    Frame,
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
from holdfast.model.outcome import Reason
from holdfast.model.task import Spec, State
from holdfast.observe import TaskSet, logger
from holdfast.payloads import decode_call, decode_function, encode_result, failure_of
from holdfast.ports import Channel
from holdfast.transports.loopback import LoopbackChannel, pair

Judge = Callable[[Spec], Refused | None]


class LoopbackDialer:
    """Opens channels to a server in the same event loop; `serve` gets the far end of each."""

    def __init__(self, serve: Callable[[Channel], Awaitable[None]]) -> None:
        self._serve = serve
        self._tasks = TaskSet(logger("loopback"))

    async def dial(self) -> LoopbackChannel:
        """Open a channel; it closes when `serve` returns."""
        near, far = pair()
        self._tasks.start("serve a loopback", self._until_closed(far))
        return near

    async def close(self) -> None:
        """End what serves."""
        await self._tasks.cancel()

    async def _until_closed(self, far: LoopbackChannel) -> None:
        try:
            await self._serve(far)
        finally:
            await far.close()


class Conversation:
    """One session as the scripted coordinator sees it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.wire: Wire[Frame] = Wire(Frame)
        self.out: deque[Message] = deque()
        self.read: list[Message] = []

    async def flush(self) -> None:
        while self.out or self.wire.ack_due:
            await self.channel.send(self.wire.write(self.out))


class Scripted:
    """The coordinator. Its attributes may be set by a test before, and between, messages."""

    def __init__(self) -> None:
        self.store = "store-1"
        self.protocol = PROTOCOL
        self.accepting = True
        self.settling = True
        self.refuse: Judge = lambda spec: None
        self.run: Callable[[Spec], Settled] = self.run_here
        self.cancel: Callable[..., None] = self.cancel_here
        self.ask: Callable[..., None] = self.ask_here
        self.break_after_submit = 0
        """So many of the next `Submit` messages break the channel instead of being answered."""
        self.welcoming = True
        self.up = True
        self.sessions: list[Conversation] = []
        self.specs: dict[TaskId, Spec] = {}
        self.code: dict[bytes, bytes] = {}
        self.watched: set[TaskId] = set()
        self.states: dict[TaskId, str] = {}
        self.ended: dict[TaskId, Settled] = {}
        self.answers: dict[str, Any] = {}
        self.changed = threading.Condition()
        self.loop: asyncio.AbstractEventLoop | None = None

    # What a test does.

    def wait_for(self, what: str, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until a condition on the messages read holds."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"waited in vain until {what}"

    def read(self, kind: type[Any]) -> list[Any]:
        """Return all messages of a kind, of all sessions."""
        return [each for one in self.sessions for each in one.read if isinstance(each, kind)]

    def do(self, action: Callable[[], None]) -> None:
        """Do something in the coordinator's loop, and send what it left to say."""

        async def main() -> None:
            action()
            if self.sessions:
                await self.sessions[-1].flush()

        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(main(), self.loop).result(10)

    def cut(self) -> None:
        """Break the newest channel."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self.sessions[-1].channel.close(), self.loop).result(10)

    def say(self, message: Message) -> None:
        self.do(lambda: self.sessions[-1].out.append(message))

    def settle_open(self, state: State | None = None) -> None:
        """Settle all that is accepted and not settled, in the order of submission."""

        def action() -> None:
            for task_id, spec in self.specs.items():
                if task_id not in self.ended:
                    self.end(self.sessions[-1], spec, state)

        self.do(action)

    # What it does by itself.

    async def serve(self, channel: Channel) -> None:
        self.loop = asyncio.get_running_loop()
        if not self.up:
            return
        session = Conversation(channel)
        try:
            while True:
                frame = session.wire.read(await channel.receive())
                for message in frame.body:
                    self.take(session, message)
                await session.flush()
        except ChannelClosedError:
            return
        finally:
            with self.changed:
                self.changed.notify_all()

    def take(self, session: Conversation, message: Any) -> None:
        session.read.append(message)
        match message:
            case ClientHello():
                self.hello(session)
            case PutCode(digest, data):
                self.code[digest] = data
            case Submit():
                self.submit(session, message)
            case Watch(tasks):
                self.watch(session, tasks)
            case SetWanted(ref, task, _, waiting):
                self.cancel(session, ref, task, waiting)
            case Ask(ref, question, parameters):
                self.ask(session, ref, question, parameters)
            case Goodbye():
                pass
        with self.changed:
            self.changed.notify_all()

    def hello(self, session: Conversation) -> None:
        if not self.welcoming:
            raise ChannelClosedError("scripted")
        self.sessions.append(session)
        if self.protocol != PROTOCOL:
            session.out.append(Goodbye("protocol_error", "protocol 1; this one speaks 2"))
        else:
            session.out.append(ClientWelcome(PROTOCOL, self.store, 1, "0", "3.11"))

    def submit(self, session: Conversation, message: Submit) -> None:
        if self.break_after_submit:
            self.break_after_submit -= 1
            raise ChannelClosedError("scripted")
        accepted, known = [], []
        by_key = {spec.key: task_id for task_id, spec in self.specs.items() if spec.key}
        for spec in message.specs:
            refusal = self.refuse(spec)
            if refusal is not None:
                session.out.append(refusal)
                continue
            if spec.key in by_key and by_key[spec.key] != spec.id:
                known.append((spec.id, by_key[spec.key]))
            else:
                self.specs.setdefault(spec.id, spec)
            accepted.append(spec.id)
        if not self.accepting:
            return
        if accepted:
            session.out.append(Accepted(tuple(accepted), tuple(known)))
        if self.settling:
            for task_id in accepted:
                held = dict(known).get(task_id, task_id)
                self.end(session, self.specs[held])

    def end(self, session: Conversation, spec: Spec, state: State | None = None) -> None:
        if spec.id not in self.ended:
            if state is None:
                self.ended[spec.id] = self.run(spec)
            else:
                self.ended[spec.id] = Settled(spec.id, state, Reason.NONE, None, None)
        session.out.append(self.ended[spec.id])

    def run_here(self, spec: Spec) -> Settled:
        try:
            args, kwargs = decode_call(spec.payload)
            if spec.code:
                function = decode_function(self.code[spec.code])
            else:
                module, _, name = spec.function.partition(":")
                function = __import__(module, fromlist=["_"])
                for part in name.split("."):
                    function = getattr(function, part)
            value = function(*args, **kwargs)
            if spec.concurrent:
                try:
                    value.send(None)
                except StopIteration as ended:
                    value = ended.value
        except Exception as error:
            return Settled(spec.id, State.FAILED, Reason.ERROR, None, failure_of(error))
        payload = encode_result(value, spill_to=Path(tempfile.gettempdir())).payload
        return Settled(spec.id, State.SUCCEEDED, Reason.NONE, payload, None)

    def watch(self, session: Conversation, tasks: tuple[TaskId, ...]) -> None:
        for task_id in tasks:
            self.watched.add(task_id)
            if task_id in self.ended:
                session.out.append(self.ended[task_id])
            elif task_id not in self.specs:
                session.out.append(Refused(task_id, "unknown_task", "no task has this id"))

    def cancel_here(self, session: Conversation, ref: int, task: TaskId, waiting: bool) -> None:
        state = self.states.get(task, "queued")
        if task in self.ended:
            state = self.ended[task].state.text
            session.out.append(Reply(ref, {"said": "ended", "state": state, "wanted": "run"}))
        elif state == "running" and waiting:
            session.out.append(Reply(ref, {"said": "running", "state": state, "wanted": "run"}))
        elif state == "running":
            session.out.append(Reply(ref, {"said": "asked", "state": state, "wanted": "cancel"}))
        else:
            said = {"said": "done", "state": "cancelled", "wanted": "cancel"}
            session.out.append(Reply(ref, said))
            self.end(session, self.specs[task], State.CANCELLED)

    def ask_here(
        self, session: Conversation, ref: int, question: str, given: dict[str, Any]
    ) -> None:
        if question in self.answers:
            session.out.append(Reply(ref, self.answers[question]))
        elif question == "status":
            found = [t for t in self.specs if id_text(t).startswith(given["task"])]
            if len(found) != 1:
                session.out.append(Reply(ref, None, "unknown_task", "none, or several"))
                return
            state = self.ended[found[0]].state.text if found[0] in self.ended else "queued"
            state = self.states.get(found[0], state)
            session.out.append(Reply(ref, {"id": id_text(found[0]), "state": state}))
        else:
            session.out.append(Reply(ref, None, "unknown_question", f"{question} is not one"))


def terms_of(scripted: Scripted, tmp_path: Path, given: dict[str, Any]) -> Terms:
    """Return the terms of a session over loopback, taking out of `given` what belongs to them."""
    chosen = {name: given.pop(name) for name in Terms.__struct_fields__ if name in given}
    return Terms(
        **{
            "dialers": [LoopbackDialer(scripted.serve)],
            "clock": SystemClock(),
            "rng": random.Random(1),
            "spill_to": tmp_path,
            "version": "0",
            **chosen,
        }
    )


@contextmanager
def client_of(scripted: Scripted, tmp_path: Path, **given: Any) -> Iterator[Client]:
    """Connect a client to a scripted coordinator over loopback, in the client's own loop."""
    terms = terms_of(scripted, tmp_path, given)
    with Client(terms, mint=IdMint(random.SystemRandom()), **given) as client:
        yield client


@asynccontextmanager
async def async_client_of(
    scripted: Scripted, tmp_path: Path, *, connect_seconds: float = 10.0, **given: Any
) -> AsyncIterator[AsyncClient]:
    """Connect a client on the running loop, where the coordinator runs too."""
    terms = terms_of(scripted, tmp_path, given)
    client = AsyncClient(terms, mint=IdMint(random.SystemRandom()), **given)
    await client.open(connect_seconds)
    async with client:
        yield client
