"""A process of ours that another one of ours starts: its settings travel as JSON, not as options.

Owns the two ends of that: the command line, and the `main` that it runs. It knows nothing of the
command line of people, which costs more to import than a worker can spare before its first task.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from holdfast.config import CoordinatorSettings, WorkerSettings
from holdfast.errors import EngineLostError, HoldfastError

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from holdfast.wiring.launch import main; "
    "sys.exit(main(sys.argv[2:]))"
)
_FAILED = 2
_ENGINE_LOST = 9
"""As the commands of people say it."""


def command(settings: CoordinatorSettings | WorkerSettings) -> list[str]:
    """Return the command line of a coordinator or a worker with these settings.

    What lies in the directory where it starts does not hide the modules that it imports itself.
    """
    kind = "coordinator" if isinstance(settings, CoordinatorSettings) else "worker"
    # The paths of a user are bytes, which Python keeps as text that has no UTF-8; msgspec refuses
    # it, and as JSON in ASCII it arrives as it was.
    told = json.dumps(msgspec.to_builtins(settings, enc_hook=str))
    root = str(Path(__file__).parents[2])
    return [sys.executable, "-P", "-c", _BOOT, root, kind, told]


def main(arguments: list[str]) -> int:
    """Run what `command` says, and return its exit code; its log is its standard error."""
    kind, told = arguments
    try:
        if kind == "coordinator":
            _coordinate(json.loads(told))
        else:
            _work(json.loads(told))
    except HoldfastError as error:
        sys.stderr.write(f"holdfast: {error}\n")
        return _ENGINE_LOST if isinstance(error, EngineLostError) else _FAILED
    except KeyboardInterrupt:
        return 130
    return 0


def _coordinate(told: Any) -> None:
    from holdfast.wiring.coordinator import coordinate
    from holdfast.wiring.process import log_to_stderr, run

    log_to_stderr()
    run(coordinate(msgspec.convert(told, CoordinatorSettings, dec_hook=_path)))


def _work(told: Any) -> None:
    from holdfast.wiring.process import log_to_stderr, run
    from holdfast.wiring.worker import work

    streams = log_to_stderr()
    run(work(msgspec.convert(told, WorkerSettings, dec_hook=_path), streams))


def _path(kind: type, value: Any) -> Any:
    assert kind is Path, f"settings hold no {kind}"
    return Path(value)
