"""The command line. Results go to stdout, talk to stderr; `--json` everywhere."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit; Ctrl-C is one line, also while this is still imported."""
    try:
        # Until a process has handlers of its own, SIGTERM is as orderly as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        from holdfast.cli.app import run

        code = run()
    except KeyboardInterrupt:
        code = 130
    finally:
        # The second Ctrl-C of an impatient person has nothing to stop any more.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


__all__ = ["main"]
