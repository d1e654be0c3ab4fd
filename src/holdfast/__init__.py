"""Holdfast: durable tasks in Python. Nothing you submitted is lost, whatever dies.

The public face. It loads what a name needs when that name is first used, so that `import holdfast`
costs next to nothing in a script, and little in a worker's child.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.client.aio_client import AsyncClient
    from holdfast.client.aio_future import AsyncFuture
    from holdfast.client.client import Client
    from holdfast.client.executor import TaskExecutor
    from holdfast.client.future import Future
    from holdfast.client.options import Options
    from holdfast.client.task import TaskFunction, task
    from holdfast.contrib.joblib import register_joblib
    from holdfast.engines.current import TaskCancelled, current
    from holdfast.errors import (
        ConnectionLostError,
        DefiniteError,
        HoldfastError,
        IndefiniteError,
        InvalidInputError,
        KeyConflictError,
        NoCoordinatorError,
        NotSerializableError,
        OverloadedError,
        RefusedError,
        ResultUnreadableError,
        TaskCancelledError,
        TaskError,
        TaskFailedError,
        UnknownTaskError,
    )
    from holdfast.wiring import connect, connect_async

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncFuture",
    "Client",
    "ConnectionLostError",
    "DefiniteError",
    "Future",
    "HoldfastError",
    "IndefiniteError",
    "InvalidInputError",
    "KeyConflictError",
    "NoCoordinatorError",
    "NotSerializableError",
    "Options",
    "OverloadedError",
    "RefusedError",
    "ResultUnreadableError",
    "TaskCancelled",
    "TaskCancelledError",
    "TaskError",
    "TaskExecutor",
    "TaskFailedError",
    "TaskFunction",
    "UnknownTaskError",
    "__version__",
    "connect",
    "connect_async",
    "current",
    "register_joblib",
    "task",
]

_HOMES = {
    "AsyncClient": "holdfast.client.aio_client",
    "AsyncFuture": "holdfast.client.aio_future",
    "Client": "holdfast.client.client",
    "Future": "holdfast.client.future",
    "Options": "holdfast.client.options",
    "TaskExecutor": "holdfast.client.executor",
    "TaskCancelled": "holdfast.engines.current",
    "TaskFunction": "holdfast.client.task",
    "connect": "holdfast.wiring.client",
    "connect_async": "holdfast.wiring.client",
    "current": "holdfast.engines.current",
    "register_joblib": "holdfast.contrib.joblib",
    "task": "holdfast.client.task",
}
"""Where a public name lives; all others live in `holdfast.errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES.get(name, "holdfast.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
