"""Timeouts as people give them, made such that every wait of the standard library takes them.

And those of a client where nobody gives any. Pure numbers; nothing waits here.
"""

from __future__ import annotations

from math import inf, isnan
from typing import overload

from holdfast.errors import InvalidInputError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
CLOSE_SECONDS = 10.0
SECONDS_MAX = 1e9
"""Longer is without end: thirty years, and less than what the standard library can count."""


@overload
def seconds_of(timeout: float, name: str = ...) -> float: ...


@overload
def seconds_of(timeout: float | None, name: str = ...) -> float | None: ...


def seconds_of(timeout: float | None, name: str = "timeout") -> float | None:
    """Return a timeout in seconds, at most `SECONDS_MAX`; None is without end, and stays so.

    Raises InvalidInputError for what is not a number.
    """
    if timeout is None:
        return None
    given: object = timeout
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = inf if timeout > 0 else 0.0
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name}={given!r} is not a number of seconds") from None
    if isnan(seconds) or isinstance(given, str):
        raise InvalidInputError(f"{name}={given!r} is not a number of seconds")
    return min(seconds, SECONDS_MAX)
