"""The only rooms where concrete adapters are named and put together.

`connect` is what users call; `coordinate` and `work` are what the commands run. Everything heavy is
imported where it is used, so that a client does not pay for a server.
"""

from __future__ import annotations

from holdfast.wiring.client import connect
from holdfast.wiring.coordinator import coordinate
from holdfast.wiring.process import log_to_stderr, run
from holdfast.wiring.worker import work

__all__ = ["connect", "coordinate", "log_to_stderr", "run", "work"]
