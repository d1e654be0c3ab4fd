"""The web over a staged coordinator: requests in, answers out, scripted workers behind it."""

from __future__ import annotations

import asyncio
import pickle
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from holdfast.blobs.local import LocalBlobs
from holdfast.coordinator.asking import Questions
from holdfast.coordinator.desk import Desk
from holdfast.coordinator.http import Routes
from holdfast.model.ids import IdMint
from holdfast.web.app import application
from holdfast.web.dialect import dialect_of
from holdfast.web.door import Door
from holdfast.web.intake import Intake
from tests.coordinator.stage import Stage, perform

ADD = {"function": "operator:add", "args": [1, 2]}


class Web:
    """One coordinator's web, and a client of it."""

    def __init__(self, stage: Stage, folder: Path, *, dialect: str = "") -> None:
        self.stage = stage
        self.blobs = LocalBlobs(folder / "blobs")
        self.desk = Desk(stage.coordinator, Questions(stage.coordinator, stage.reader))
        self.intake = Intake(
            self.desk, stage.reader, self.blobs, clock=stage.clock, mint=IdMint(stage.rng)
        )
        self.door = Door(lambda: application(self.intake, dialect_of(dialect)))
        routes = Routes(stage.gateway, self.blobs, self.door)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=routes), base_url="http://127.0.0.1"
        )

    async def ask(self, method: str, path: str, status: int, **parts: Any) -> Any:
        """Send a request, see that it is answered with this status, and return the body."""
        answer = await self.client.request(method, path, **parts)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def get(self, path: str, status: int = 200, **parts: Any) -> Any:
        return await self.ask("GET", path, status, **parts)

    async def post(self, path: str, body: Any = None, status: int = 200, **parts: Any) -> Any:
        return await self.ask("POST", path, status, json=body, **parts)

    async def keep(self, **parts: Any) -> str:
        """Submit a task; return its id."""
        told = await self.post("/v1/tasks", ADD | parts, 201)
        return str(told["id"])


def play(
    folder: Path, scene: Callable[[Web], Awaitable[None]], *, dialect: str = "", **settings: Any
) -> None:
    """Run a scene over a fresh coordinator."""

    async def whole(stage: Stage) -> None:
        web = Web(stage, folder, dialect=dialect)
        await web.blobs.open()
        async with asyncio.timeout(60), web.client:
            await scene(web)

    perform(whole, **settings)


def told(value: object) -> str:
    """Return a value as the function service is given it."""
    return b64encode(pickle.dumps(value)).decode()


def read(text: str) -> Any:
    """Return what the function service gave."""
    return pickle.loads(b64decode(text))
