"""Workers on the coordinator's own host: the kernel tells of their death by a pidfd.

The guard's report is better, because it names what had started; it gets a moment to come first.
What this adds is the case in which supervisor and guard die together: without it, that would cost
a lease.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from holdfast.coordinator.facts import Death
from holdfast.model.messages import WorkerHello

GUARD_SECONDS = 1.0
"""How long the guard of a dead worker has to tell before we do."""
_WATCHED_MAX = 1_000


class Kindred(Protocol):
    """Watches processes of workers, as far as it can see them."""

    def follow(self, hello: WorkerHello) -> None: ...

    def close(self) -> None: ...


class Kin:
    """Watches the processes of workers that say hello from this very host.

    `here` names this boot and this space of pids, as workers name theirs; `tell` takes the death.
    """

    def __init__(self, here: str, tell: Callable[[Death], None]) -> None:
        self._here = here
        self._tell = tell
        self._watched: dict[tuple[str, int], int] = {}

    def follow(self, hello: WorkerHello) -> None:
        """Watch the process of a worker, where it is one of this host."""
        life = (hello.identity, hello.incarnation)
        if hello.boot != self._here or life in self._watched or len(self._watched) >= _WATCHED_MAX:
            return
        try:
            pidfd = os.pidfd_open(hello.pid)
        except OSError:
            # It is gone already, or no process of ours to see: its guard or its lease will tell.
            return
        self._watched[life] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, life)

    def _ended(self, life: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        pidfd = self._watched.pop(life)
        loop.remove_reader(pidfd)
        os.close(pidfd)
        identity, incarnation = life
        loop.call_later(GUARD_SECONDS, self._tell, Death(identity, incarnation, certain=False))

    def close(self) -> None:
        """Watch nobody any more."""
        for pidfd in self._watched.values():
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._watched.clear()
