"""What an attempt costs, re-stated from LEASES.md over the row before and the row after.

Owns the arithmetic of budgets for the judge, and their numbers: a bound that moves in the product
does not move here. Several events of one task may fall into one turn; the bill is then their sum.
"""

from __future__ import annotations

from holdfast.model.task import TERMINAL_MIN, Charges, Lease, Life, Owed, State, Wanted

LOSSES_MAX = 5
CRASHES_MAX = 3
OUT_OF_MEMORY_MAX = 1
ENVIRONMENT_MAX = 5
FREE_RETURNS_MAX = 100
UNHEARD_MAX = 5
BUDGETS = ("retries", "losses", "crashes", "out_of_memory", "environment", "free_returns")
BILLED_TO = {
    "raised": "retries",
    "timed_out": "retries",
    "crashed": "crashes",
    "out_of_memory": "out_of_memory",
    "environment": "environment",
    "returned": "free_returns",
    "stopped": "losses",
}


def fault(before: Life, after: Life, outcomes: list[str], owed: list[str]) -> str:
    """Return what is wrong with the charges of one change, "" where nothing is.

    `owed` are the words of what the lapses of this change left owing.
    """
    bill = dict.fromkeys(BUDGETS, 0)
    for kind in outcomes:
        if kind in BILLED_TO:
            bill[BILLED_TO[kind]] += 1
    settled = after.state >= TERMINAL_MIN and after.reason.text != "lost"
    if after.fence > before.fence or after.reason.text == "lost":
        _bill_lapse(bill, before, outcomes, owed)
    moved = sum(token not in after.freed for token in before.freed)
    bill["losses"] += moved
    bill["free_returns"] -= moved
    for name in BUDGETS:
        paid = getattr(after.used, name) - getattr(before.used, name)
        if paid == bill[name] or (paid == 0 and _is_waived(outcomes, before, after)):
            continue
        if settled and 0 <= paid <= bill[name]:
            continue
        return f"{name} went up by {paid}, and should by {bill[name]} ({outcomes}, {owed})"
    return ""


def _bill_lapse(bill: dict[str, int], before: Life, outcomes: list[str], owed: list[str]) -> None:
    """A claim charges what the former lease owes, where it lapsed and had no outcome since."""
    if outcomes:
        return
    word = owed[-1] if owed else before.owed.text if before.lease is Lease.LAPSED else ""
    if word == Owed.LOSS.text:
        bill["losses"] += 1
    elif word == Owed.FREE.text:
        _bill_free(bill, before.used)
    elif word == Owed.UNHEARD.text:
        if before.used.unheard < UNHEARD_MAX:
            _bill_free(bill, before.used)
        else:
            bill["losses"] += 1


def _bill_free(bill: dict[str, int], used: Charges) -> None:
    bill["free_returns" if used.free_returns < FREE_RETURNS_MAX else "losses"] += 1


def _is_waived(outcomes: list[str], before: Life, after: Life) -> bool:
    """Handing back, or being stopped, is what a pause asks for: it costs nothing."""
    asked = Wanted.PAUSE in (before.wanted, after.wanted)
    # Of two wishes of one turn, the row shows only the last.
    asked = asked or after.wish - before.wish > 1
    return asked and any(kind in ("returned", "stopped") for kind in outcomes)


def over(life: Life, *, recharged: bool) -> str:
    """Return which budget is exceeded, "" for none. A task that failed by it is one above."""
    used, grace = life.used, int(life.state >= TERMINAL_MIN)
    limits = {
        "crashes": CRASHES_MAX + grace,
        "out_of_memory": OUT_OF_MEMORY_MAX + grace,
        "environment": ENVIRONMENT_MAX + grace,
        "free_returns": FREE_RETURNS_MAX,
    }
    if not recharged:
        limits["losses"] = LOSSES_MAX + grace
    for name, limit in limits.items():
        if getattr(used, name) > limit:
            return f"{name} is {getattr(used, name)}, and may be {limit}"
    spent = {
        "lost": used.losses > LOSSES_MAX,
        "crashed": used.crashes > CRASHES_MAX,
        "out_of_memory": used.out_of_memory > OUT_OF_MEMORY_MAX,
        "environment": used.environment > ENVIRONMENT_MAX,
    }
    reason = life.reason.text
    if life.state is State.FAILED and not spent.get(reason, True):
        return f"it failed as {reason}, and that budget was not used up"
    return ""
