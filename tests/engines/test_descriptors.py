"""The limit of open files: raised for the lanes, refused where it cannot be, kept for user code."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from holdfast.engines.descriptors import BESIDE, PER_BIRTH, PER_LANE, make_room
from holdfast.errors import ConfigurationError
from tests.engines.rig import Rig

ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("slots", "soft", "hard", "raised"),
    [
        (4, 1024, 4096, 1024),
        (300, 1024, ENDLESS, BESIDE + 301 * (PER_LANE + PER_BIRTH)),
        (300, 1024, 2000, 2000),
        (1000, ENDLESS, ENDLESS, ENDLESS),
        (1000, 20_000, 20_000, 20_000),
    ],
)
def test_the_limit_is_raised_as_far_as_the_lanes_need_it(
    monkeypatch: pytest.MonkeyPatch, slots: int, soft: int, hard: int, raised: int
) -> None:
    limits = {resource.RLIMIT_NOFILE: (soft, hard)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    assert make_room(slots) == soft
    assert limits[resource.RLIMIT_NOFILE] == (raised, hard)


def test_slots_that_cannot_fit_are_refused_with_the_number_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    with pytest.raises(ConfigurationError, match=r"300 slots need 1870 .* have 1024: give --slots"):
        make_room(300)
    with pytest.raises(ConfigurationError, match="give --slots 159 at most"):
        make_room(160)
    assert make_room(159) == 1024


def test_user_code_sees_the_limit_that_the_user_has(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    async def main() -> None:
        async with Rig(tmp_path, open_files_max=777) as rig:
            for lane in (0, 2):
                seen = await rig.value("resource:getrlimit", resource.RLIMIT_NOFILE, lane=lane)
                assert list(seen) == [777, hard]

    asyncio.run(main())
