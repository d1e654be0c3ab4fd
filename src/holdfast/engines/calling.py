"""Callbacks of an event loop whose failure somebody hears of.

A loop logs what a callback raises, and goes on: whatever that callback was to tell is lost then,
and what waits for it waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def heard(
    failed: Callable[[Exception], None],
    callback: Callable[P, object],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Call back, and hand what that raises to `failed`."""
    try:
        callback(*args, **kwargs)
    except Exception as error:
        failed(error)
