"""Settings: what the environment and the command line say, read in one place.

Only `cli` and `wiring` read it. Each setting has one name: `--state-dir` is `HOLDFAST_STATE_DIR`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import ConfigurationError
from holdfast.model.limits import (
    EMBEDDED_LINGER_SECONDS,
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    NAME_BYTES_MAX,
    RESERVED_SIGNS,
    SLOTS_MAX,
)

STATE_DIR = ".holdfast"
_KEPT_BY = "HOLDFAST_KEPT_BY"
"""Tells what a worker starts, tasks and all, whose worker it is."""
PORT = 7700
_CONCURRENT_SLOTS = 64
RECYCLE_TASKS = 10_000
_LEASE_SECONDS_MIN = 0.5
_LEASE_SECONDS_MAX = 24 * 3600.0
NO_PORT = -1
_PORT_MAX = 65_535
_WORKERS_MAX = 1_000
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the coordinator is: a URL, or the state directory of an embedded one."""

    url: str
    state_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """How one coordinator runs. `port` `NO_PORT`: on the unix socket of its state directory alone;
    0: on a free port too."""

    state_dir: Path
    host: str = "127.0.0.1"
    port: int = NO_PORT
    durability: str = "full"
    lease_seconds: float = LEASE_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    embedded: bool = False
    linger_seconds: float = EMBEDDED_LINGER_SECONDS
    workers: int = 0
    slots: int = 0
    path: tuple[str, ...] = ()
    dialect: str = ""
    """How the function service speaks; see `web.dialect`."""
    ready_fd: int = -1

    def __post_init__(self) -> None:
        if not _LEASE_SECONDS_MIN <= self.lease_seconds <= _LEASE_SECONDS_MAX:
            raise ConfigurationError(
                f"--lease {self.lease_seconds}: {_LEASE_SECONDS_MIN} to {_LEASE_SECONDS_MAX:g} "
                "seconds"
            )
        if self.durability not in ("full", "normal"):
            raise ConfigurationError(f"--durability {self.durability!r}: full or normal")
        if self.port != NO_PORT:
            checked_port(self.port)
        if not 0 <= self.workers <= _WORKERS_MAX:
            raise ConfigurationError(f"--workers {self.workers}: 0 to {_WORKERS_MAX}")
        _check_slots(self.slots)
        if not _is_loopback(self.host):
            raise ConfigurationError(
                f"--host {self.host}: this release has no authentication, so that whoever reaches "
                f"the port could run code as you; it listens on {', '.join(_LOOPBACK)} only. "
                "From another machine, come through a tunnel (ssh -L)"
            )


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
    recycle_tasks: int = RECYCLE_TASKS
    recycle_bytes: int = 0
    """Above so much memory a child is replaced between two tasks; 0: its share of what there is."""
    path: tuple[str, ...] = ()
    embedded: bool = False
    """Kept by a coordinator of a folder: it leaves when that one is gone for good."""
    log_to: Path | None = None

    def __post_init__(self) -> None:
        _check_slots(self.slots)
        if self.recycle_tasks < 1:
            raise ConfigurationError(f"--recycle-tasks {self.recycle_tasks}: 1 or more")
        if self.recycle_bytes < 0:
            raise ConfigurationError("--recycle-memory: 1 or more, in MiB")
        if not self.name.isprintable() or len(self.name) > NAME_BYTES_MAX:
            raise ConfigurationError(
                f"--name {self.name[:40]!r} is not a text of at most {NAME_BYTES_MAX} characters "
                "without control characters"
            )
        for option, words in (("--queues", self.queues), ("--tags", self.tags)):
            for word in words:
                _check_word(option, word)


def place(
    url: str | None, state_dir: str | Path | None, environment: Mapping[str, str] = os.environ
) -> Place:
    """Return where to connect: arguments first, then `HOLDFAST_URL` and `HOLDFAST_STATE_DIR`.

    What is empty in the environment is not set. Raises ConfigurationError for an argument that is
    empty, or no text.
    """
    # What a user gives has any type, whatever the annotations say.
    for name, given, kinds in (("url", url, str), ("state_dir", state_dir, (str, os.PathLike))):
        if given is not None and not isinstance(given, kinds):
            raise ConfigurationError(f"{name}={given!r} is not a text")
        if given == "":
            raise ConfigurationError(f"{name} is empty: leave it out, or say where")
    directory = Path(state_dir or environment.get("HOLDFAST_STATE_DIR") or STATE_DIR)
    if url is None and state_dir is None:
        url = environment.get("HOLDFAST_URL")
    return Place(url=url or "", state_dir=directory)


def mark_of(state_dir: Path) -> str:
    """Return what an embedded coordinator is known by to what its workers run."""
    return hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:32]


def environment_kept_by(mark: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a worker that the coordinator with this mark keeps."""
    return {**environment, _KEPT_BY: mark}


def kept_by(environment: Mapping[str, str] = os.environ) -> str:
    """Return the mark of the coordinator whose worker started this process, "" for none."""
    return environment.get(_KEPT_BY, "")


def checked_port(port: int) -> int:
    """Return a port to listen on. Raises ConfigurationError."""
    if not 0 <= port <= _PORT_MAX:
        raise ConfigurationError(f"--port {port}: 0 (a free one) to {_PORT_MAX}")
    return port


def _check_slots(slots: int) -> None:
    if not 0 <= slots <= SLOTS_MAX:
        raise ConfigurationError(f"--slots {slots}: 0 (one for each processor) to {SLOTS_MAX}")


def _check_word(option: str, word: str) -> None:
    """Refuse what no task can name: an offer of it would wait for ever."""
    if not 0 < len(word) <= NAME_BYTES_MAX:
        raise ConfigurationError(f"{option} {word[:40]!r} is not a text of 1 to {NAME_BYTES_MAX}")
    if any(sign in word for sign in RESERVED_SIGNS):
        raise ConfigurationError(
            f"{option} {word!r} has one of '+', '~' and NUL in it, and no task can ask for that"
        )
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{option} {word!r} is no Unicode text") from None


def _is_loopback(host: str) -> bool:
    numbers = host.split(".")
    return host in _LOOPBACK or (
        len(numbers) == 4 and numbers[0] == "127" and all(n.isdecimal() for n in numbers)
    )


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
