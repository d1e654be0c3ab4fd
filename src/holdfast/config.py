"""Settings: what the environment and the command line say, read in one place.

Only `cli` and `wiring` read it. Each setting has one name: `--state-dir` is `HOLDFAST_STATE_DIR`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import ConfigurationError
from holdfast.model.limits import (
    EMBEDDED_LINGER_SECONDS,
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
)

STATE_DIR = ".holdfast"
PORT = 7700
_CONCURRENT_SLOTS = 64
_LEASE_SECONDS_MIN = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """Where the coordinator is: a URL, or the state directory of an embedded one."""

    url: str
    state_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """How one coordinator runs. `port` -1: on the unix socket of its state directory alone;
    0: on a free port too."""

    state_dir: Path
    host: str = "127.0.0.1"
    port: int = -1
    durability: str = "full"
    lease_seconds: float = LEASE_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    embedded: bool = False
    linger_seconds: float = EMBEDDED_LINGER_SECONDS
    workers: int = 0
    slots: int = 0
    path: tuple[str, ...] = ()
    ready_fd: int = -1

    def __post_init__(self) -> None:
        if self.lease_seconds < _LEASE_SECONDS_MIN:
            raise ConfigurationError(
                f"--lease {self.lease_seconds}: at least {_LEASE_SECONDS_MIN} seconds"
            )
        if self.durability not in ("full", "normal"):
            raise ConfigurationError(f"--durability {self.durability!r}: full or normal")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How one worker runs. `slots` 0: one for each processor that it may use."""

    urls: tuple[str, ...]
    state_dir: Path
    name: str = ""
    slots: int = 0
    concurrent_slots: int = _CONCURRENT_SLOTS
    pull: bool = False
    queues: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    orphan_seconds: float = 0.0
    log_to: Path | None = None


def place(
    url: str | None, state_dir: str | Path | None, environment: Mapping[str, str] = os.environ
) -> Place:
    """Return where to connect: arguments first, then `HOLDFAST_URL` and `HOLDFAST_STATE_DIR`."""
    directory = Path(state_dir or environment.get("HOLDFAST_STATE_DIR") or STATE_DIR)
    if url is None and state_dir is None:
        url = environment.get("HOLDFAST_URL")
    return Place(url=url or "", state_dir=directory)


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
