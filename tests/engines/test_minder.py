"""What a child has left: ended before its death is told, or counted where it does not end."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

import pytest

from holdfast.engines import ending, minder, process
from holdfast.engines.packets import Exited
from tests.engines.rig import Rig


def test_what_does_not_end_is_counted_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minder, "CLEAR_SECONDS_MAX", 0.01)
    struck: list[int] = []

    def strike(since: int) -> bool:
        struck.append(since)
        return len(struck) > 100

    monkeypatch.setattr(ending, "strike", strike)
    monkeypatch.setattr(ending, "descendants", lambda root, since: [101, 102])
    assert minder.clear(7) == 2
    assert set(struck) == {7}
    assert len(struck) > 1
    struck.extend(range(100))
    assert minder.clear(7) == 0


def test_a_death_that_leaves_something_is_told_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with Rig(tmp_path) as rig:
            await rig.run("nothing")
            life = rig.engine._lives[0]
            assert life is not None
            rig.engine.kill(0)
            rig.engine._exited(Exited(life.serial, signal.SIGKILL, 2))
            assert (await rig.death()).killed

    with caplog.at_level(logging.WARNING, logger="holdfast.engines"):
        asyncio.run(scene())
    assert "lane 0: 2 processes of a task that was cut off do not end" in caplog.text


def test_a_death_of_which_nobody_tells_is_told_after_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "WORD_SECONDS", 0.05)

    async def scene() -> None:
        async with Rig(tmp_path) as rig:
            token = rig.start("forever", str(tmp_path / "mark"))
            await rig.until("it runs", (tmp_path / "mark").exists)
            life = rig.engine._lives[0]
            assert life is not None
            rig.engine._ended(life)
            assert (await rig.death()).begun == (token,)

    with caplog.at_level(logging.WARNING, logger="holdfast.engines"):
        asyncio.run(scene())
    assert "lane 0: nobody tells how its child ended" in caplog.text
