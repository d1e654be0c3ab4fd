"""Commands about workers and about the release."""

from __future__ import annotations

import json
import platform
from typing import Any

from holdfast import __version__
from tests.cli.conftest import CommandLine

WORKER: dict[str, Any] = {
    "name": "one",
    "state": "connected",
    "holds": 1,
    "slots": 2,
    "mode": "push",
    "queues": [],
    "tags": ["gpu"],
    "host": "here",
    "pid": 7,
    "heard_seconds_ago": 0.25,
}


def test_workers_are_listed(cli: CommandLine) -> None:
    said = cli("workers", workers=lambda: [WORKER])
    assert said.out.split() == "one connected 1/2 push all gpu here:7 0.2 s ago".split()
    assert json.loads(cli("workers", "--json", workers=lambda: [WORKER]).out) == [WORKER]
    assert cli("workers", workers=list).out == ""


def test_a_worker_is_drained_by_name(cli: CommandLine) -> None:
    told = {"worker": "one", "draining": True}
    assert cli("drain", "one", drain=lambda name: told).out == "one is draining\n"
    assert json.loads(cli("drain", "one", "--json", drain=lambda name: told).out) == told


def test_the_version_names_both(cli: CommandLine) -> None:
    assert cli("version").out == f"holdfast {__version__} (Python {platform.python_version()})\n"
    assert json.loads(cli("version", "--json").out)["holdfast"] == __version__
