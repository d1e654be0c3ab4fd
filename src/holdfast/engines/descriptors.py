"""How many files a worker may have open: each lane needs some, and the usual limit is low.

Owns that reckoning and the limit of this process. What user code sees is left as the user had it:
a larger limit breaks what uses `select`, and slows down what closes "all" descriptors. For the
latter we too ask for what we need, and not for the hard limit: it may be a billion.
"""

from __future__ import annotations

import resource
from typing import Final

from holdfast.errors import ConfigurationError
from holdfast.model.limits import SLOTS_MAX

PER_LANE: Final = 6
"""Both ends of the orders, outcomes, what is printed in two streams, and the child's pidfd."""
PER_BIRTH: Final = 4
"""Copies of the child's own, until the nursery has taken them."""
BESIDE: Final = 64
"""Sessions, transfers, the spool, guard and nursery."""


def make_room(slots: int) -> int:
    """Let this process open what so many slots need; return the soft limit that it had.

    Raises ConfigurationError where the hard limit does not allow that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lanes = slots + 1
    needed = BESIDE + PER_LANE * lanes
    if hard != resource.RLIM_INFINITY and needed > hard:
        fit = min(max((hard - BESIDE) // PER_LANE - 1, 1), SLOTS_MAX)
        raise ConfigurationError(
            f"{slots} slots need {needed} open files, and this process may have {hard}: "
            f"give --slots {fit} at most, or raise the hard limit (ulimit -n)"
        )
    wanted = needed + PER_BIRTH * lanes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft
