"""The command line. Results go to stdout, talk to stderr; `--json` everywhere."""

from __future__ import annotations

from holdfast.cli.app import main

__all__ = ["main"]
