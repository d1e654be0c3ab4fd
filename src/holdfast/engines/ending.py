"""The end of all that is below a process. Stdlib only: the guard uses it too.

Only for a process that adopts orphans, and whose children nobody else waits for: what it reads of
a child then holds until it reaps it itself.
"""

from __future__ import annotations

import os
import signal


def strike() -> bool:
    """SIGKILL all descendants of this process, reap what has ended; return whether none is left.

    Parents first: what they leave becomes ours, and only we can reap it, so that no number we
    have read can belong to a stranger. Whoever leaves its group or session is found all the same.
    What is forked in this moment is found by the next strike.
    """
    if _reap():
        return True
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    return _reap()


def _reap() -> bool:
    """Reap all children that have ended; return whether no child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def descendants(root: int) -> list[int]:
    """Return the living processes below one, parents before their children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name in parentheses may hold anything; state and parent follow it.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state not in (b"Z", b"X"):
                children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    level = [root]
    while level:
        level = [pid for parent in level for pid in children.get(parent, ())]
        found += level
    return found
