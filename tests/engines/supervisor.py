"""A worker's supervisor in small, as a program of its own that a test can kill.

Arguments: a folder, and the URL of the coordinator. It starts a family of processes in a task,
tells the guard of three tokens, writes the pids of all into `pids`, and waits. At SIGUSR2 it leaves
in good order: it closes its engine, writes `closed`, tells the guard what it has spooled since, and
waits for its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from holdfast.model.ids import Token
from tests.engines.rig import Rig, parent_of

STARTED, SPOOLED, DONE = (Token(letter * 16) for letter in (b"s", b"p", b"d"))


async def supervise(folder: Path, url: str) -> None:
    async with Rig(folder, adopts=True) as rig:
        guard = rig.engine.guard
        guard.session(url="http://127.0.0.1:1", identity="old", incarnation=1, last_word="old")
        guard.session(url=url, identity="worker-1", incarnation=7, last_word="farewell")
        guard.started([STARTED, SPOOLED, DONE])
        guard.spooled([SPOOLED, DONE])
        guard.done([DONE])
        child = await rig.value("pid")
        family = folder / "family"
        rig.start("start_family", str(family), "hold")
        await rig.until("the family is there", family.exists)
        nursery = parent_of(parent_of(child))
        pids = f"{child} {nursery} {guard.pid} {family.read_text(encoding='utf-8')}"
        (folder / "pids.part").write_text(pids, encoding="utf-8")
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, asked.set)
        os.rename(folder / "pids.part", folder / "pids")
        await asked.wait()
        await rig.engine.close()
        guard.spooled([STARTED])
        (folder / "closed").touch()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(supervise(Path(sys.argv[1]), sys.argv[2]))
