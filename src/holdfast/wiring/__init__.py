"""The only rooms where concrete adapters are named and put together.

`connect` and `connect_async` are what users call; `coordinate` and `work` are what the commands
run. A room is loaded when it is first used, so that a client does not pay for a server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.wiring.client import connect, connect_async
    from holdfast.wiring.coordinator import coordinate
    from holdfast.wiring.look import glance
    from holdfast.wiring.process import import_from_here, log_to_stderr, run
    from holdfast.wiring.worker import nearby, work

__all__ = [
    "connect",
    "connect_async",
    "coordinate",
    "glance",
    "import_from_here",
    "log_to_stderr",
    "nearby",
    "run",
    "work",
]

_ROOMS = {
    "connect": "client",
    "connect_async": "client",
    "coordinate": "coordinator",
    "glance": "look",
    "import_from_here": "process",
    "log_to_stderr": "process",
    "nearby": "worker",
    "run": "process",
    "work": "worker",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
