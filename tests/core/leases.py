"""ADR 2 copied out as data and plain sentences, without a look at `core.lifecycle`.

`Row` is what is kept of a task, `step` what an event makes of it. The tests hold the code against
it: for every shape of a row and every event (`differences`), and along whole histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from msgspec.structs import replace as life_with

from holdfast.core import invariants, lease
from holdfast.core.lifecycle import Judgement, Wish
from holdfast.errors import IllegalTransitionError
from holdfast.model.ids import Token
from holdfast.model.outcome import Failure, OutcomeKind, Reason
from holdfast.model.task import Charges, Life, Owed, Phase, State, Wanted
from holdfast.model.task import Lease as LeaseWord

NOW_MS = 1_000
AGAIN_MS = 5_000
AVOID_MS = 9_000
OLDEST, OLDER, NEWEST, NEXT, STRANGE = (Token(bytes([n]) * 16) for n in range(1, 6))
"""Charged as a loss, charged as free, the newest of a claimed life, the next claim's, nobody's."""

BUDGETS = {
    "losses": 5,
    "crashes": 3,
    "out_of_memory": 1,
    "environment": 5,
    "free_returns": 100,
    "unheard": 5,
}
TERMINAL = ("succeeded", "failed", "cancelled")

# What a worker writes, by how its token stands: (change, answer).
WRITES = {
    ("started", "assigned"): ("phase started", "keep"),
    ("started", "started"): ("", "keep"),
    ("started", "lapsed"): ("running again", "keep"),
    ("started", "spent"): ("", "stop"),
    ("started", "older"): ("free charge becomes a loss", "stop"),
    ("named", "assigned"): ("", "keep"),
    ("named", "started"): ("", "keep"),
    ("named", "lapsed"): ("running again", "keep"),
    ("named", "spent"): ("", "stop"),
    ("named", "older"): ("", "stop"),
    ("outcome", "assigned"): ("spent", "settled"),
    ("outcome", "started"): ("spent", "settled"),
    ("outcome", "lapsed"): ("spent", "settled"),
    ("outcome", "spent"): ("", "settled"),
    ("outcome", "older"): ("", "superseded"),
    ("save", "assigned"): ("written", "committed"),
    ("save", "started"): ("written", "committed"),
    ("save", "lapsed"): ("written", "committed"),
    ("save", "spent"): ("", "superseded"),
    ("save", "older"): ("", "superseded"),
}

# outcome: (wanted=run, wanted=pause, wanted=cancel), each (state, charged to); the reason to fail.
OUTCOMES = {
    "succeeded": (("succeeded", ""), ("succeeded", ""), ("succeeded", ""), "none"),
    "raised": (("queued", "retries"), ("paused", "retries"), ("cancelled", ""), "error"),
    "timed_out": (("queued", "retries"), ("paused", "retries"), ("cancelled", ""), "timeout"),
    "crashed": (("queued", "crashes"), ("paused", "crashes"), ("cancelled", ""), "crashed"),
    "out_of_memory": (
        ("queued", "out_of_memory"),
        ("paused", "out_of_memory"),
        ("cancelled", ""),
        "out_of_memory",
    ),
    "environment": (
        ("queued", "environment"),
        ("paused", "environment"),
        ("cancelled", ""),
        "environment",
    ),
    "returned": (("queued", "free_returns"), ("paused", ""), ("cancelled", ""), "lost"),
    "stopped": (("queued", "losses"), ("paused", ""), ("cancelled", ""), "lost"),
    "checkpointed": (
        ("queued", "nothing with a checkpoint, crashes without"),
        ("paused", ""),
        ("cancelled", ""),
        "crashed",
    ),
    "invalid": (("failed", ""), ("failed", ""), ("cancelled", ""), "invalid"),
}

# What is judged of a lease, by how it stands: what its next claim is charged, "" for no change.
JUDGEMENTS = {
    ("silence", "assigned"): "unheard",
    ("silence", "started"): "loss",
    ("death", "assigned"): "free",
    ("death", "started"): "loss",
    ("death_started", "assigned"): "loss",
    ("death_started", "started"): "loss",
    ("death_started", "lapsed"): "loss",
    ("unnamed", "assigned"): "free",
    ("unnamed", "started"): "loss",
}

# (wish, state, wanted): (state, wanted, said); wanted "" means that nothing changes.
WISHES = {
    ("cancel", "queued", "run"): ("cancelled", "cancel", "done"),
    ("cancel", "paused", "pause"): ("cancelled", "cancel", "done"),
    ("cancel", "running", "run"): ("running", "cancel", "asked"),
    ("cancel", "running", "pause"): ("running", "cancel", "asked"),
    ("cancel", "running", "cancel"): ("running", "", "asked"),
    ("pause", "queued", "run"): ("paused", "pause", "done"),
    ("pause", "paused", "pause"): ("paused", "", "done"),
    ("pause", "running", "run"): ("running", "pause", "asked"),
    ("pause", "running", "pause"): ("running", "", "asked"),
    ("pause", "running", "cancel"): ("running", "", "being_cancelled"),
    ("resume", "queued", "run"): ("queued", "", "done"),
    ("resume", "paused", "pause"): ("queued", "run", "done"),
    ("resume", "running", "run"): ("running", "", "done"),
    ("resume", "running", "pause"): ("running", "run", "done"),
    ("resume", "running", "cancel"): ("running", "", "being_cancelled"),
    ("expire", "queued", "run"): ("failed", "run", "done"),
    ("expire", "paused", "pause"): ("failed", "pause", "done"),
    ("expire", "running", "run"): ("running", "cancel", "asked"),
    ("expire", "running", "pause"): ("running", "cancel", "asked"),
    ("expire", "running", "cancel"): ("running", "", "asked"),
}


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is a word of the tables; `detail` an outcome; `number`, `digest` those of a save."""

    kind: str
    token: Token = NEWEST
    detail: str = ""
    again: bool = True
    number: int = 0
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of a task. None in a row that `step` returns: ADR 2 does not say."""

    state: str = "queued"
    wanted: str = "run"
    wish: int | None = 0
    fence: int = 0
    token: bytes = b""
    lease: str = "none"
    phase: str = "none"
    owed: str = "nothing"
    used: dict[str, int] | None = field(default_factory=dict)
    freed: tuple[bytes, ...] = ()
    mark: int = 0
    crash_mark: int | None = 0
    saved: tuple[int, bytes] = (0, b"")
    due_ms: int = 0
    avoid: tuple[str, int] = ("", 0)
    reason: str = "none"
    worker: str = ""


def row_of(life: Life) -> Row:
    """Return a life as a row."""
    names = type(life.used).__struct_fields__
    return Row(
        state=life.state.text,
        wanted=life.wanted.text,
        wish=life.wish,
        fence=life.fence,
        token=life.token,
        lease=life.lease.text,
        phase=life.phase.text,
        owed=life.owed.text,
        used={name: getattr(life.used, name) for name in names if getattr(life.used, name)},
        freed=life.freed,
        mark=life.mark,
        crash_mark=life.crash_mark,
        saved=(life.saved_number, life.saved_digest),
        due_ms=life.due_ms,
        avoid=(life.avoid, life.avoid_until_ms),
        reason=life.reason.text,
        worker=life.worker,
    )


def standing(row: Row, token: bytes) -> str:
    """Return the word of the tables for a token."""
    if token != row.token:
        return "older"
    return row.phase if row.lease == "held" else row.lease


def step(row: Row, event: Event) -> tuple[Row, str]:
    """Return the row after an event, and the answer; `illegal` for a claim that cannot be."""
    if event.kind == "claim":
        return _claimed(row, event)
    if event.kind in ("cancel", "pause", "resume", "expire"):
        return _wished(row, event)
    if event.kind in ("silence", "death", "death_started", "death_spooled", "unnamed"):
        return _judged(row, event), ""
    change, answer = WRITES[event.kind, standing(row, event.token)]
    if change == "phase started":
        row = replace(row, phase="started")
    elif change == "running again":
        phase = "started" if event.kind == "started" else row.phase
        row = replace(row, state="running", lease="held", owed="nothing", phase=phase)
    elif change == "free charge becomes a loss":
        row = _recharged(row, event.token)
    elif change == "spent":
        row = _ended(row, event)
    elif change == "written":
        return _saved(row, event)
    return row, answer


def count(row: Row, **more: int) -> Row:
    """Add to the budgets used."""
    used = dict(row.used or {})
    for name, by in more.items():
        used[name] = used.get(name, 0) + by
    return replace(row, used={name: number for name, number in used.items() if number})


def used(row: Row, name: str) -> int:
    """Return how much of one budget is used."""
    return (row.used or {}).get(name, 0)


def _over(row: Row, state: str, reason: str = "none") -> Row:
    """Every change to a terminal state spends the newest token in the same statement."""
    lease, phase = ("spent", "ended") if row.token else ("none", "none")
    return replace(row, state=state, reason=reason, lease=lease, phase=phase, owed="nothing")


def _back(row: Row) -> Row:
    """What "queued" as the result of any row means."""
    if row.wanted == "cancel":
        return _over(row, "cancelled", row.reason)
    return replace(row, state="paused" if row.wanted == "pause" else "queued")


def _claimed(row: Row, event: Event) -> tuple[Row, str]:
    if row.state != "queued" or row.wanted != "run":
        return row, "illegal"
    freed = row.freed
    if row.lease == "lapsed":
        free = row.owed != "loss"
        if row.owed == "unheard":
            row = count(row, unheard=1)
            free = used(row, "unheard") <= BUDGETS["unheard"]
        if free and used(row, "free_returns") < BUDGETS["free_returns"]:
            row, freed = count(row, free_returns=1), (*freed, row.token)
        else:
            row = count(row, losses=1)
        if used(row, "losses") > BUDGETS["losses"]:
            return _over(row, "failed", "lost"), ""
    row = replace(row, state="running", fence=row.fence + 1, token=event.token, freed=freed)
    row = replace(row, lease="held", phase="assigned", owed="nothing", due_ms=0, saved=(0, b""))
    return replace(row, worker="w"), ""


def _recharged(row: Row, token: bytes) -> Row:
    if row.state in TERMINAL or token not in row.freed:
        return row
    row = replace(row, freed=tuple(freed for freed in row.freed if freed != token))
    return count(row, free_returns=-1, losses=1)


def _saved(row: Row, event: Event) -> tuple[Row, str]:
    number, digest = row.saved
    if event.number == number and event.digest != digest:
        return row, "stop"
    if event.number > number:
        mark = (row.fence << 32) + event.number
        row = replace(row, saved=(event.number, event.digest), mark=mark)
    return row, "committed"


def _judged(row: Row, event: Event) -> Row:
    how = standing(row, event.token)
    if event.kind == "death_started" and how == "older":
        return _recharged(row, event.token)
    owed = JUDGEMENTS.get((event.kind, how), "")
    if not owed or row.state in TERMINAL or (how == "lapsed" and row.owed == "loss"):
        return row
    phase = "started" if event.kind == "death_started" else row.phase
    return _back(replace(row, lease="lapsed", owed=owed, phase=phase))


def _wished(row: Row, event: Event) -> tuple[Row, str]:
    if row.state in TERMINAL:
        return row, "finished"
    state, wanted, said = WISHES[event.kind, row.state, row.wanted]
    if not wanted:
        return row, said
    row = replace(row, wanted=wanted, wish=(row.wish or 0) + 1)
    if state == "failed":
        return replace(_over(row, "failed", "expired"), wish=None), said
    if state == "cancelled":
        return _over(row, "cancelled"), said
    return replace(row, state=state, reason="expired" if event.kind == "expire" else "none"), said


def _ended(row: Row, event: Event) -> Row:
    cell = OUTCOMES[event.detail][("run", "pause", "cancel").index(row.wanted)]
    state, charge = cell
    why_failed = OUTCOMES[event.detail][3]
    if state == "cancelled":
        return replace(_over(row, "cancelled", row.reason), used=None, crash_mark=None)
    if state == "succeeded":
        return _over(row, "succeeded")
    if state == "failed":
        return _over(row, "failed", why_failed)
    if charge.startswith("nothing"):
        charge = "" if row.saved[0] else "crashes"
    if charge == "free_returns" and used(row, charge) == BUDGETS[charge]:
        charge = "losses"
    if charge == "crashes":
        again_at_one = row.mark > (row.crash_mark or 0)
        row = count(row, crashes=1 - used(row, "crashes") if again_at_one else 1)
        row = replace(row, crash_mark=row.mark)
    elif charge:
        row = count(row, **{charge: 1})
    exhausted = (
        not event.again
        if charge == "retries"
        else bool(charge) and (used(row, charge) > BUDGETS[charge])
    )
    if exhausted:
        return _over(row, "failed", why_failed)
    row = replace(row, lease="spent", phase="ended", owed="nothing", state=state)
    row = replace(row, due_ms=AGAIN_MS if charge == "retries" else 0)
    return replace(row, avoid=("w", AVOID_MS)) if event.detail == "environment" else row


def perform(life: Life, event: Event) -> tuple[Life, str]:
    """Let the code do it."""
    token, kind = event.token, event.kind
    if kind == "claim":
        try:
            done = lease.claim(life, token=token, worker="w", incarnation=1, epoch=1, now_ms=NOW_MS)
        except IllegalTransitionError:
            return life, "illegal"
        return done.life, ""
    if kind in ("cancel", "pause", "resume", "expire"):
        after, said = lease.wished(life, Wish[kind.upper()], now_ms=NOW_MS)
        return after, said.text
    if kind in ("started", "named"):
        write = lease.started if kind == "started" else lease.named_assigned
        done = write(life, token, now_ms=NOW_MS)
    elif kind == "save":
        done = lease.saved(life, token, event.number, event.digest)
    elif kind == "outcome":
        done = lease.ended(
            life,
            token,
            OutcomeKind[event.detail.upper()],
            now_ms=NOW_MS,
            failure=Failure(message=event.detail),
            again_ms=AGAIN_MS if event.again else None,
            avoid_until_ms=AVOID_MS if event.detail == "environment" else 0,
        )
    else:
        return lease.judged(life, token, Judgement[kind.upper()], now_ms=NOW_MS).life, ""
    # Superseded writes are counted, and only those.
    told = done.answer.text if done.counted == (done.answer.text == "superseded") else "miscounted"
    return done.life, told


# Every shape of a row, and every event.

_USED = (
    Charges(),
    Charges(losses=4, crashes=2, out_of_memory=0, environment=4, free_returns=99, unheard=4),
    Charges(losses=5, crashes=3, out_of_memory=1, environment=5, free_returns=100, unheard=5),
    Charges(losses=2, crashes=1, free_returns=5, unheard=5),
    Charges(losses=6, free_returns=10),
)
_SAVES = ((0, b""), (2, b"two"))
_MARKS = ((0, 0), (9, 0), (9, 9))


def _claimed_shapes() -> Iterator[Life]:
    held = LeaseWord.HELD
    for phase in (Phase.ASSIGNED, Phase.STARTED):
        for wanted in Wanted:
            yield Life(state=State.RUNNING, wanted=wanted, lease=held, phase=phase)
    places = ((State.QUEUED, Wanted.RUN), (State.PAUSED, Wanted.PAUSE))
    for state, wanted in places:
        yield Life(state=state, wanted=wanted, lease=LeaseWord.SPENT, phase=Phase.ENDED)
        owed_by_phase = (
            (Phase.ASSIGNED, Owed.FREE),
            (Phase.ASSIGNED, Owed.UNHEARD),
            (Phase.STARTED, Owed.LOSS),
        )
        for phase, owed in owed_by_phase:
            yield Life(state=state, wanted=wanted, lease=LeaseWord.LAPSED, phase=phase, owed=owed)
    for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
        yield Life(state=state, lease=LeaseWord.SPENT, phase=Phase.ENDED)


def shapes(*, few: bool = False) -> Iterator[Life]:
    """Yield a life for every state × wanted × lease × phase × debt × saves × budgets.

    `few`: with one set of budgets, for events that charge nothing.
    """
    places = ((State.QUEUED, Wanted.RUN), (State.PAUSED, Wanted.PAUSE))
    for state, wanted in (*places, (State.FAILED, Wanted.RUN), (State.CANCELLED, Wanted.CANCEL)):
        yield life_with(
            Life(state=state, wanted=wanted, wish=3),
            reason=Reason.EXPIRED if state is State.FAILED else Reason.NONE,
        )
    for life in _claimed_shapes():
        for charges in _USED[3:4] if few else _USED:
            for saved in _SAVES:
                for mark, crash_mark in _MARKS[:1] if few else _MARKS:
                    yield life_with(
                        life,
                        wish=3,
                        fence=3,
                        token=NEWEST,
                        worker="w",
                        used=charges,
                        freed=(OLDER,) if charges.free_returns else (),
                        saved_number=saved[0],
                        saved_digest=saved[1],
                        mark=mark,
                        crash_mark=crash_mark,
                        reason=Reason.ERROR if life.state is State.FAILED else Reason.NONE,
                    )


def events() -> Iterator[Event]:
    """Yield every event, under every kind of token."""
    for kind in ("cancel", "pause", "resume", "expire"):
        yield Event(kind)
    yield Event("claim", NEXT)
    for token in (NEWEST, OLDER, OLDEST, STRANGE):
        for kind in ("started", "named", "silence", "death", "death_started", "death_spooled"):
            yield Event(kind, token)
        yield Event("unnamed", token)
        for number, digest in ((1, b"one"), (2, b"two"), (2, b"other"), (3, b"three")):
            yield Event("save", token, number=number, digest=digest)
        for kind in OUTCOMES:
            yield Event("outcome", token, kind)
            if kind in ("raised", "timed_out"):
                yield Event("outcome", token, kind, again=False)


def unlike(expected: Row, got: Row) -> list[str]:
    """Return the fields in which a row is not as ADR 2 says."""
    names = Row.__dataclass_fields__
    pairs = ((name, getattr(expected, name), getattr(got, name)) for name in names)
    return [f"{name}: {want} became {is_}" for name, want, is_ in pairs if want not in (None, is_)]


def wrongs(life: Life, event: Event) -> list[str]:
    """Return all that is wrong with what the code makes of one event on one life."""
    expected, answer = step(row_of(life), event)
    after, got = perform(life, event)
    found = unlike(expected, row_of(after))
    if answer != got:
        found.append(f"answered {got}, not {answer}")
    found += invariants.of_change(life, after)
    found += [rule for rule in invariants.of_life(after) if rule not in invariants.of_life(life)]
    if after is not life and row_of(after) == row_of(life):
        found.append("a write that changes nothing")
    return found


def differences(given: Iterable[Event] | None = None, *, few: bool = False) -> Iterator[str]:
    """Yield each difference between the code and ADR 2, over all shapes and these events."""
    chosen = tuple(events() if given is None else given)
    for life in shapes(few=few):
        for event in chosen:
            for wrong in wrongs(life, event):
                yield f"{event} on {row_of(life)}: {wrong}"
