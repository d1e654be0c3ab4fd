"""Settings: arguments before the environment, and what cannot be is refused by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from holdfast import config
from holdfast.config import CoordinatorSettings, WorkerSettings, place, processors
from holdfast.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "state_dir", "environment", "expected"),
    [
        (None, None, {}, ("", ".holdfast")),
        (None, None, {"HOLDFAST_URL": "http://a:1"}, ("http://a:1", ".holdfast")),
        (None, None, {"HOLDFAST_STATE_DIR": "there"}, ("", "there")),
        ("http://b:2", None, {"HOLDFAST_URL": "http://a:1"}, ("http://b:2", ".holdfast")),
        (None, "here", {"HOLDFAST_URL": "http://a:1"}, ("", "here")),
        (None, None, {"HOLDFAST_URL": "", "HOLDFAST_STATE_DIR": ""}, ("", ".holdfast")),
    ],
)
def test_arguments_come_before_the_environment(
    url: str | None,
    state_dir: str | None,
    environment: dict[str, str],
    expected: tuple[str, str],
) -> None:
    found = place(url, state_dir, environment)
    assert (found.url, str(found.state_dir)) == expected


@pytest.mark.parametrize(
    ("named", "url", "state_dir"),
    [
        ("url is empty", "", None),
        ("state_dir is empty", None, ""),
        ("url=5", 5, None),
        ("url=b'http", b"http://a:1", None),
        ("state_dir=5", None, 5),
    ],
)
def test_a_place_that_is_none_is_refused(named: str, url: Any, state_dir: Any) -> None:
    with pytest.raises(ConfigurationError, match=named):
        place(url, state_dir, {"HOLDFAST_URL": "http://a:1"})


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ("--lease", {"lease_seconds": 0.1}),
        ("--lease", {"lease_seconds": float("nan")}),
        ("--lease", {"lease_seconds": float("inf")}),
        ("--durability", {"durability": "hopeful"}),
        ("--port", {"port": 65_536}),
        ("--port", {"port": -2}),
        ("--workers", {"workers": -1}),
        ("--slots", {"slots": -1}),
        ("no authentication", {"host": "0.0.0.0"}),
        ("no authentication", {"host": "127.evil.example"}),
        ("no authentication", {"host": ""}),
        ("no authentication", {"host": "::"}),
    ],
)
def test_what_cannot_be_is_refused(named: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=named):
        CoordinatorSettings(state_dir=Path("x"), **settings)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_is_let_through(host: str) -> None:
    assert CoordinatorSettings(state_dir=Path("x"), host=host).host == host


def test_a_worker_has_no_negative_slots() -> None:
    with pytest.raises(ConfigurationError, match="--slots"):
        WorkerSettings(urls=(), state_dir=Path("x"), slots=-1)


def test_processors_are_those_that_we_may_use() -> None:
    assert processors() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ("--name", {"name": "\ud800"}),
        ("--queues", {"queues": ("a", "\udcff")}),
        ("--tags", {"tags": ("\udcff",)}),
        ("--queues", {"queues": ("a+b",)}),
        ("--queues", {"queues": ("",)}),
        ("--queues", {"queues": ("q" * 513,)}),
        ("--tags", {"tags": ("a", "~")}),
        ("--tags", {"tags": ("a\0",)}),
        ("--name", {"name": "a\nb"}),
        ("--name", {"name": "\x1b[31m"}),
        ("--name", {"name": "n" * 513}),
    ],
)
def test_a_worker_offers_what_a_task_can_ask_for(named: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=named):
        WorkerSettings(urls=(), state_dir=Path("x"), **settings)


def test_what_a_worker_starts_knows_whose_worker_it_is(tmp_path: Path) -> None:
    mark = config.mark_of(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    assert mark == config.mark_of(tmp_path / "link")
    assert mark != config.mark_of(tmp_path / "other")
    environment = config.environment_kept_by(mark, {"PATH": "/bin"})
    assert environment["PATH"] == "/bin"
    assert config.kept_by(environment) == mark
    assert config.kept_by({}) == ""
