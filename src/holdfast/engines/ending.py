"""The end of all that is below a process. Stdlib only: the guard uses it too.

Only for a process that adopts orphans, and whose children nobody else waits for: what it reads of
a child then holds until it reaps it itself.
"""

from __future__ import annotations

import os
import signal

_STARTED = 19
"""Where a process's start stands in its stat, counted from its state: see proc_pid_stat(5)."""
TICKS = os.sysconf("SC_CLK_TCK")
"""Of a second: the unit of the times at which processes started, since boot."""


def strike(since: int = 0) -> bool:
    """SIGKILL all descendants of this process, reap what has ended; return whether none is left.

    A child of this process that started before `since` is spared, with all that is below it.

    Parents first: what they leave becomes ours, and only we can reap it, so that no number we
    have read can belong to a stranger. Whoever leaves its group or session is found all the same.
    What is forked in this moment is found by the next strike.
    """
    if _reap():
        return True
    found = descendants(os.getpid(), since)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    return _reap() or (since > 0 and not found)


def _reap() -> bool:
    """Reap all children that have ended; return whether no child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def descendants(root: int, since: int = 0) -> list[int]:
    """Return the living processes below one, parents before their children.

    A child of `root` that started before `since` does not count, nor what is below it.
    """
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name in parentheses may hold anything; the state and all else follow it.
                    fields = file.read().rpartition(b")")[2].split()
                state, parent, started = fields[0], int(fields[1]), int(fields[_STARTED])
            except (OSError, IndexError):
                continue
            if state not in (b"Z", b"X") and (parent != root or started >= since):
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    level = [root]
    while level:
        level = [pid for parent in level for pid in children.get(parent, ())]
        found += level
    return found
