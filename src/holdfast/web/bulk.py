"""Verbs for many tasks, by filter. Each can be tried without effect first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Response

from holdfast.coordinator.desk import Desk
from holdfast.model.ids import TaskId, id_text, parse_id
from holdfast.model.task import Spec, Wanted
from holdfast.web.answers import json_answer, problems
from holdfast.web.intake import Intake
from holdfast.web.problems import Problem
from holdfast.web.shapes import BatchNew, BatchOut, Bulk, BulkOut, Chosen

_PAGE = 200
_SAMPLE = 10
_LIVE = ("queued", "running", "paused")
_OVER = ("succeeded", "failed", "cancelled")
Apply = Callable[[Sequence[TaskId]], Awaitable[int]]
"""Does it to these tasks; returns on how many it took effect."""


def router(intake: Intake) -> APIRouter:
    """Return the routes of verbs for many tasks."""
    routes = APIRouter(prefix="/v1/bulk", tags=["many tasks"])
    desk, told = intake.desk, problems(422, 429, 503)

    @routes.post("/submit", response_model=BatchOut, responses=told)
    async def submit(batch: BatchNew) -> Response:
        """Keep many tasks, in few transactions; each is accepted or refused by itself."""
        return await _submitted(intake, batch)

    @routes.post("/cancel", response_model=BulkOut, responses=told)
    async def cancel(bulk: Bulk) -> Response:
        """Cancel tasks that have not ended."""
        return await _each(desk, bulk, _LIVE, _wisher(desk, Wanted.CANCEL))

    @routes.post("/pause", response_model=BulkOut, responses=told)
    async def pause(bulk: Bulk) -> Response:
        """Pause tasks that have not ended."""
        return await _each(desk, bulk, ("queued", "running"), _wisher(desk, Wanted.PAUSE))

    @routes.post("/resume", response_model=BulkOut, responses=told)
    async def resume(bulk: Bulk) -> Response:
        """Let paused tasks go on, and those that are asked to pause."""
        return await _each(desk, bulk, ("running", "paused"), _wisher(desk, Wanted.RUN))

    @routes.post("/remove", response_model=BulkOut, responses=told)
    async def remove(bulk: Bulk) -> Response:
        """Remove tasks that have ended, with their results and stories."""

        async def apply(tasks: Sequence[TaskId]) -> int:
            return len(await desk.prune(tasks))

        return await _each(desk, bulk, _OVER, apply)

    return routes


async def _submitted(intake: Intake, batch: BatchNew) -> Response:
    told: list[dict[str, Any]] = []
    specs = []
    for new in batch.tasks:
        try:
            specs.append(await intake.spec(new))
            told.append({})
        except Problem as problem:
            told.append(problem.as_dict())
    named = any(new.id for new in batch.tasks)
    answers = iter(zip(specs, await intake.keep(specs, named=named), strict=True))
    for at, entry in enumerate(told):
        if not entry:
            told[at] = _entry(*next(answers))
    accepted = sum("known" in entry for entry in told)
    refused = len(told) - accepted
    return json_answer({"accepted": accepted, "refused": refused, "tasks": told})


def _entry(spec: Spec, said: TaskId | Problem) -> dict[str, Any]:
    if isinstance(said, Problem):
        return said.as_dict()
    return {"id": id_text(said), "known": said != spec.id}


def _wisher(desk: Desk, wanted: Wanted) -> Apply:
    async def apply(tasks: Sequence[TaskId]) -> int:
        done = 0
        for said in await desk.wish_all(tasks, wanted):
            done += isinstance(said, dict) and said["said"] in ("done", "asked")
        return done

    return apply


async def _each(desk: Desk, bulk: Bulk, states: Sequence[str], apply: Apply) -> Response:
    """Apply a verb page after page to the tasks in these states that the filter chooses."""
    if bulk.filter == Chosen():
        # All there is: that has to be said, by naming the states.
        raise Problem(422, "invalid_input", "the filter chooses all: name the states, or more")
    chosen = bulk.filter.model_dump(exclude={"states"})
    wanted = [state for state in bulk.filter.states or states if state in states]
    matched = done = 0
    more = bool(wanted)
    before = ""
    sample: list[str] = []
    while more and matched < bulk.limit:
        limit = min(_PAGE, bulk.limit - matched)
        page: list[dict[str, Any]] = await desk.ask(
            "list", states=wanted, before=before, limit=limit, **chosen
        )
        matched += len(page)
        more = len(page) == limit
        if not page:
            break
        before = page[-1]["id"]
        sample += [task["id"] for task in page[: _SAMPLE - len(sample)]]
        done += len(page) if bulk.dry_run else await apply([parse_id(t["id"]) for t in page])
    return json_answer(
        {
            "matched": matched,
            "done": done,
            "more": more,
            "dry_run": bulk.dry_run,
            "sample": sample,
        }
    )
