"""Simulated sockets: order, delay, cuts, silence, corruption, and who hears of what."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from holdfast.core.wire import Wire
from holdfast.errors import ChannelClosedError
from holdfast.lab.sim.coverage import CrashPoints, Point
from holdfast.lab.sim.loop import Party, SimCrash, SimLoop
from holdfast.lab.sim.network import FRAMES_MAX, End, Network, SimDialer
from holdfast.model.messages import ClientFrame, ClientHello, Frame, Message, WorkerHello
from holdfast.observe import TaskSet, logger

Play = Callable[["Street"], Coroutine[Any, Any, None]]


class Street:
    """A server and one client on a network."""

    def __init__(self) -> None:
        self.loop = SimLoop(steps_max=100_000, real_seconds_max=20.0)
        self.heard: list[str] = []
        self.deaths: list[Point] = []
        self.server = Party("coordinator", "coordinator")
        self.client = Party("client-0", "client")
        self.points = CrashPoints(self._die)
        self.net = Network(self.loop, random.Random(1), self.points, self)
        self.net.listen(self.server, self._accept)
        self.far: list[End] = []
        self.tasks = TaskSet(logger("test"))
        self.wire: Wire[ClientFrame] = Wire(ClientFrame)

    def _accept(self, far: End) -> None:
        self.far.append(far)

    def _die(self, party: Party, point: Point) -> None:
        self.deaths.append(point)
        self.loop.kill(party)
        self.net.drop(party)

    def sent(self, by: Party, to: str, body: Sequence[Message]) -> None:
        self.heard.append(f"{by.name} sent {len(body)}")

    def read(self, end: End, body: Sequence[Message]) -> None:
        self.heard.append(f"{end.party.name} read")

    async def dial(self) -> tuple[End, End]:
        near = await SimDialer(self.net, self.client).dial()
        return near, self.far[-1]

    def frame(self, *messages: Message) -> bytes:
        return self.wire.write(deque(messages))


def play(scene: Play) -> Street:
    """Play a scene as the client's party to its end, in virtual time."""
    street = Street()
    ended: list[BaseException | None] = []

    async def whole() -> None:
        try:
            await scene(street)
        except (Exception, SimCrash) as error:
            ended.append(error)
        else:
            ended.append(None)

    street.loop.call_soon(street.tasks.start, "scene", whole(), context=street.client.context)
    assert street.loop.run_until(lambda: bool(ended), deadline=1000.0), "the scene hangs"
    for party in (street.client, street.server):
        street.loop.kill(party)
    street.loop.run_until(lambda: True, deadline=street.loop.time())
    street.loop.close()
    if ended[0] is not None:
        raise ended[0]
    return street


HELLO = ClientHello(1, "c", "v", "p")
WORKER_HELLO = WorkerHello(
    1, "w", "w", 1, 2, "", 0, 1, 0, False, (), (), "h", "b", 1, "p", "v", False, (), ()
)


def test_frames_come_in_order_and_late() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        frames = [street.frame(HELLO) for _ in range(20)]
        began = street.loop.time()
        for frame in frames:
            await near.send(frame)
        assert [await far.receive() for _ in frames] == frames
        assert street.loop.time() > began

    street = play(scene)
    assert street.heard.count("client-0 sent 1") == street.heard.count("coordinator read") == 20


def test_what_was_sent_before_a_close_still_comes() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        await near.send(street.frame(HELLO))
        await near.close()
        await far.receive()
        with pytest.raises(ChannelClosedError, match="closed by the peer"):
            await far.receive()
        with pytest.raises(ChannelClosedError):
            await near.send(street.frame())
        with pytest.raises(ChannelClosedError):
            await near.receive()

    play(scene)


def test_a_sender_waits_while_the_reader_is_behind() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        for _ in range(FRAMES_MAX):
            await near.send(street.frame())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await near.send(street.frame())
        await far.receive()
        await near.send(street.frame())

    play(scene)


def test_a_cut_loses_what_is_in_flight_and_both_ends_learn_of_it() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        await near.send(street.frame(HELLO))
        assert street.net.cut("client-0") == 1
        with pytest.raises(ChannelClosedError, match="reset"):
            await far.receive()
        with pytest.raises(ChannelClosedError, match="reset"):
            await near.receive()

    play(scene)


@pytest.mark.parametrize("cut", [False, True])
def test_silence_holds_frames_back_until_it_heals_or_cuts(cut: bool) -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        street.net.silence("client-0", outward=True, inward=False, hanging=False)
        frame = street.frame(HELLO)
        await near.send(frame)
        await far.send(street.frame())
        await near.receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await far.receive()
        street.net.restore("client-0", cut=cut)
        if cut:
            with pytest.raises(ChannelClosedError):
                await far.receive()
        else:
            assert await far.receive() == frame

    play(scene)


def test_a_host_that_is_cut_off_is_refused_or_kept_waiting() -> None:
    async def scene(street: Street) -> None:
        street.net.silence("client-0", outward=True, inward=True, hanging=False)
        with pytest.raises(ChannelClosedError):
            await street.dial()
        street.net.silence("client-0", outward=True, inward=True, hanging=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await street.dial()
        street.net.restore("client-0", cut=False)
        await street.dial()

    play(scene)


def test_a_corrupt_frame_differs_and_counts_as_nothing_heard() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        assert street.net.corrupt("client-0", inward=False) == 1
        first, second = street.frame(HELLO), street.frame(HELLO)
        await near.send(first)
        await near.send(second)
        assert await far.receive() != first
        assert "coordinator read" not in street.heard
        assert await far.receive() == second

    street = play(scene)
    assert "coordinator read" in street.heard


def test_one_frame_vanishes_and_leaves_a_gap() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        first, second = street.frame(HELLO), street.frame(HELLO)
        street.net.swallow(near)
        await near.send(first)
        await near.send(second)
        assert await far.receive() == second

    street = play(scene)
    assert "coordinator read" not in street.heard


def test_a_trap_springs_once_and_before_the_frame_is_sent() -> None:
    async def scene(street: Street) -> None:
        near, _ = await street.dial()
        sprung: list[End] = []
        street.net.trap("client-0", "ClientHello", sprung.append)
        await near.send(street.frame())
        assert not sprung
        await near.send(street.frame(HELLO))
        await near.send(street.frame(HELLO))
        assert sprung == [near]

    play(scene)


@pytest.mark.parametrize("way_out", ["hello", "calm"])
def test_what_is_held_up_comes_after_a_later_hello_or_when_all_heals(way_out: str) -> None:
    async def scene(street: Street) -> None:
        old, old_far = await street.dial()
        street.net.hold_up(old)
        late = street.frame(HELLO)
        await old.send(late)
        street.net.break_off(old)
        with pytest.raises(ChannelClosedError, match="reset"):
            await old.receive()
        new, new_far = await street.dial()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await old_far.receive()
        began = street.loop.time()
        if way_out == "calm":
            street.net.calm()
        else:
            await new.send(street.frame(WORKER_HELLO))
            await new_far.receive()
        assert await old_far.receive() == late
        assert street.loop.time() - began < 1.0
        with pytest.raises(ChannelClosedError, match="closed by the peer"):
            await old_far.receive()

    play(scene)


def test_a_held_up_frame_outlives_its_sender() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        street.net.hold_up(near)
        await near.send(street.frame(HELLO))
        street.net.drop(street.client)
        assert far.unread == 2
        street.net.calm()
        await far.receive()
        assert far.unread == 0

    play(scene)


def test_a_corrupt_head_is_always_seen() -> None:
    street = Street()
    frame = street.frame(HELLO)
    street.loop.close()
    for place in range(2):
        for bit in range(8):
            broken = bytearray(frame)
            broken[place] ^= 1 << bit
            with pytest.raises(Exception, match=r"frame|order"):
                Wire(Frame).read(bytes(broken))


def test_a_burst_of_delay_passes() -> None:
    async def scene(street: Street) -> None:
        near, far = await street.dial()
        street.net.slow_until["client-0"] = (street.loop.time() + 1.0, 5.0)
        began = street.loop.time()
        await near.send(street.frame())
        await far.receive()
        assert street.loop.time() - began > 0.1

    play(scene)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_party_dies_at_a_send(when: str) -> None:
    got: list[bytes] = []

    async def serve(street: Street) -> None:
        far = street.far[-1]
        try:
            while True:
                got.append(await far.receive())
        except ChannelClosedError:
            got.append(b"end")

    async def scene(street: Street) -> None:
        near, _ = await street.dial()
        street.points.arm("client-0", "ClientHello", when, skip=1)
        street.loop.call_soon(
            street.tasks.start, "serve", serve(street), context=street.server.context
        )
        await near.send(street.frame(HELLO))
        await asyncio.sleep(1.0)
        await near.send(street.frame(HELLO))

    with pytest.raises(SimCrash):
        play(scene)
    assert got[0] != b"end"


def test_a_dead_listener_is_not_dialled() -> None:
    async def scene(street: Street) -> None:
        near, _ = await street.dial()
        street.loop.kill(street.server)
        street.net.drop(street.server)
        with pytest.raises(ChannelClosedError):
            await street.dial()
        with pytest.raises(ChannelClosedError):
            await near.receive()

    play(scene)
