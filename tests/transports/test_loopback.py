"""Channels within one loop."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import ChannelClosedError
from holdfast.transports.loopback import pair


def test_frames_arrive_in_order_and_a_slow_reader_holds_the_sender() -> None:
    async def main() -> None:
        near, far = pair(here="n", there="f")
        assert (near.peer, far.peer) == ("f", "n")
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(200):
                await near.send(b"%d" % number)
                sent += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            assert await far.receive() == b"0"
            assert sent < 200
            assert [await far.receive() for _ in range(199)] == [b"%d" % n for n in range(1, 200)]

    asyncio.run(main())


def test_a_close_breaks_both_ends_after_what_was_sent() -> None:
    async def main() -> None:
        near, far = pair()
        await near.send(b"last")
        await near.close("x")
        await far.close()
        assert await far.receive() == b"last"
        for end in (near, far):
            with pytest.raises(ChannelClosedError):
                await end.receive()
            with pytest.raises(ChannelClosedError):
                await end.send(b"x")

    asyncio.run(main())
