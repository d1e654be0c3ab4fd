"""The web application: all routes together, and every error as a problem."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from holdfast import __version__
from holdfast.errors import HoldfastError
from holdfast.web import bulk, fleet, functions, shapes
from holdfast.web.answers import problem_answer
from holdfast.web.dialect import Dialect
from holdfast.web.intake import Intake
from holdfast.web.problems import Problem, problem_of
from holdfast.web.service import ServiceRoutes
from holdfast.web.tasks import TaskRoutes

_ABOUT = """Durable tasks: nothing you submitted is lost, whatever dies.

Errors are RFC 9457 problems with a stable `code`. Bodies may be JSON or MessagePack
(`application/msgpack`), and answers are MessagePack where `Accept` asks for it."""
_WORDS = {404: "unknown_path", 405: "unknown_method", 400: "invalid_request"}


class _StrictRequest(Request):
    """A request whose JSON is that of the standard, with nothing lost in large numbers."""

    async def json(self) -> Any:
        """Return the body. Raises HTTPException for what is no JSON: NaN, a lone surrogate."""
        if not hasattr(self, "_json"):
            try:
                self._json = msgspec.json.decode(await self.body())
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise HTTPException(400, f"the body is not JSON: {error}") from None
        return self._json


class _Route(APIRoute):
    """A route that reads its body so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await answer(_StrictRequest(request.scope, request.receive))

        return strict


def application(intake: Intake, dialect: Dialect) -> FastAPI:
    """Return the application of one coordinator."""
    app = FastAPI(
        title="Holdfast",
        version=__version__,
        description=_ABOUT,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation,
        redirect_slashes=False,
    )
    app.router.route_class = _Route
    routers = (
        bulk.router(intake),
        TaskRoutes(intake).router(),
        functions.router(intake),
        fleet.router(intake.desk),
        ServiceRoutes(intake, dialect).router(),
    )
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.__class__ = _Route
        app.include_router(router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HoldfastError, _error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _broken)
    return app


def _operation(route: APIRoute) -> str:
    """Return the name of an operation, as a generated client calls it."""
    group = str(route.tags[0]).replace(" ", "_") if route.tags else "holdfast"
    return f"{group}_{route.name}"


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_answer(error)


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HoldfastError)
    return problem_answer(problem_of(error))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _WORDS.get(error.status_code, "refused")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    problem = Problem(error.status_code, code, detail)
    answer = problem_answer(problem)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """Return what may be asked of a path: each method of it is a route of its own."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found)


async def _broken(request: Request, error: Exception) -> Response:
    return problem_answer(Problem(500, "internal", "an error of ours; the log says which"))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [_fault(each) for each in error.errors()]
    detail = "; ".join(f"{'.'.join(map(str, each['at']))}: {each['text']}" for each in faults)
    return problem_answer(Problem(422, "invalid_input", detail, faults=faults))


def _fault(error: Any) -> dict[str, Any]:
    at = [part for part in error["loc"] if part != "body"]
    text = str(error["msg"])
    if error["type"] == "extra_forbidden":
        name = str(at[-1]) if at else ""
        near = difflib.get_close_matches(name, _known_fields(), n=1)
        text = "no such field" + (f"; did you mean {near[0]!r}?" if near else "")
    return {"at": at, "text": text}


def _known_fields() -> Sequence[str]:
    models = (each for each in vars(shapes).values() if isinstance(each, type))
    return [name for each in models if issubclass(each, BaseModel) for name in each.model_fields]
