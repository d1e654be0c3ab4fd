"""A process engine with real processes, driven by a test, and what it reported."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.engines.process import ProcessEngine
from holdfast.model.ids import TaskId, Token
from holdfast.model.messages import Ended
from holdfast.payloads import decode_result, encode_call
from holdfast.ports import LaneDeath, Order

BODIES = "tests.engines.bodies"
WAIT_SECONDS = 20.0


class Rig:
    """An engine's listener that keeps all it hears, and hands orders for short."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.engine = ProcessEngine(
            state_dir=folder / "state", guard_death=self._guard_died, **settings
        )
        self.ended: dict[Token, tuple[int, Ended, str]] = {}
        self.deaths: list[tuple[int, LaneDeath]] = []
        self.falls: list[dict[int, LaneDeath]] = []
        self.writable: list[int] = []
        self.out = {False: bytearray(), True: bytearray()}
        self.guard_deaths = 0
        self.failures: list[Exception] = []
        self._news = asyncio.Event()
        self._fence = 0

    async def __aenter__(self) -> Rig:
        await self.engine.open(self, lanes=2)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()
        self.engine.guard.hang_up()
        await self.engine.guard.gone()
        assert not self.failures, self.failures

    def attempt_ended(self, lane: int, ended: Ended, result_path: str) -> None:
        assert ended.token not in self.ended, "an attempt ended twice"
        self.ended[ended.token] = (lane, ended, result_path)
        self._news.set()

    def lane_died(self, lane: int, death: LaneDeath) -> None:
        self.deaths.append((lane, death))
        self._news.set()

    def all_died(self, deaths: Sequence[tuple[int, LaneDeath]]) -> None:
        self.falls.append(dict(deaths))
        self._news.set()

    def lane_writable(self, lane: int) -> None:
        self.writable.append(lane)
        self._news.set()

    def printed(self, lane: int, *, error: bool, data: bytes) -> None:
        self.out[error] += data
        self._news.set()

    def failed(self, error: Exception) -> None:
        self.failures.append(error)
        self._news.set()

    def _guard_died(self) -> None:
        self.guard_deaths += 1
        self._news.set()

    def order(self, name: str, *args: Any, **changes: Any) -> Order:
        """Return an order of a body, or of `module:qualname`."""
        self._fence += 1
        encoded = encode_call(args, {}, spill_to=self.folder)
        values: dict[str, Any] = {
            "task": TaskId(os.urandom(16)),
            "token": Token(os.urandom(16)),
            "fence": self._fence,
            "function": name if ":" in name else f"{BODIES}:{name}",
            "payload": encoded.payload,
            "payload_path": encoded.path,
        }
        return Order(**values | changes)

    def start(self, name: str, *args: Any, lane: int = 0, **changes: Any) -> Token:
        """Hand an order and return its token."""
        order = self.order(name, *args, **changes)
        assert self.engine.hand(lane, order)
        return order.token

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, looking again at whatever is heard."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self._news.clear()
                try:
                    # A file of a child makes no news here, so that it is looked for again.
                    await asyncio.wait_for(self._news.wait(), 0.01)
                except TimeoutError:
                    continue
        assert condition(), what

    async def outcome(self, token: Token) -> Ended:
        """Wait for the outcome of an attempt."""
        await self.until("the attempt ended", lambda: token in self.ended)
        return self.ended[token][1]

    async def run(self, name: str, *args: Any, lane: int = 0, **changes: Any) -> Ended:
        """Hand an order and wait for its outcome."""
        return await self.outcome(self.start(name, *args, lane=lane, **changes))

    async def value(self, name: str, *args: Any, lane: int = 0, **changes: Any) -> Any:
        """Hand an order, wait for its outcome and return the result."""
        ended = await self.run(name, *args, lane=lane, **changes)
        assert ended.failure is None, ended.failure
        return decode_result(ended.result, self.ended[ended.token][2])

    async def death(self) -> LaneDeath:
        """Wait for the next death and return it."""
        await self.until("a lane died", lambda: self.deaths)
        return self.deaths.pop(0)[1]

    async def fall(self) -> dict[int, LaneDeath]:
        """Wait until all lanes died at once, and return their deaths."""
        await self.until("all lanes died", lambda: self.falls)
        return self.falls.pop(0)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs: one that is a zombie, or gone, does not."""
    return _stat(pid)[0] not in (b"Z", b"X")


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [b"X"]
