"""The kernel tells of the death of a worker on this host, with real processes."""

from __future__ import annotations

import asyncio
import os

import pytest

from holdfast.coordinator import kin
from holdfast.coordinator.facts import Death
from holdfast.coordinator.kin import Kin
from tests.core.wording import hello

HERE = "boot pid:[1]"


def test_the_end_of_a_process_is_told_after_its_guard_had_its_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kin, "GUARD_SECONDS", 0.01)

    async def scene() -> list[Death]:
        told: list[Death] = []
        heard = asyncio.Event()

        def tell(death: Death) -> None:
            told.append(death)
            heard.set()

        watch = Kin(HERE, tell)
        process = await asyncio.create_subprocess_exec("sleep", "60")
        ours = hello(boot=HERE, pid=process.pid)
        watch.follow(ours)
        watch.follow(ours)
        process.kill()
        async with asyncio.timeout(10):
            await heard.wait()
            await process.wait()
        watch.close()
        return told

    assert [(each.identity, each.certain) for each in asyncio.run(scene())] == [("w", False)]


def test_who_is_not_of_this_host_is_not_watched() -> None:
    async def scene() -> int:
        watch = Kin(HERE, lambda death: None)
        before = len(os.listdir("/proc/self/fd"))
        watch.follow(hello(boot="another boot", pid=os.getpid()))
        watch.follow(hello(boot=HERE, pid=2**22 + 1))
        after = len(os.listdir("/proc/self/fd"))
        watch.close()
        return after - before

    assert asyncio.run(scene()) == 0


def test_what_is_watched_is_let_go_at_the_end() -> None:
    async def scene() -> int:
        before = len(os.listdir("/proc/self/fd"))
        watch = Kin(HERE, lambda death: None)
        watch.follow(hello(boot=HERE, pid=os.getpid()))
        watch.close()
        return len(os.listdir("/proc/self/fd")) - before

    assert asyncio.run(scene()) == 0
