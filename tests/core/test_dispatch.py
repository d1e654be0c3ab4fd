"""Who gets what, and that the window over the store neither loses nor doubles a task."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from holdfast.core import dispatch
from holdfast.core.dispatch import (
    BEHIND_URGENT_MAX,
    HORIZON_US,
    LONG_US,
    OVERHEAD_US,
    URGENT_SECONDS,
    Crew,
    Line,
    Lines,
    Offer,
    Pace,
    Urgency,
    weight,
)
from holdfast.model.ids import TaskId
from holdfast.model.limits import OUTSTANDING_MAX
from holdfast.model.outcome import Encoding, Payload
from holdfast.model.task import Spec, rank_of

SHORT_US = 1_000
MINUTE_MS = 60_000
LOW, PAGE_MAX, SIZE_MAX = 3, 5, 10
"""A window of the machine below is filled while it holds fewer than this, by this many."""


def offer(
    identity: str = "w",
    *,
    slots: int = 1,
    concurrent_slots: int = 0,
    queues: Iterable[str] = (),
    tags: Iterable[str] = (),
    pull: bool = False,
) -> Offer:
    return Offer(
        identity,
        slots=slots,
        concurrent_slots=concurrent_slots,
        queues=queues,
        tags=tags,
        pull=pull,
    )


def holding(given: Offer, *costs_us: int) -> Offer:
    for cost_us in costs_us:
        given.hold(len(given.leases).to_bytes(16, "big"), cost_us, concurrent=False)
    return given


# How long a function runs.


def test_a_function_of_unknown_length_is_long() -> None:
    pace = Pace()
    assert pace.cost_us("f") == 0
    pace.learn("f", SHORT_US)
    assert pace.cost_us("f") == SHORT_US + OVERHEAD_US
    pace.learn("f", LONG_US)
    assert pace.cost_us("f") == LONG_US + OVERHEAD_US
    pace.learn("f", LONG_US + 1)
    assert pace.cost_us("f") == 0


def test_a_slow_run_counts_at_once_and_is_forgotten_slowly() -> None:
    pace = Pace()
    for run_us in (80, 800):
        pace.learn("f", run_us)
    pace.learn("f", 0)
    assert pace.cost_us("f") == 700 + OVERHEAD_US
    for _ in range(100):
        pace.learn("f", 0)
    assert pace.cost_us("f") == OVERHEAD_US


def test_a_run_below_zero_is_none() -> None:
    pace = Pace()
    pace.learn("f", -5_000)
    assert pace.cost_us("f") == OVERHEAD_US


def test_the_paces_of_many_functions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_FUNCTIONS_MAX", 2)
    pace = Pace()
    for function in ("a", "b", "b", "c"):
        pace.learn(function, SHORT_US)
    assert [bool(pace.cost_us(function)) for function in "abc"] == [False, True, True]


# What a worker takes.


@pytest.mark.parametrize(
    ("needs", "serves"),
    [
        ("default", True),
        ("other", False),
        ("default+gpu", True),
        ("default+gpu+fast", False),
        ("default~", False),
    ],
)
def test_a_worker_serves_its_queues_with_its_tags(needs: str, serves: bool) -> None:
    assert offer(queues=["default"], tags=["gpu"]).serves(needs) == serves


def test_a_worker_without_queues_serves_them_all() -> None:
    assert offer(concurrent_slots=1).serves("any~")


def test_a_long_task_takes_a_whole_slot_and_is_never_assigned_ahead() -> None:
    busy = holding(offer(slots=2), 0, 0)
    assert not busy.takes(0, concurrent=False)
    assert not busy.takes(SHORT_US, concurrent=False)
    assert busy.full
    assert busy.load == 1.0


def test_slots_that_another_stores_work_takes_are_not_offered() -> None:
    shared = offer(slots=2, concurrent_slots=1)
    shared.strangers(1, 1)
    assert not shared.takes(SHORT_US, concurrent=True)
    holding(shared, SHORT_US)
    assert shared.free == 0
    assert not shared.takes(0, concurrent=False)
    while shared.takes(SHORT_US, concurrent=False):
        holding(shared, SHORT_US)
    assert shared.backlog_us == HORIZON_US, "as far ahead as one slot reaches"
    shared.strangers(5, 5)
    assert shared.full
    assert shared.load > 1.0
    # What a worker says of itself is not believed beyond what it offers.
    shared.strangers(-5, -5)
    assert shared.takes(SHORT_US, concurrent=True)
    assert shared.free == 2 - len(shared.leases)


def test_short_tasks_are_assigned_ahead_up_to_the_horizon_of_the_free_slots() -> None:
    busy = holding(offer(slots=2), 0)
    while busy.takes(SHORT_US, concurrent=False):
        holding(busy, SHORT_US)
    assert busy.backlog_us == HORIZON_US
    assert not busy.takes(0, concurrent=False)


def test_what_is_assigned_ahead_is_bounded_in_number_too() -> None:
    busy = offer(slots=10_000)
    holding(busy, *[1] * 10_000)
    assert not busy.takes(1, concurrent=False)
    assert OUTSTANDING_MAX < 10_000


def test_what_is_less_urgent_than_what_came_of_late_is_assigned_ahead_only_a_little() -> None:
    urgency = Urgency()
    assert urgency.ahead_max(0, 5.0) == OUTSTANDING_MAX
    urgency.learn(0, 5.0)
    assert [urgency.ahead_max(n, 5.0) for n in (-1, 0, 1)] == [
        BEHIND_URGENT_MAX,
        OUTSTANDING_MAX,
        OUTSTANDING_MAX,
    ]
    urgency.learn(7, 5.5)
    urgency.learn(0, 6.0)
    assert urgency.ahead_max(0, 6.4) == BEHIND_URGENT_MAX
    assert urgency.ahead_max(7, 6.4) == OUTSTANDING_MAX
    # Nothing urgent came for a second.
    assert urgency.ahead_max(0, 5.5 + URGENT_SECONDS) == OUTSTANDING_MAX
    urgency.learn(0, 5.5 + URGENT_SECONDS)
    assert urgency.ahead_max(-1, 6.6) == BEHIND_URGENT_MAX


def test_a_worker_holds_no_more_ahead_than_is_asked_but_its_free_slots_are_used() -> None:
    worker = offer(slots=2)
    assert worker.takes(SHORT_US, concurrent=False, ahead_max=1)
    for number in range(2):
        worker.hold(bytes([number]), SHORT_US, concurrent=False)
    assert worker.takes(SHORT_US, concurrent=False, ahead_max=3)
    assert not worker.takes(SHORT_US, concurrent=False, ahead_max=2)


def test_a_pulling_worker_gets_what_it_asked_for_and_nothing_ahead() -> None:
    puller = offer(slots=1, pull=True)
    assert puller.full
    puller.asked = [3, 0]
    assert puller.takes(0, concurrent=False)
    holding(puller, SHORT_US)
    puller.given[False] = 1
    assert not puller.takes(SHORT_US, concurrent=False)


def test_a_pulling_worker_asks_for_each_kind_by_itself() -> None:
    puller = offer(slots=1, concurrent_slots=2, pull=True)
    puller.asked = [1, 2]
    puller.given = [1, 1]
    assert not puller.takes(0, concurrent=False)
    assert puller.takes(0, concurrent=True)
    puller.given[True] = 2
    assert not puller.takes(0, concurrent=True)


def test_a_worker_that_drains_takes_nothing() -> None:
    drained = offer()
    drained.open = False
    assert drained.full


def test_concurrent_tasks_have_slots_of_their_own() -> None:
    both = offer(slots=1, concurrent_slots=2)
    for token in (b"a", b"b"):
        assert both.takes(0, concurrent=True)
        both.hold(token, 0, concurrent=True)
    assert not both.takes(0, concurrent=True)
    assert both.takes(0, concurrent=False)
    assert both.load == 2 / 64


def test_what_is_dropped_is_counted_no_more_and_only_once() -> None:
    mixed = offer(slots=4, concurrent_slots=4)
    for token, cost_us, concurrent in ((b"a", 0, False), (b"b", 7, False), (b"c", 9, True)):
        mixed.hold(token, cost_us, concurrent=concurrent)
    assert (mixed.longs, mixed.backlog_us, mixed.concurrent) == (1, 7, 1)
    for token in (b"a", b"b", b"c", b"a", b"none"):
        mixed.drop(token)
    assert (mixed.longs, mixed.backlog_us, mixed.concurrent, mixed.leases) == (0, 0, 0, {})


def test_an_age_is_known_of_what_was_claimed_here_and_else_is_old() -> None:
    here = offer(slots=2)
    here.hold(b"claimed", SHORT_US, concurrent=False, now=50.0)
    here.hold(b"kept", SHORT_US, concurrent=False)
    assert here.age_seconds(b"claimed", 50.25) == 0.25
    assert here.age_seconds(b"kept", 50.25) == math.inf
    here.drop(b"claimed")
    assert here.age_seconds(b"claimed", 50.25) == math.inf


def test_the_least_loaded_worker_has_the_least_work_for_each_slot() -> None:
    many, few = holding(offer(slots=4), 0, 0), holding(offer(slots=1), SHORT_US)
    idle = offer(slots=1)
    assert sorted((many, few, idle), key=lambda worker: worker.load) == [idle, few, many]


def test_the_crew_knows_who_serves_a_class() -> None:
    crew = Crew()
    assert not crew.served("default")
    crew.come(offer("a", queues=["a"]))
    crew.come(both := offer("b"))
    assert crew.served("default")
    assert list(crew.serving("default")) == [both]
    crew.come(narrow := offer("b", queues=["a"]))
    assert not crew.served("default")
    assert list(crew.serving("a")) == [crew.offers["a"], narrow]
    for identity in ("a", "b", "b"):
        crew.go(identity)
    assert not crew.served("a")
    assert crew.offers == {}


def test_who_serves_a_class_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_CLASSES_MAX", 2)
    asked: list[str] = []
    serves = Offer.serves
    monkeypatch.setattr(Offer, "serves", lambda o, needs: asked.append(needs) or serves(o, needs))
    crew = Crew()
    crew.come(offer())
    for needs in ("a", "b", "a", "b", "a"):
        assert crew.served(needs)
    assert asked == ["a", "b"]
    assert all(crew.served(needs) for needs in "abcdabcd"), "however many are remembered"


# The line: priorities first, first come first served within one, and waiting outweighs priority.


def spec(number: int, *, submitted_ms: int, priority: int = 0) -> Spec:
    task = TaskId(number.to_bytes(16, "big"))
    return Spec(task, "m:f", Payload(Encoding.JSON), submitted_ms, priority=priority)


def drained(line: Line) -> list[int]:
    numbers = []
    while line.head() is not None:
        numbers.append(int.from_bytes(line.pop()[1], "big"))
    return numbers


def test_priority_first_then_order_of_submission_and_long_waits_outweigh() -> None:
    line = Lines().new("default")
    specs = (
        spec(1, submitted_ms=20 * MINUTE_MS),
        spec(2, submitted_ms=20 * MINUTE_MS + 1),
        spec(3, submitted_ms=20 * MINUTE_MS + 2, priority=1),
        spec(4, submitted_ms=5 * MINUTE_MS),
        spec(5, submitted_ms=20 * MINUTE_MS, priority=-1),
    )
    for one in specs:
        assert line.push(rank_of(one), one.id)
    # Number 4 has waited longer than a level of priority is worth.
    assert drained(line) == [4, 3, 1, 2, 5]


def test_a_class_of_which_the_store_may_have_more_keeps_nothing_before_it_was_read() -> None:
    lines = Lines()
    line = lines.line("default")
    assert lines.new("default") is line
    assert lines.line("default") is line
    assert not line.push(1, b"a")
    assert line.fill([(1, b"a", 0), (3, b"c", 0)], more=True) == [b"a", b"c"]
    assert line.push(2, b"b")
    assert line.push(2, b"b")
    assert not line.push(4, b"d")
    assert drained(line) == [ord("a"), ord("b"), ord("c")]


def test_a_class_that_nobody_serves_holds_nothing() -> None:
    lines = Lines()
    lines.new("default").push(1, b"a", 100)
    lines.forget("default")
    lines.forget("unknown")
    assert (lines.lines, lines.touched()) == ({}, [])
    assert (lines.stock.bytes, lines.stock.lines) == (0, 0)
    assert list(lines.unserved) == ["default", "unknown"]
    line = lines.line("default")
    assert (line.head(), line.held, line.more, line.tail) == (None, {}, True, None)
    assert list(lines.unserved) == ["unknown"]


def test_only_lines_that_changed_are_looked_at_and_those_at_their_end_are_forgotten() -> None:
    lines = Lines()
    full, last = lines.new("full"), lines.new("last")
    for line in (full, last):
        line.push(1, b"a")
    for line in lines.touched():
        lines.looked_at(line)
    assert lines.touched() == []
    last.pop()
    assert lines.touched() == [last]
    lines.looked_at(last)
    assert lines.lines == {"full": full}
    full.reread()
    assert lines.touched() == [full]


def test_what_all_lines_weigh_is_bounded_and_no_line_starves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "WINDOWS_BYTES_MAX", 100)
    lines = Lines()
    greedy = lines.new("greedy")
    for rank in range(1, 10):
        assert greedy.push(rank, bytes([rank]), 10)
    assert greedy.push(10, b"\x0a", 10)
    assert not greedy.push(11, b"\x0b", 10)
    assert (greedy.more, greedy.tail, greedy.bytes) == (True, (5, b"\x05"), 50)
    assert greedy.short(100)
    page = [(rank, bytes([rank]), 10) for rank in range(6, 30)]
    assert len(greedy.fill(page, more=False)) == 5
    assert (greedy.more, greedy.tail, lines.stock.bytes) == (True, (10, b"\x0a"), 100)
    assert not greedy.short(100), "few tasks, but no room"
    modest = lines.line("modest")
    assert modest.short(100)
    assert len(modest.fill(page, more=False)) == 5, "its share"
    heavy = lines.line("heavy")
    assert heavy.fill([(1, b"h", 1_000), (2, b"i", 1_000)], more=False) == [b"h"]
    assert (heavy.more, heavy.tail) == (True, (1, b"h"))
    for line in (greedy, modest, heavy):
        while line.head() is not None:
            line.pop()
    assert lines.stock.bytes == 0


def test_a_row_weighs_something_without_a_payload() -> None:
    empty = spec(1, submitted_ms=0)
    full = replace(empty, payload=Payload(Encoding.JSON, b"x" * 5_000))
    assert weight(full) == weight(empty) + 5_000
    assert weight(empty) > 0


def test_what_left_is_not_offered_and_what_came_back_is_offered_once() -> None:
    line = Lines().new("default")
    for rank, task in ((1, b"a"), (2, b"b"), (3, b"c")):
        line.push(rank, task)
    line.remove(b"a")
    line.remove(b"a")
    line.push(1, b"a")
    line.remove(b"b")
    entry = line.pop()
    line.restore(*entry)
    line.restore(*entry)
    assert drained(line) == [ord("a"), ord("c")]


def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WINDOW_TASKS_MAX", 4)


def test_a_full_window_is_cut_past_tasks_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    line = Lines().new("default")
    tasks = [(rank, bytes([rank])) for rank in range(1, 12)]
    for rank, task in tasks[:8]:
        line.push(rank, task)
    line.remove(b"\x08")
    line.remove(b"\x02")
    line.push(2, b"\x02")
    assert line.tail == (5, b"\x05")
    assert not line.push(*tasks[8])
    line.fill([(*entry, 0) for entry in tasks[5:] if entry[0] != 8], more=False)
    assert drained(line) == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]


def test_a_window_full_of_tasks_that_left_need_not_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    line = Lines().new("default")
    for rank in range(8):
        line.push(rank, bytes([rank]))
    for rank in range(5):
        line.remove(bytes([rank]))
    assert line.push(9, b"\x09")
    assert (line.more, drained(line)) == (False, [5, 6, 7, 9])


def test_a_page_never_doubles_what_is_held_and_drops_what_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_windows(monkeypatch)
    line = Lines().new("default")
    for rank in range(1, 9):
        line.push(rank, bytes([rank]))
    for rank in range(3, 9):
        line.remove(bytes([rank]))
    # Nobody served the class when more came: the store is read again from the start.
    line.more, line.tail = True, None
    line.fill([(rank, bytes([rank]), 0) for rank in (1, 2, 9)], more=False)
    assert len(line.entries) == 3
    assert drained(line) == [1, 2, 9]


def test_what_is_put_back_beyond_the_window_waits_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_windows(monkeypatch)
    line = Lines().new("default")
    line.push(9, b"\x09")
    entry = line.pop()
    for rank in range(1, 10):
        line.push(rank, bytes([rank]))
    line.restore(*entry)
    assert line.tail == (4, b"\x04")
    assert drained(line) == [1, 2, 3, 4]


def size_of(entry: tuple[int, bytes]) -> int:
    return int.from_bytes(entry[1], "big") * 7 % (SIZE_MAX + 1)


class Window(RuleBasedStateMachine):
    """A line over a store that pages, against a sorted list of all that is claimable."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = Lines()
        self.line = self.lines.new("default")
        self.store: list[tuple[int, bytes]] = []
        self.away: list[tuple[int, bytes]] = []
        self.made = 0

    @rule(ranks=st.lists(st.integers(0, 40), min_size=3, max_size=9))
    def come(self, ranks: list[int]) -> None:
        for rank in ranks:
            self.made += 1
            self.back((rank, self.made.to_bytes(16, "big")))

    def back(self, entry: tuple[int, bytes]) -> None:
        bisect.insort(self.store, entry)
        self.line.push(*entry, size_of(entry))

    @precondition(lambda self: self.store)
    @rule(places=st.lists(st.integers(0, 20), min_size=1, max_size=4))
    def leave(self, places: list[int]) -> None:
        for place in places[: len(self.store)]:
            entry = self.store.pop(place % len(self.store))
            self.line.remove(entry[1])
            self.away.append(entry)

    @precondition(lambda self: self.away)
    @rule(places=st.lists(st.integers(0, 20), min_size=1, max_size=4))
    def come_back(self, places: list[int]) -> None:
        for place in places[: len(self.away)]:
            self.back(self.away.pop(place % len(self.away)))

    def claimed(self, count: int) -> list[tuple[int, bytes]]:
        taken = []
        for _ in range(count):
            head = self.line.head()
            if head is None:
                break
            assert head == self.store[0]
            assert self.line.pop() == head
            taken.append(self.store.pop(0))
        return taken

    @rule(count=st.integers(1, 6))
    def some_are_claimed(self, count: int) -> None:
        self.claimed(count)

    @rule(count=st.integers(1, 6), ranks=st.lists(st.integers(0, 40), max_size=8))
    def some_are_put_back_after_others_came(self, count: int, ranks: list[int]) -> None:
        taken = self.claimed(count)
        self.come(ranks)
        for entry in taken:
            bisect.insort(self.store, entry)
            self.line.restore(*entry, size_of(entry))

    @precondition(lambda self: self.line.short(LOW))
    @rule(limit=st.integers(1, PAGE_MAX))
    def is_filled(self, limit: int) -> None:
        after = self.line.tail
        beyond = [entry for entry in self.store if after is None or entry > after]
        page = [(*entry, size_of(entry)) for entry in beyond[:limit]]
        self.line.fill(page, more=len(beyond) > limit)

    @precondition(lambda self: self.made > 40)
    @rule()
    def nobody_serves_it(self) -> None:
        self.lines.forget("default")
        self.line = self.lines.line("default")

    @invariant()
    def the_window_holds_all_up_to_its_tail_and_nothing_else(self) -> None:
        line = self.line
        held = set(line.held)
        assert held <= {task for _, task in self.store}
        if line.more:
            tail = line.tail
            near = {entry[1] for entry in self.store if tail is not None and entry <= tail}
            assert near == held
        else:
            assert held == {task for _, task in self.store}

    @invariant()
    def the_window_is_bounded(self) -> None:
        assert len(self.line.held) <= len(self.line.entries)
        assert len(self.line.entries) <= 2 * dispatch.WINDOW_TASKS_MAX + PAGE_MAX
        weights = sum(self.line.held.values())
        assert weights == self.line.bytes == self.lines.stock.bytes
        assert weights <= dispatch.WINDOWS_BYTES_MAX + 2 * SIZE_MAX


def test_no_task_is_lost_or_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    monkeypatch.setattr(dispatch, "WINDOWS_BYTES_MAX", 5 * SIZE_MAX)
    case = Window.TestCase()
    case.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
    case.runTest()


def test_a_crew_serves_no_class_of_a_paused_queue() -> None:
    crew = Crew()
    worker = offer(slots=1, concurrent_slots=1, tags=("gpu",))
    crew.come(worker)
    assert crew.served("a+gpu~")
    crew.pause(["a"])
    assert not crew.served("a+gpu~")
    assert not crew.served("a")
    assert crew.served("ab")
    crew.come(worker)
    assert not crew.served("a")
    crew.pause([])
    assert crew.served("a")
