"""REST for tasks: submit, list, look at, wait for, wish, and remove."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from holdfast.model.ids import id_text, parse_id
from holdfast.model.task import Wanted
from holdfast.web.answers import Told, etag, json_answer, problems, version_of
from holdfast.web.intake import Intake
from holdfast.web.problems import Problem
from holdfast.web.results import result_of, settled_of
from holdfast.web.shapes import (
    WAIT_SECONDS_MAX,
    AttemptsOut,
    Kept,
    Page,
    ResultOut,
    StoryOut,
    TaskNew,
    TaskOut,
    TaskPage,
    Uuid,
    WaitingOut,
    WhyOut,
    WishOut,
)

Id = Annotated[Uuid, Path(description="The id of a task.")]
IfMatch = Annotated[
    str, Header(description="Do it only where the task still has this version, its ETag.")
]
IfNoneMatch = Annotated[str, Header(description="Answer 304 where it still has this version.")]
Wait = Annotated[
    float, Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait until it has ended.")
]
_KNOWN: Told = {200: {"model": Kept, "description": "A task with this key was kept before."}}
_UNFINISHED: Told = {202: {"model": WaitingOut, "description": "It has not ended yet."}}
_CHANGED: Told = {304: {"description": "It still has this version."}}


class TaskRoutes:
    """The routes of tasks."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._desk = intake.desk

    def router(self) -> APIRouter:
        """Return the routes with what the reference says of them."""
        routes = APIRouter(prefix="/v1/tasks", tags=["tasks"])
        add = routes.add_api_route
        told = problems(404, 410, 422, 503)
        kept = _KNOWN | problems(404, 409, 410, 422, 429, 503)
        add("", self.submit, methods=["POST"], status_code=201, response_model=Kept, responses=kept)
        add("", self.list_tasks, response_model=TaskPage, responses=problems(422, 503))
        add("/{id}", self.status, response_model=TaskOut, responses=_CHANGED | told)
        ended = _UNFINISHED | problems(404, 410, 422, 429, 503)
        add("/{id}/result", self.result, response_model=ResultOut, responses=ended)
        add("/{id}/attempts", self.attempts, response_model=AttemptsOut, responses=told)
        add("/{id}/story", self.story, response_model=StoryOut, responses=told)
        add("/{id}/why", self.why, response_model=WhyOut, responses=told)
        gone = problems(404, 409, 410, 422, 503)
        add("/{id}", self.remove, methods=["DELETE"], status_code=204, responses=gone)
        wishes = problems(404, 409, 410, 412, 422, 503)
        for name, wish in (("cancel", self.cancel), ("pause", self.pause), ("resume", self.resume)):
            path = f"/{{id}}/{name}"
            add(path, wish, methods=["POST"], response_model=WishOut, responses=wishes)
        return routes

    async def submit(self, new: TaskNew) -> Response:
        """Keep a task; the answer comes once it is on disk.

        Where the answer is lost, send the same `id` or `key` again: it is the same task then.
        """
        spec = await self._intake.spec(new)
        said = (await self._intake.keep([spec], named=bool(new.id)))[0]
        if isinstance(said, Problem):
            raise said
        known = said != spec.id
        return json_answer(
            {"id": id_text(said), "known": known},
            status=200 if known else 201,
            headers={"location": f"/v1/tasks/{id_text(said)}"},
        )

    async def list_tasks(self, page: Annotated[Page, Query()]) -> Response:
        """List tasks, newest first; what is given has to be so for all of them."""
        chosen = page.model_dump(exclude={"state", "meta", "limit", "cursor"})
        notes = dict(pair.split("=", 1) for pair in page.meta)
        wanted = {"states": page.state, "meta": notes, "limit": page.limit, "before": page.cursor}
        tasks = await self._desk.ask("list", **wanted, **chosen)
        cursor = tasks[-1]["id"] if len(tasks) == page.limit else None
        return json_answer({"tasks": tasks, "next": cursor})

    async def status(self, id: Id, if_none_match: IfNoneMatch = "") -> Response:
        """Tell where a task is; its version is its ETag."""
        told = await self._desk.ask("status", task=id)
        tag = etag(told["version"])
        if tag in (each.strip() for each in if_none_match.split(",")):
            return Response(status_code=304, headers={"etag": tag})
        return json_answer(told, headers={"etag": tag})

    async def result(self, id: Id, wait: Wait = 0.0) -> Response:
        """Tell how a task ended; wait for it up to `wait` seconds. 202 while it has not."""
        task = await self._desk.find(id)
        ended = settled_of(task)
        if ended is None and wait:
            ended = await self._desk.ended(task.spec.id, wait)
        if ended is not None:
            return json_answer(result_of(ended))
        waiting = {"id": id_text(task.spec.id), "state": task.life.state.text}
        return json_answer(waiting, status=202, headers={"retry-after": "1"})

    async def attempts(self, id: Id) -> Response:
        """Tell of each try of a task, the newest last."""
        return json_answer({"attempts": await self._desk.ask("attempts", task=id)})

    async def story(self, id: Id) -> Response:
        """Tell all that happened to a task, in order."""
        return json_answer({"story": await self._desk.ask("story", task=id)})

    async def why(self, id: Id) -> Response:
        """Say why a task is where it is."""
        return json_answer(await self._desk.ask("why", task=id))

    async def remove(self, id: Id) -> Response:
        """Remove a task that has ended, with its result and its story."""
        if await self._desk.prune([parse_id(id)]):
            return Response(status_code=204)
        told = await self._desk.ask("status", task=id)
        text = f"the task is {told['state']}: only one that has ended can be removed"
        raise Problem(409, "running", text)

    async def cancel(self, id: Id, if_match: IfMatch = "") -> Response:
        """Cancel a task; one that runs is asked to stop, and killed after its grace."""
        return await self._wish(id, Wanted.CANCEL, if_match)

    async def pause(self, id: Id, if_match: IfMatch = "") -> Response:
        """Pause a task: it is not started until it is resumed."""
        return await self._wish(id, Wanted.PAUSE, if_match)

    async def resume(self, id: Id, if_match: IfMatch = "") -> Response:
        """Let a paused task go on."""
        return await self._wish(id, Wanted.RUN, if_match)

    async def _wish(self, id: str, wanted: Wanted, tag: str) -> Response:
        task = parse_id(id)
        said = await self._desk.wish(task, wanted, version=version_of(tag))
        return json_answer({"id": id_text(task), **said})
