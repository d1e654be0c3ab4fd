"""The tables hold against ADR 2, and each row is needed: altered, it is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from holdfast.core import lease, lifecycle
from holdfast.core.lifecycle import Charge, Judgement, Move, Standing, Wish, Write
from holdfast.model.outcome import Answer, OutcomeKind, Reason
from holdfast.model.task import Charges, Life, Owed, State, Wanted
from holdfast.model.words import Word
from tests.core import leases


def found_out(kinds: Iterable[str], details: Iterable[str] = (), *, few: bool = False) -> bool:
    """Whether the check of these events finds a difference; `few`: with few lives."""
    chosen, only = set(kinds), set(details)
    events = [e for e in leases.events() if e.kind in chosen and (not only or e.detail in only)]
    return next(leases.differences(events, few=few), None) is not None


def survivors(
    monkeypatch: pytest.MonkeyPatch,
    table: dict[Any, Any],
    altered: Callable[[Any], Iterator[Any]],
    found: Callable[[Any], bool],
) -> list[tuple[Any, Any]]:
    """Return the (key, altered row) of a table that nobody finds out."""
    left = []
    for key, row in list(table.items()):
        for other in altered(row):
            with monkeypatch.context() as patch:
                patch.setitem(table, key, other)
                if not found(key):
                    left.append((key, other))
    return left


def each_field(row: tuple[Any, ...], words: tuple[Iterable[Word], ...]) -> Iterator[Any]:
    """Yield a row with one field replaced by each other word."""
    for place, choices in enumerate(words):
        for word in choices:
            if word is not row[place]:
                yield (*row[:place], word, *row[place + 1 :])


def test_the_code_makes_of_every_event_on_every_life_what_the_rules_say() -> None:
    assert list(leases.differences()) == []


def test_every_word_of_the_rules_has_its_row() -> None:
    assert set(lifecycle.WRITES) == {(write, how) for write in Write for how in Standing}
    assert set(lifecycle.OUTCOMES) == set(OutcomeKind)
    places = {(State.QUEUED, Wanted.RUN), (State.PAUSED, Wanted.PAUSE)}
    places |= {(State.RUNNING, wanted) for wanted in Wanted}
    assert set(lifecycle.WISHES) == {(wish, *place) for wish in Wish for place in places}
    live = (Standing.ASSIGNED, Standing.STARTED, Standing.LAPSED)
    rows = {(judgement, how) for judgement in Judgement for how in live}
    assert set(lifecycle.JUDGEMENTS) == rows | {(Judgement.DEATH_STARTED, Standing.OLDER)}


def test_no_row_of_the_writes_can_be_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        Write.STARTED: "started",
        Write.NAMED_ASSIGNED: "named",
        Write.OUTCOME: "outcome",
        Write.SAVE: "save",
    }
    # `ended` and `saved` ask only whether there is a move; the others know these four.
    moves = (Move.NOTHING, Move.START, Move.REVIVE, Move.RECHARGE, Move.END, Move.SAVE)
    left = survivors(
        monkeypatch,
        lifecycle.WRITES,
        lambda row: each_field(row, (moves[:4] if row[0] in moves[:4] else moves[:1], Answer)),
        lambda key: found_out([names[key[0]]], few=True),
    )
    for (write, how), (move, answer) in left:
        row = lifecycle.WRITES[write, how]
        # To start again what is held and has not started is to start it. Only an older token was
        # charged as free, so that for every other one there is nothing to charge anew.
        first_start = (Move.START, Move.REVIVE)
        assert (row[0], move) in ((Move.NOTHING, Move.RECHARGE), first_start)
        assert write in (Write.STARTED, Write.NAMED_ASSIGNED)
        assert how is not Standing.OLDER
        assert answer is row[1]


def test_no_row_of_the_outcomes_can_be_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = (Move.BACK, Move.PAUSE, Move.CANCEL, Move.FAIL, Move.SUCCEED)

    def altered(row: Any) -> Iterator[Any]:
        for cells in each_field(row[0], (moves, moves, moves)):
            yield (cells, *row[1:])
        yield from each_field(row, ((), Charge, Reason))

    left = survivors(
        monkeypatch,
        lifecycle.OUTCOMES,
        altered,
        lambda kind: found_out(["outcome"], [kind.text]),
    )
    equivalent = [
        # A success is charged to nothing and never fails.
        *((OutcomeKind.SUCCEEDED, row[1:]) for row in altered(_row(OutcomeKind.SUCCEEDED))),
    ]
    assert [(kind, row[1:]) for kind, row in left] == [
        (kind, rest) for kind, rest in equivalent if rest != _row(OutcomeKind.SUCCEEDED)[1:]
    ]


def _row(kind: OutcomeKind) -> Any:
    return lifecycle.OUTCOMES[kind]


def test_no_row_of_the_judgements_can_be_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = (Move.NOTHING, Move.LAPSE, Move.WAIT, Move.RECHARGE)

    def altered(row: Any) -> Iterator[Any]:
        yield from each_field(row, (moves, Owed))
        if row[0] is not Move.LAPSE:
            yield from ((Move.LAPSE, owed) for owed in Owed if owed)

    left = survivors(
        monkeypatch,
        lifecycle.JUDGEMENTS,
        altered,
        lambda key: found_out([key[0].text], few=True),
    )
    idle = (Move.NOTHING, Move.WAIT, Move.RECHARGE)
    for (judgement, how), (move, owed) in left:
        was = lifecycle.JUDGEMENTS[judgement, how]
        if how is Standing.OLDER:
            # What an older token owed was charged already: the debt of that row is not read.
            assert move is was[0]
        elif was[0] in idle and move in idle:
            # Waiting is doing nothing; only an older token can be recharged; no debt is read.
            pass
        else:
            # A debt no higher than the one that stands changes nothing, and `FREE` is the lowest.
            assert was[0] in idle
            assert move is Move.LAPSE
            assert owed is Owed.NOTHING or (how is Standing.LAPSED and owed is Owed.FREE)


def test_no_row_of_the_wishes_can_be_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = (
        Move.NOTHING,
        Move.QUEUE,
        Move.PAUSE,
        Move.CANCEL,
        Move.FAIL,
        Move.ASK_RUN,
        Move.ASK_PAUSE,
        Move.ASK_CANCEL,
    )
    left = survivors(
        monkeypatch,
        lifecycle.WISHES,
        lambda row: each_field(row, (moves, lifecycle.Said)),
        lambda key: found_out([key[0].text], few=True),
    )
    assert left == []


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("budget", sorted(leases.BUDGETS))
def test_no_budget_can_be_one_more_or_one_less(
    monkeypatch: pytest.MonkeyPatch, budget: str, by: int
) -> None:
    name = f"{budget.upper()}_MAX"
    assert getattr(lease, name) == leases.BUDGETS[budget]
    monkeypatch.setattr(lease, name, leases.BUDGETS[budget] + by)
    assert found_out(["claim", "outcome"])


def _kept_debt(life: Life) -> Life:
    return life


def _charged_twice(life: Life) -> Life:
    return _LAPSE(_LAPSE(life))


def _always_a_loss(life: Life) -> Life:
    return _LAPSE(lease.replace(life, owed=Owed.LOSS))


def _always_free(life: Life) -> Life:
    return _LAPSE(lease.replace(life, owed=Owed.FREE))


def _free_and_forgotten(life: Life) -> Life:
    return lease.replace(_LAPSE(life), freed=life.freed)


def _nothing(life: Life, charge: Charge) -> tuple[Charges, bool]:
    return life.used, False


def _never_over(life: Life, charge: Charge) -> tuple[Charges, bool]:
    return _OUTCOME(life, charge)[0], False


def _no_second_chance(life: Life, charge: Charge) -> tuple[Charges, bool]:
    return _OUTCOME(lease.replace(life, mark=life.crash_mark), charge)


def _always_a_second_chance(life: Life, charge: Charge) -> tuple[Charges, bool]:
    return _OUTCOME(lease.replace(life, mark=life.crash_mark + 1), charge)


_LAPSE = lease._charge_lapse
_OUTCOME = lease._charge_outcome


@pytest.mark.parametrize(
    "rule", [_kept_debt, _charged_twice, _always_a_loss, _always_free, _free_and_forgotten]
)
def test_no_charge_of_a_lapse_can_be_altered(monkeypatch: pytest.MonkeyPatch, rule: Any) -> None:
    monkeypatch.setattr(lease, "_charge_lapse", rule)
    assert found_out(["claim"])


@pytest.mark.parametrize(
    "rule", [_nothing, _never_over, _no_second_chance, _always_a_second_chance]
)
def test_no_charge_of_an_outcome_can_be_altered(monkeypatch: pytest.MonkeyPatch, rule: Any) -> None:
    monkeypatch.setattr(lease, "_charge_outcome", rule)
    assert found_out(["outcome"])


@pytest.mark.parametrize("always", [False, True])
def test_exit_code_85_is_a_crash_exactly_without_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    monkeypatch.setattr(lease, "_is_crash", lambda life, charge: always)
    assert found_out(["outcome"], ["checkpointed"])
    assert found_out(["outcome"], ["crashed"]) is not always
