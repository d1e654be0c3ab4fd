"""Simulated children: they take orders up, run for so long as their arguments say, and may die.

Owns the race between a child and `take_back` (whoever comes first in virtual time has the order),
and tells the witness of every begin and end of user code. What a child reports takes a moment to
reach its worker, and is lost with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from holdfast.lab.sim.coverage import CrashPoints
from holdfast.lab.sim.disk import WorkerDisk
from holdfast.lab.sim.loop import Party, SimLoop
from holdfast.lab.sim.witness import (
    ENDINGS,
    Behaviour,
    Run,
    Witness,
    doing,
    failure_of,
    result_of,
)
from holdfast.model.ids import Token
from holdfast.model.messages import Ended
from holdfast.model.outcome import Encoding, Failure, OutcomeKind, Payload
from holdfast.ports import EngineListener, LaneDeath, Order

PIPE_SECONDS = (0.00002, 0.0005)
LANE_ORDERS_MAX = 48
TOGETHER_MAX = 64
FOREVER_SECONDS = 100_000.0
TASK_CANCELLED = "holdfast.engines.current.TaskCancelled"


class Lane:
    """One lane: what waits in it, what its child runs, and whether that child has just died."""

    __slots__ = ("death", "queue", "running", "together")

    def __init__(self, together: int) -> None:
        self.together = together
        self.queue: dict[Token, Order] = {}
        self.running: dict[Token, tuple[Run, Order]] = {}
        self.death: tuple[tuple[Token, ...], bool, bool] | None = None
        """What the dead child had begun, whether we killed it, whether memory ran out."""


class SimEngine:
    """`ports.Engine` of one worker process."""

    def __init__(
        self,
        loop: SimLoop,
        party: Party,
        disk: WorkerDisk,
        *,
        rng: random.Random,
        points: CrashPoints,
        witness: Witness,
        incarnation: int,
        handing: Callable[[Order], None],
    ) -> None:
        """`handing` is told of each order before a child can take it up."""
        self._loop = loop
        self._party = party
        self._disk = disk
        self._rng = rng
        self._points = points
        self._witness = witness
        self._incarnation = incarnation
        self._handing = handing
        self._listener: EngineListener | None = None
        self._lanes: list[Lane] = []
        self._over = False

    # The port.

    async def open(self, listener: EngineListener, *, lanes: int) -> None:
        """Make the lanes."""
        self._party.alive()
        await asyncio.sleep(self._rng.random() * 0.05)
        self._party.alive()
        self._listener = listener
        self._lanes = [Lane(1) for _ in range(lanes)] + [Lane(TOGETHER_MAX)]

    def hand(self, lane: int, order: Order) -> bool:
        """Put an order into a lane; False where it has no room."""
        self._party.alive()
        place = self._lanes[lane]
        if len(place.queue) >= LANE_ORDERS_MAX:
            return False
        with self._points.around(self._party, "child order"):
            self._handing(order)
            place.queue[order.token] = order
            self._loop.later(self._pipe(), self._take_up, lane)
        return True

    def take_back(self, lane: int) -> list[Token]:
        """Return the orders that no child has taken up."""
        self._party.alive()
        with self._points.around(self._party, "child take back"):
            tokens = list(self._lanes[lane].queue)
            self._lanes[lane].queue.clear()
        return tokens

    def interrupt(self, lane: int, token: Token) -> None:
        """Raise `TaskCancelled` in user code, which a stubborn one does not heed."""
        self._party.alive()
        with self._points.around(self._party, "child interrupt"):
            self._loop.later(self._pipe(), self._interrupted, lane, token)

    def kill(self, lane: int) -> None:
        """SIGKILL the lane's child."""
        self._party.alive()
        with self._points.around(self._party, "child kill"):
            self._die(lane, killed=True, out_of_memory=False)

    async def close(self, *, farewell: bool = True) -> None:
        """End all children. Of a worker that ends suddenly its host tells, whatever it says."""
        self._party.alive()
        self.end("killed")
        await asyncio.sleep(self._pipe())

    # The world's side.

    def fail(self, *, every: bool) -> bool:
        """Let the first child that runs something die, or `every` child; False where none does."""
        busy = [number for number, lane in enumerate(self._lanes) if lane.running]
        if self._over or not busy:
            return False
        if every:
            for number in range(len(self._lanes)):
                self._mark(number, killed=False, out_of_memory=False)
            self._tell(self._bury_all)
        else:
            self._die(busy[0], killed=False, out_of_memory=False)
        return True

    def end(self, how: str) -> None:
        """Let all children die, and report nothing: the worker is gone, or is going."""
        self._over = True
        for lane in self._lanes:
            for run, _ in lane.running.values():
                self._witness.ended(run, how, self._loop.time())
            lane.running.clear()
            lane.queue.clear()

    def _pipe(self) -> float:
        return self._rng.uniform(*PIPE_SECONDS)

    def _take_up(self, number: int) -> None:
        lane = self._lanes[number]
        if self._over or lane.death is not None or self._party.dead:
            # A child whose worker has died reads the end of its orders before the next one.
            return
        while lane.queue and len(lane.running) < lane.together:
            token = next(iter(lane.queue))
            order = lane.queue.pop(token)
            run = self._witness.began(
                order,
                worker=self._disk.identity,
                incarnation=self._incarnation,
                now=self._loop.time(),
            )
            order = self._read(order, run)
            lane.running[token] = (run, order)
            self._loop.later(self._seconds(order), self._ran, number, run, order)
            self._notify(number, room=len(lane.queue) == LANE_ORDERS_MAX - 1)

    def _read(self, order: Order, run: Run) -> Order:
        """Return an order with its large arguments inline, as the child has read them."""
        if not order.payload.digest:
            return order
        data = self._disk.files.get(order.payload_path)
        if data is None:
            self._witness.robbed.append(run)
            data = msgspec.json.encode(Behaviour("environment", 1))
        return replace(order, payload=Payload(order.payload.encoding, data))

    def _seconds(self, order: Order) -> float:
        behaviour = doing(order.payload, order.fence, {})
        # A stubborn one ends by being killed only, so that a worker which never does is seen.
        endless = behaviour.do in ("forever", "stubborn")
        return FOREVER_SECONDS if endless else behaviour.ms / 1000

    def _ran(self, number: int, run: Run, order: Order) -> None:
        lane = self._lanes[number]
        if lane.running.get(order.token, (None, None))[0] is not run:
            return
        if order.payload_path and order.payload_path not in self._disk.files:
            # A child opens them only once the module of its function is imported.
            self._witness.robbed.append(run)
        behaviour = doing(order.payload, order.fence, {})
        if behaviour.do in ("crash", "out_of_memory"):
            self._die(number, killed=False, out_of_memory=behaviour.do == "out_of_memory")
            return
        kind = ENDINGS[behaviour.do]
        self._ended(number, order, _ending(order, behaviour, kind, run), kind.text)

    def _interrupted(self, number: int, token: Token) -> None:
        run, order = self._lanes[number].running.get(token, (None, None))
        if run is None or order is None or doing(order.payload, order.fence, {}).do == "stubborn":
            return
        failure = Failure(types=(TASK_CANCELLED,), message="interrupted")
        ended = Ended(order.task, token, OutcomeKind.RAISED, failure=failure)
        self._ended(number, order, ended, "interrupted")

    def _ended(self, number: int, order: Order, ended: Ended, how: str) -> None:
        lane = self._lanes[number]
        run, _ = lane.running.pop(order.token)
        self._witness.ended(run, how, self._loop.time())
        path = ""
        if ended.kind is OutcomeKind.SUCCEEDED and ended.result is None:
            path = f"results/{order.token.hex()}"
            self._disk.files[path] = result_of(order.task, order.fence, "big")
        self._tell(self._report, number, ended, path)
        self._loop.later(self._pipe(), self._take_up, number)

    def _die(self, number: int, *, killed: bool, out_of_memory: bool) -> None:
        if not self._over and self._mark(number, killed=killed, out_of_memory=out_of_memory):
            self._tell(self._bury, number)

    def _mark(self, number: int, *, killed: bool, out_of_memory: bool) -> bool:
        """Let the child of a lane be dead; False where it is."""
        lane = self._lanes[number]
        if lane.death is not None:
            return False
        lane.death = (tuple(lane.running), killed, out_of_memory)
        how = "killed" if killed else "out_of_memory" if out_of_memory else "crashed"
        for run, _ in lane.running.values():
            self._witness.ended(run, how, self._loop.time())
        lane.running.clear()
        return True

    # What reaches the worker, as a callback of its own.

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        when = self._loop.time() + self._pipe()
        self._loop.call_at(when, callback, *args, context=self._party.context)

    def _report(self, number: int, ended: Ended, path: str) -> None:
        if self._listener is not None and not self._over:
            self._listener.attempt_ended(number, ended, path)

    def _bury(self, number: int) -> None:
        death = self._death_of(number)
        if death is not None and self._listener is not None and not self._over:
            self._listener.lane_died(number, death)

    def _bury_all(self) -> None:
        """The children died at once, and what became of one before is not told any more."""
        found = ((number, self._death_of(number)) for number in range(len(self._lanes)))
        deaths = [(number, death) for number, death in found if death is not None]
        if self._listener is not None and not self._over:
            self._listener.all_died(deaths)

    def _death_of(self, number: int) -> LaneDeath | None:
        """Return how the child of a lane died; a fresh one takes the lane."""
        lane = self._lanes[number]
        if lane.death is None:
            return None
        begun, killed, out_of_memory = lane.death
        untouched = tuple(lane.queue)
        lane.queue.clear()
        lane.death = None
        return LaneDeath(
            begun=begun,
            untouched=untouched,
            signal=9 if killed or out_of_memory else 11,
            exit_code=0,
            killed=killed,
            out_of_memory=out_of_memory,
            last_words="",
        )

    def _notify(self, number: int, *, room: bool) -> None:
        if room:
            self._tell(self._writable, number)

    def _writable(self, number: int) -> None:
        if self._listener is not None and not self._over:
            self._listener.lane_writable(number)


def _ending(order: Order, behaviour: Behaviour, kind: OutcomeKind, run: Run) -> Ended:
    result: Payload | None = None
    failure: Failure | None = None
    if kind is not OutcomeKind.SUCCEEDED:
        failure = failure_of(order.task, order.fence, behaviour.do)
    elif behaviour.do != "big":
        data = result_of(order.task, order.fence, behaviour.do)
        result = Payload(Encoding.JSON, data)
    return Ended(order.task, order.token, kind, result, failure, behaviour.ms * 1000)
