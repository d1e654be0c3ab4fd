"""Ctrl-C while a script that has ended waits for its last submissions to be acknowledged.

What is raised in an exit callback reaches neither the exit status nor a person in one line, so that
the process is ended here. The interpreter's exit callbacks that were registered before the client
was made are not called then.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

STATUS = 130
"""What a shell reports of a command that Ctrl-C ended."""


def end_interrupted(unacknowledged: int) -> NoReturn:
    """Say what is not known, and end this process with the status of an interrupt."""
    told = "all submissions were acknowledged"
    if unacknowledged:
        told = (
            f"{unacknowledged} submissions were not acknowledged, and whether they were kept is "
            "not known"
        )
    try:
        sys.stderr.write(f"holdfast: interrupted; {told}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
    except (OSError, ValueError, AttributeError, KeyboardInterrupt):
        # Closed, full, or not there: nobody is left to tell.
        os._exit(STATUS)
    os._exit(STATUS)
