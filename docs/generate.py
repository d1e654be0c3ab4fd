"""Write docs/lifecycle.md from the tables of the code.

The tables are printed as they stand in `core.lifecycle`. The diagram is found by walking: every
event is applied to every life that can be reached, and each change of state becomes an arrow.
`--check` writes nothing and fails where the file is not what the code gives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from holdfast.core import lease, lifecycle
from holdfast.core.lifecycle import (
    JUDGEMENTS,
    OUTCOMES,
    WISHES,
    WRITES,
    Charge,
    Judgement,
    Move,
    Said,
    Standing,
    Wish,
    Write,
)
from holdfast.model import limits
from holdfast.model.ids import Token
from holdfast.model.outcome import OutcomeKind
from holdfast.model.task import TERMINAL_MIN, Charges, Life, Owed, State, Wanted

PAGE = Path(__file__).with_name("lifecycle.md")

MOVES = {
    Move.NOTHING: "nothing",
    Move.START: "phase started",
    Move.REVIVE: "running again, same token",
    Move.RECHARGE: "a free return becomes a loss",
    Move.END: "spent, then by outcome",
    Move.SAVE: "written",
    Move.LAPSE: "lapses, goes back",
    Move.WAIT: "waits for the restart, at most a lease",
    Move.QUEUE: "queued",
    Move.PAUSE: "paused",
    Move.CANCEL: "cancelled",
    Move.FAIL: "failed",
    Move.SUCCEED: "succeeded",
    Move.ASK_RUN: "asked to go on",
    Move.ASK_PAUSE: "asked to pause",
    Move.ASK_CANCEL: "asked to stop",
    Move.BACK: "back",
}
CHARGES = {
    Charge.NOTHING: "none",
    Charge.RETRY: "retries",
    Charge.CRASH: "crashes",
    Charge.OUT_OF_MEMORY: "out of memory",
    Charge.ENVIRONMENT: "environment",
    Charge.FREE: "free returns",
    Charge.LOSS: "losses",
    Charge.CHECKPOINT: "none with a new checkpoint, else crashes",
}
OWED = {
    Owed.NOTHING: "",
    Owed.FREE: "owes a free return",
    Owed.UNHEARD: "owes a free return, later a loss",
    Owed.LOSS: "owes a loss",
}
SAID = {
    Said.DONE: "done",
    Said.ASKED: "asked",
    Said.FINISHED: "finished",
    Said.BEING_CANCELLED: "refused, being cancelled",
}

Row = Iterable[str]
Event = tuple[str, Callable[[Life], Life]]


def spoken(text: str) -> str:
    return text.replace("_", " ")


def table(head: Row, rows: Iterable[Row]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell or "–" for cell in line) + " |" for line in lines)


def cell(*words: str) -> str:
    return "; ".join(word for word in words if word)


# The tables, as they stand.


def writes() -> str:
    def row(write: Write) -> Iterator[str]:
        yield spoken(write.text)
        for standing in Standing:
            move, answer = WRITES[write, standing]
            yield cell(MOVES[move], f"*{answer.text}*")

    return table(["a worker writes", *(s.text for s in Standing)], map(row, Write))


def outcomes() -> str:
    rows = [
        [
            spoken(kind.text),
            *(MOVES[move] for move in moves),
            CHARGES[charge],
            spoken(reason.text) if reason else "",
        ]
        for kind, (moves, charge, reason) in OUTCOMES.items()
    ]
    wants = [f"wanted {wanted.text}" for wanted in Wanted]
    return table(["outcome", *wants, "charged to", "reason when that is over"], rows)


def judgements() -> str:
    standings = (Standing.ASSIGNED, Standing.STARTED, Standing.LAPSED, Standing.OLDER)

    def row(judgement: Judgement) -> Iterator[str]:
        yield spoken(judgement.text)
        for standing in standings:
            move, owed = JUDGEMENTS.get((judgement, standing), (Move.NOTHING, Owed.NOTHING))
            yield cell(MOVES[move], OWED[owed])

    return table(["judged", *(s.text for s in standings)], map(row, Judgement))


def wishes() -> str:
    places = list(dict.fromkeys((state, wanted) for _, state, wanted in WISHES))

    def row(place: tuple[State, Wanted]) -> Iterator[str]:
        state, wanted = place
        yield f"{state.text}, wanted {wanted.text}"
        for wish in Wish:
            move, said = WISHES[wish, state, wanted]
            yield cell(MOVES[move], f"*{SAID[said]}*")

    return table(["the task is", *(wish.text for wish in Wish)], map(row, sorted(places)))


def budgets() -> str:
    rows = [
        ("retries", "the retry policy; this release has none, so the first exception is final"),
        ("losses", str(limits.LOSSES_MAX)),
        ("crashes", f"{limits.CRASHES_MAX} without progress between them"),
        ("out of memory", str(limits.OUT_OF_MEMORY_MAX)),
        ("environment", str(limits.ENVIRONMENT_MAX)),
        ("free returns", f"{limits.FREE_RETURNS_MAX}, then losses"),
        ("unheard lapses", f"{limits.UNHEARD_MAX} as free returns, then losses"),
    ]
    return table(["budget", "allowed"], rows)


# The diagram, walked.


OURS, STALE = Token(b"ours"), Token(b"stale")
SPENT_BUDGETS = Charges(
    losses=limits.LOSSES_MAX,
    crashes=limits.CRASHES_MAX,
    out_of_memory=limits.OUT_OF_MEMORY_MAX,
    environment=limits.ENVIRONMENT_MAX,
    free_returns=limits.FREE_RETURNS_MAX,
    unheard=limits.UNHEARD_MAX,
)


def events_of(life: Life) -> Iterator[Event]:
    """Yield what can happen to a task that is not terminal, as (word, function)."""
    token = life.token
    if life.state is State.QUEUED:
        yield "claim", _claimed
    if token:
        yield "started", lambda one: lease.started(one, token, now_ms=1).life
        yield "named by a hello", lambda one: lease.named_assigned(one, token, now_ms=1).life
        for kind in OutcomeKind:
            for again_ms in (1, None):
                yield kind.text, _ending(kind, again_ms)
        for judgement in Judgement:
            yield judgement.text, _judging(judgement)
    for wish in Wish:
        yield wish.text, _wishing(wish)


def _claimed(life: Life) -> Life:
    other = STALE if life.token == OURS else OURS
    return lease.claim(life, token=other, worker="w", incarnation=1, epoch=1, now_ms=1).life


def _ending(kind: OutcomeKind, again_ms: int | None) -> Callable[[Life], Life]:
    return lambda one: lease.ended(one, one.token, kind, now_ms=1, again_ms=again_ms).life


def _judging(judgement: Judgement) -> Callable[[Life], Life]:
    return lambda one: lease.judged(one, one.token, judgement, now_ms=1).life


def _wishing(wish: Wish) -> Callable[[Life], Life]:
    return lambda one: lease.wished(one, wish, now_ms=1)[0]


def arrows() -> dict[tuple[State, State], list[str]]:
    """Return the words on every arrow, over all lives that can be reached."""
    found: dict[tuple[State, State], dict[str, None]] = {}
    waiting = [Life(), Life(used=SPENT_BUDGETS)]
    seen: set[tuple[object, ...]] = set()
    while waiting:
        life = waiting.pop()
        full = life.used.losses >= limits.LOSSES_MAX
        place = (life.state, life.wanted, life.lease, life.phase, life.owed, life.token, full)
        if life.state >= TERMINAL_MIN or place in seen:
            continue
        seen.add(place)
        for word, happen in events_of(life):
            after = happen(life)
            if after.state is not life.state:
                found.setdefault((life.state, after.state), {})[spoken(word)] = None
            waiting.append(after)
    order = {word: number for number, word in enumerate(_words())}
    return {pair: sorted(words, key=order.__getitem__) for pair, words in sorted(found.items())}


def _words() -> Iterator[str]:
    yield from ("claim", "started", "named by a hello")
    for vocabulary in (OutcomeKind, Judgement, Wish):
        yield from (spoken(word.text) for word in vocabulary)


def diagram() -> str:
    lines = ["stateDiagram-v2", "    [*] --> queued: submit"]
    for (before, after), words in arrows().items():
        rows = [
            ", ".join(word for _, word in group)
            for _, group in groupby(enumerate(words), lambda pair: pair[0] // 4)
        ]
        lines.append(f"    {before.text} --> {after.text}: {'<br/>'.join(rows)}")
    lines += [f"    {state.text} --> [*]" for state in State if state >= TERMINAL_MIN]
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def rules() -> str:
    """Return the rules at the head of `core.lifecycle`."""
    assert lifecycle.__doc__ is not None
    _, _, text = lifecycle.__doc__.partition("Rules\n-----\n")
    return text.strip()


def page() -> str:
    """Return the whole page."""
    return f"""# The life of a task

Generated from `src/holdfast/core/lifecycle.py` by `python docs/generate.py`; do not edit.
Why the rules are what they are: [ADR 2](adr/0002-the-lease.md).

## States

{diagram()}

An arrow bears every event that can cause it. Which of several arrows an event takes depends on what
the user wants of the task (run, pause, cancel) and on the budgets; the tables below say how.

## Rules

{rules()}

## Writes of a worker

By the standing of the token that the write carries. *Older* also stands for a token of a task that
is not known under it. In italics: the answer.

{writes()}

## Outcomes

What becomes of a task when the outcome of its newest token is accepted.

{outcomes()}

## Judgements

What is judged of a lease without a word from it, and what the next claim then owes.

{judgements()}

## Wishes

What a user or a deadline asks of a task that is not terminal. In italics: the answer.

{wishes()}

## Budgets

Each is counted by itself. The event after the last one allowed ends the task.

{budgets()}
"""


def main() -> int:
    """Write the page, or compare it with `--check`; return the exit code."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE.name} is not what the tables give: python docs/generate.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
