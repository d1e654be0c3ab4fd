"""REST for workers, queues and counts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from holdfast.coordinator.desk import Desk
from holdfast.model.limits import NAME_BYTES_MAX
from holdfast.web.answers import json_answer, problems
from holdfast.web.shapes import DrainOut, QueueOut, QueuesOut, StatsOut, WorkersOut

Worker = Annotated[
    str, Path(min_length=1, max_length=NAME_BYTES_MAX, description="Name or identity of a worker.")
]
Queue = Annotated[str, Path(min_length=1, max_length=NAME_BYTES_MAX, pattern=r"^[^+~\x00]+$")]


def router(desk: Desk) -> APIRouter:
    """Return the routes of workers, queues and counts."""
    routes = APIRouter(prefix="/v1", tags=["workers and queues"])

    @routes.get("/workers", response_model=WorkersOut, responses=problems(503))
    async def list_workers() -> Response:
        """List the workers that are connected or hold something, newest first."""
        return json_answer({"workers": await desk.ask("workers")})

    @routes.post("/workers/{worker}/drain", response_model=DrainOut, responses=problems(404, 422))
    async def drain(worker: Worker) -> Response:
        """Let a worker take no more, finish what it runs, and leave."""
        return json_answer(await desk.ask("drain", worker=worker))

    @routes.get("/queues", response_model=QueuesOut, responses=problems(503))
    async def list_queues() -> Response:
        """List the queues that have tasks that have not ended, or are paused."""
        return json_answer({"queues": await desk.ask("queues")})

    @routes.get("/queues/{queue}", response_model=QueueOut, responses=problems(422, 503))
    async def show_queue(queue: Queue) -> Response:
        """Tell how much waits in a queue; one that was never heard of is empty."""
        found = [told for told in await desk.ask("queues") if told["name"] == queue]
        empty = {"paused": False, "queued": 0, "delayed": 0, "running": 0, "oldest_seconds": 0.0}
        return json_answer(found[0] if found else {"name": queue, **empty})

    async def set_paused(queue: str, *, paused: bool) -> Response:
        await desk.set_queue(queue, paused=paused)
        return await show_queue(queue)

    @routes.post("/queues/{queue}/pause", response_model=QueueOut, responses=problems(422, 503))
    async def pause(queue: Queue) -> Response:
        """Start no more tasks of a queue until it is resumed; what runs goes on."""
        return await set_paused(queue, paused=True)

    @routes.post("/queues/{queue}/resume", response_model=QueueOut, responses=problems(422, 503))
    async def resume(queue: Queue) -> Response:
        """Let a paused queue go on."""
        return await set_paused(queue, paused=False)

    @routes.get("/stats", response_model=StatsOut, responses=problems(503))
    async def stats() -> Response:
        """Tell what the coordinator counts."""
        return json_answer(await desk.ask("stats"))

    return routes
