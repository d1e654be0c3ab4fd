"""The `@task` decorator: a function that knows how it is to be submitted.

Light: a worker's child imports it with the user's module, so that it must never load the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from types import MappingProxyType, MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from holdfast.client.options import DEFAULTS, Options, options_with
from holdfast.errors import InvalidInputError

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class TaskFunction(Generic[P, R_co]):
    """A function with submission options; calling it runs it here, as ever.

    `__holdfast_function__` is the plain function, `holdfast_options` what it is submitted with.
    `holdfast_bound` says that `.options()` was called: every keyword of a submission is then the
    function's own.
    """

    def __init__(
        self, function: Callable[P, R_co], options: Options = DEFAULTS, *, bound: bool = False
    ) -> None:
        if not callable(function):
            raise InvalidInputError(f"@task decorates functions, not {function!r}")
        update_wrapper(self, function)
        self.__holdfast_function__ = function
        self.holdfast_options = options
        self.holdfast_bound = bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.__holdfast_function__(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type) -> TaskFunction[P, R_co]: ...

    @overload
    def __get__(
        self: TaskFunction[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> TaskFunction[Q, R]: ...

    def __get__(self, instance: object, owner: type | None = None) -> TaskFunction[..., Any]:
        # In a class it binds like the function it decorates: a task with the instance in it.
        if instance is None:
            return self
        method = MethodType(self.__holdfast_function__, instance)
        return TaskFunction(method, self.holdfast_options, bound=self.holdfast_bound)

    def __repr__(self) -> str:
        return f"<task {self.__module__}.{getattr(self, '__qualname__', '?')}>"

    def options(
        self,
        *,
        queue: str | None = None,
        tags: Iterable[str] | None = None,
        priority: int | None = None,
        key: str | None = None,
        delay: float | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> TaskFunction[P, R_co]:
        """Return this task with other options; `delay` is in seconds.

        All keywords of a submission of what is returned go to the function, so that a function
        may have a parameter `key` of its own. Raises InvalidInputError.
        """
        given = {
            "queue": queue,
            "tags": tags,
            "priority": priority,
            "key": key,
            "delay": delay,
            "meta": meta,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        options = options_with(self.holdfast_options, chosen)
        return TaskFunction(self.__holdfast_function__, options, bound=True)


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(
    *,
    queue: str = ...,
    tags: Iterable[str] = ...,
    priority: int = ...,
    meta: Mapping[str, str] = ...,
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def task(
    function: Callable[P, R] | None = None,
    /,
    *,
    queue: str = DEFAULTS.queue,
    tags: Iterable[str] = (),
    priority: int = 0,
    meta: Mapping[str, str] = MappingProxyType({}),
) -> TaskFunction[P, R] | Callable[[Callable[P, R]], TaskFunction[P, R]]:
    """Make a function (also an `async def`) a task; bare, or with the options of every submission.

    It stays callable as before. Raises InvalidInputError for an option that cannot be.
    """
    given = {"queue": queue, "tags": tags, "priority": priority, "meta": meta}
    options = options_with(DEFAULTS, given)
    if function is not None:
        return TaskFunction(function, options)

    def decorate(function: Callable[P, R]) -> TaskFunction[P, R]:
        return TaskFunction(function, options)

    return decorate
