"""What every store must do, whatever it is made of: one behavioural suite.

A test file of a store subclasses `StoreSuite` and gives the fixture `place`, which opens any
number of store objects, and readers, over one database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import StoreRefusedError
from holdfast.model.ids import NO_TOKEN, TaskId, Token
from holdfast.model.limits import PRUNED_KEPT_MS
from holdfast.model.outcome import Encoding, Failure, OutcomeKind, Payload, Reason
from holdfast.model.task import (
    Charges,
    Lease,
    Life,
    Owed,
    Phase,
    Spec,
    State,
    Task,
    Wanted,
    needs_of,
    rank_of,
)
from holdfast.ports import (
    Attempt,
    Changes,
    CodeRow,
    Depth,
    Event,
    FunctionRow,
    QueueRow,
    Receipt,
    Registered,
    Store,
    StoreReader,
    TaskFilter,
    Update,
    WorkerRow,
)

INT64_MAX = (1 << 63) - 1


class Place(Protocol):
    """One database that outlives the stores opened over it."""

    def store(self) -> Store: ...

    def reader(self) -> StoreReader: ...

    def again(self) -> Place:
        """Return an empty place of the same kind."""
        ...


def task_id(number: int) -> TaskId:
    return TaskId((1_700_000_000_000 + number).to_bytes(6, "big") + bytes(10))


def token(number: int) -> Token:
    return Token(number.to_bytes(16, "big"))


def spec(number: int, **other: Any) -> Spec:
    fields: dict[str, Any] = {
        "id": task_id(number),
        "function": "module:function",
        "payload": Payload(Encoding.JSON, b"[]", b"", 2),
        "submitted_ms": 1_700_000_000_000 + number,
    }
    return Spec(**(fields | other))


def queued(number: int, **other: Any) -> Task:
    return Task(spec(number, **other), Life(due_ms=other.get("due_ms", 0)))


def changed(task: Task, **fields: Any) -> Task:
    """Return the next version of a task."""
    version = task.life.version + 1
    return Task(task.spec, msgspec.structs.replace(task.life, version=version, **fields))


def claimed(task: Task, by: Token, **other: Any) -> Task:
    return changed(
        task,
        state=State.RUNNING,
        fence=task.life.fence + 1,
        token=by,
        lease=Lease.HELD,
        phase=Phase.ASSIGNED,
        worker="worker-1",
        incarnation=3,
        epoch=7,
        claimed_ms=1_700_000_001_000,
        **other,
    )


def succeeded(task: Task, **other: Any) -> Task:
    return changed(
        task,
        state=State.SUCCEEDED,
        lease=Lease.SPENT,
        phase=Phase.ENDED,
        started_ms=1_700_000_001_001,
        ended_ms=1_700_000_001_002,
        result=Payload(Encoding.JSON, b"42", b"", 2),
        **other,
    )


def over(before: Task, after: Task, *, by: Token | None = None) -> Update:
    return Update(after, before.life.version, by)


def worker(number: int, *, incarnation: int = 1, outages: int = 0, name: str = "w") -> WorkerRow:
    return WorkerRow("identity", name, incarnation, number, number, b"\x80", 5, outages)


def event(task: Task, kind: str) -> Event:
    return Event(task.spec.id, 1_700_000_002_000, kind, task.life.fence, "worker-1", "detail")


def attempt(task: Task, ended: str) -> Attempt:
    return Attempt(task.spec.id, 1, token(1), "worker-1", 3, 10, 20, 30, ended)


def by_id(tasks: list[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: task.spec.id)


@asynccontextmanager
async def opened(place: Place, *, stores: int = 1) -> AsyncIterator[list[Store]]:
    """Open stores over one place and close them again."""
    made = [place.store() for _ in range(stores)]
    try:
        for store in made:
            await store.open()
        yield made
    finally:
        for store in made:
            await store.close()


def with_store(place: Place, body: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(place) as (store,):
            await body(store)

    asyncio.run(run())


def with_two(place: Place, body: Callable[[Store, Store], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(place, stores=2) as (one, two):
            await body(one, two)

    asyncio.run(run())


# --- Any value that the model allows -------------------------------------------------------------

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_bytes = st.binary(max_size=40)
_small = st.integers(0, 1000)
_big = st.integers(0, INT64_MAX)
_payloads = st.builds(
    Payload,
    st.sampled_from(Encoding),
    st.one_of(_bytes, st.binary(min_size=500, max_size=3000)),
    st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)),
    _big,
)
_specs = st.builds(
    Spec,
    id=st.binary(min_size=16, max_size=16).map(TaskId),
    function=_text,
    payload=_payloads,
    submitted_ms=st.integers(0, 1 << 50),
    due_ms=_big,
    queue=_text,
    tags=st.lists(_text, max_size=3).map(tuple),
    priority=st.integers(-1000, 1000),
    key=_text,
    code=_bytes,
    python=_text,
    concurrent=st.booleans(),
    likeness=st.one_of(st.just(b""), _bytes),
    meta=st.one_of(
        st.just(()),
        st.dictionaries(_text, _text, max_size=3).map(lambda d: tuple(sorted(d.items()))),
    ),
)
_tokens = st.one_of(st.just(NO_TOKEN), st.binary(min_size=16, max_size=16).map(Token))
_lives = st.builds(
    Life,
    version=st.integers(1, INT64_MAX - 1),
    state=st.sampled_from(State),
    wanted=st.sampled_from(Wanted),
    wish=_small,
    due_ms=_big,
    fence=_small,
    token=_tokens,
    lease=st.sampled_from(Lease),
    phase=st.sampled_from(Phase),
    owed=st.sampled_from(Owed),
    worker=_text,
    incarnation=_big,
    epoch=_big,
    claimed_ms=_big,
    started_ms=st.one_of(st.just(0), _big),
    ended_ms=st.one_of(st.just(0), _big),
    used=st.one_of(st.just(Charges()), st.builds(Charges, *[_small] * 7)),
    freed=st.lists(st.binary(min_size=16, max_size=16).map(Token), max_size=2).map(tuple),
    mark=st.one_of(st.just(0), _small),
    crash_mark=st.one_of(st.just(0), _small),
    saved_number=st.one_of(st.just(0), _small),
    saved_digest=st.one_of(st.just(b""), _bytes),
    avoid=st.one_of(st.just(""), _text),
    avoid_until_ms=st.one_of(st.just(0), _big),
    reason=st.sampled_from(Reason),
    result=st.none() | _payloads,
    failure=st.none()
    | st.builds(Failure, st.lists(_text, max_size=2).map(tuple), _text, _text, _bytes, _text),
)
_ALONE: dict[str, Any] = {
    "version": 5,
    "state": State.PAUSED,
    "wanted": Wanted.CANCEL,
    "wish": 5,
    "due_ms": 5,
    "fence": 5,
    "token": token(5),
    "lease": Lease.LAPSED,
    "phase": Phase.STARTED,
    "owed": Owed.LOSS,
    "worker": "w",
    "incarnation": 5,
    "epoch": 5,
    "claimed_ms": 5,
    "started_ms": 5,
    "ended_ms": 5,
    "used": Charges(unheard=5),
    "freed": (token(5),),
    "mark": 5,
    "crash_mark": 5,
    "saved_number": 5,
    "saved_digest": b"5",
    "avoid": "w",
    "avoid_until_ms": 5,
    "reason": Reason.EXPIRED,
    "result": Payload(Encoding.PICKLE),
    "failure": Failure(),
}
"""Every field of a life with a value that is not its default."""
assert tuple(_ALONE) == Life.__struct_fields__

_any_life = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
_POISON = {
    "an integer above 64 bits": queued(66, submitted_ms=1 << 64),
    "half a character": queued(66, function="\ud800"),
    "half a character in a tag": queued(66, tags=("\udfff",)),
    "a rank above 64 bits": queued(66, submitted_ms=INT64_MAX, priority=-1),
    "a name that is none": queued(66, queue=None),
}


class StoreSuite:
    """Tests of writing and of the store's own reads."""

    # Identity and turns.

    def test_a_new_store_is_empty_and_has_a_name(self, place: Place) -> None:
        async def run() -> None:
            store = place.store()
            facts = await store.open()
            assert facts.store
            assert (facts.timeline, facts.turn) == (1, 0)
            assert await store.running() == []
            assert await store.classes() == []
            assert await store.next_due_ms() == 0
            assert await store.worker_rows() == []
            await store.close()

        asyncio.run(run())

    def test_reopening_keeps_everything(self, place: Place) -> None:
        async def run() -> None:
            tasks = [queued(n, key=f"key {n}") for n in range(300)]
            store = place.store()
            first = await store.open()
            await store.commit(Changes(turn=9, inserts=tasks, workers=[worker(1)]))
            await store.close()
            store = place.store()
            second = await store.open()
            assert second.store == first.store
            assert second.turn == await store.last_turn() == 9
            assert by_id(await store.load([t.spec.id for t in tasks])) == tasks
            assert await store.worker_rows() == [worker(1)]
            await store.close()

        asyncio.run(run())

    def test_every_commit_writes_its_turn(self, place: Place) -> None:
        async def body(store: Store) -> None:
            for number in (1, 2, 7):
                assert await store.commit(Changes(turn=number)) == Receipt()
                assert await store.last_turn() == number

        with_store(place, body)

    # Values.

    @_any_life
    @given(_specs, _lives, _lives)
    def test_any_value_comes_back(self, place: Place, asked: Spec, first: Life, then: Life) -> None:
        # The update must be right whatever the row held before, so both lives are arbitrary.
        first = msgspec.structs.replace(first, version=1, state=State.RUNNING)
        then = msgspec.structs.replace(then, version=2)
        plain = Life(version=3, state=State.RUNNING, token=token(1), lease=Lease.HELD)
        other = TaskId(bytes(reversed(asked.id)) + b"!")

        async def body(store: Store) -> None:
            before = Task(asked, first)
            unkeyed = msgspec.structs.replace(asked, id=other, key="")
            twin = Task(unkeyed, Life())
            receipt = await store.commit(Changes(turn=1, inserts=[before, twin]))
            assert receipt == Receipt()
            assert await store.load([asked.id]) == [before]
            assert await store.load([other]) == [twin]
            for after, was in ((then, 1), (plain, 2)):
                updates = [Update(Task(asked, after), was), Update(Task(unkeyed, after), was)]
                receipt = await store.commit(Changes(turn=2, updates=updates))
                assert receipt == Receipt()
                assert await store.load([asked.id]) == [Task(asked, after)]
                assert await store.load([other]) == [Task(unkeyed, after)]
                if after.state >= State.SUCCEEDED:
                    break
            if asked.key:
                assert [t.spec for t in await store.load_keys([asked.key])] == [asked]

        with_store(place.again(), body)

    def test_each_field_comes_back_where_it_alone_is_set(self, place: Place) -> None:
        # A store may write the usual columns by a narrower statement: no field may slip through.
        alone = [Life(**{name: value}) for name, value in _ALONE.items()]
        inserted = [Task(spec(n), life) for n, life in enumerate(alone)]
        updated = [Task(spec(100 + n), life) for n, life in enumerate(alone)]
        before = [Task(task.spec, Life(version=7, failure=Failure(), mark=9)) for task in updated]

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=inserted + before))
            await store.commit(Changes(turn=2, updates=[Update(task, 7) for task in updated]))
            ids = [task.spec.id for task in inserted + updated]
            assert by_id(await store.load(ids)) == inserted + updated

        with_store(place, body)

    def test_payloads_of_every_size_come_back(self, place: Place) -> None:
        sizes = [0, 1, 100, 511, 512, 513, 1024, 1025, 65_536]
        tasks = [
            queued(n, payload=Payload(Encoding.PICKLE, bytes([n]) * size, b"", size))
            for n, size in enumerate(sizes)
        ]

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=tasks))
            assert by_id(await store.load([t.spec.id for t in tasks])) == tasks
            running = [claimed(task, token(n)) for n, task in enumerate(tasks)]
            updates = [over(a, b) for a, b in zip(tasks, running, strict=True)]
            await store.commit(Changes(turn=2, updates=updates))
            assert await store.running() == running

        with_store(place, body)

    @pytest.mark.parametrize("odd", ["", "ü", "\x00a\x00", "𝄞 ' \" \\ %_", "a\nb", "\uffff"])
    def test_odd_words_come_back_and_are_found(self, place: Place, odd: str) -> None:
        task = queued(1, function=odd, queue=odd, tags=(odd, "x"), key=odd, python=odd)

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[task]))
            assert await store.load([task.spec.id]) == [task]
            assert await store.load_keys([odd]) == ([task] if odd else [])
            assert await store.classes() == [needs_of(task.spec)]
            page = await store.ready(needs_of(task.spec), after=None, limit=5)
            assert page.tasks == [task]

        with_store(place, body)

    def test_many_are_written_and_read_in_one_go(self, place: Place) -> None:
        count = 1111
        tasks = [queued(n) for n in range(count)]

        async def body(store: Store) -> None:
            assert await store.commit(Changes(turn=1, inserts=tasks)) == Receipt()
            ids = [task.spec.id for task in tasks]
            assert by_id(await store.load([*ids, task_id(99_999)])) == tasks
            running = [claimed(task, token(n)) for n, task in enumerate(tasks)]
            updates = [over(a, b) for a, b in zip(tasks, running, strict=True)]
            assert await store.commit(Changes(turn=2, updates=updates)) == Receipt()
            assert await store.running() == running

        with_store(place, body)

    # What is refused.

    def test_a_known_id_or_key_is_refused_with_its_events(self, place: Place) -> None:
        first, other = queued(1, key="k"), queued(2)
        same_id, same_key, good = queued(1, function="m:g"), queued(3, key="k"), queued(4)

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[first, other]))
            receipt = await store.commit(
                Changes(
                    turn=2,
                    inserts=[same_id, good, same_key],
                    events=[event(same_key, "refused"), event(good, "kept")],
                )
            )
            assert sorted(receipt.refused_inserts) == [task_id(1), task_id(3)]
            assert await store.load([task_id(1), task_id(3)]) == [first]
            assert await store.load([task_id(4)]) == [good]
            assert await store.last_turn() == 2
            reader = place.reader()
            assert await reader.events(task_id(3)) == []
            assert [e.kind for e in await reader.events(task_id(4))] == ["kept"]
            await reader.close()

        with_store(place, body)

    def test_two_of_one_turn_with_one_key(self, place: Place) -> None:
        async def body(store: Store) -> None:
            both = [queued(1, key="k"), queued(2, key="k"), queued(3)]
            receipt = await store.commit(Changes(turn=1, inserts=both))
            assert receipt.refused_inserts == [task_id(2)]

        with_store(place, body)

    def test_a_stale_version_is_refused_and_the_others_kept(self, place: Place) -> None:
        tasks = [queued(n) for n in range(20)]

        async def body(one: Store, two: Store) -> None:
            await one.commit(Changes(turn=1, inserts=tasks))
            # The second writer is faster for three of them.
            fast = [over(task, claimed(task, token(50))) for task in tasks[5:8]]
            assert await two.commit(Changes(turn=2, updates=fast)) == Receipt()
            slow = [over(task, claimed(task, token(60))) for task in tasks]
            receipt = await one.commit(
                Changes(
                    turn=3,
                    updates=slow,
                    events=[event(task, "claimed") for task in tasks],
                    attempts=[attempt(task, "lapsed") for task in tasks],
                )
            )
            refused = [task_id(n) for n in (5, 6, 7)]
            assert receipt.refused_updates == refused
            holders = {t.spec.id: t.life.token for t in await two.running()}
            assert {k for k, v in holders.items() if v == token(50)} == set(refused)
            reader = place.reader()
            for number in range(20):
                told = 0 if task_id(number) in refused else 1
                assert len(await reader.events(task_id(number))) == told
                assert len(await reader.attempts(task_id(number))) == told
            await reader.close()

        with_two(place, body)

    def test_two_claims_of_one_task_one_is_accepted(self, place: Place) -> None:
        task = queued(1)

        async def body(one: Store, two: Store) -> None:
            await one.commit(Changes(turn=1, inserts=[task]))
            receipts = await asyncio.gather(
                one.commit(Changes(turn=2, updates=[over(task, claimed(task, token(1)))])),
                two.commit(Changes(turn=2, updates=[over(task, claimed(task, token(2)))])),
            )
            refused = [receipt.refused_updates for receipt in receipts]
            assert sorted(refused) == [[], [task.spec.id]]
            winner = refused.index([]) + 1
            assert [t.life.token for t in await one.running()] == [token(winner)]

        with_two(place, body)

    def test_one_task_twice_in_a_turn(self, place: Place) -> None:
        task = queued(1)
        running = claimed(task, token(1))
        done = succeeded(running)

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[task]))
            steps = [over(task, running), over(running, done, by=token(1))]
            assert await store.commit(Changes(turn=2, updates=steps)) == Receipt()
            assert await store.load([task.spec.id]) == [done]

        with_store(place, body)

    @pytest.mark.parametrize(
        ("lease", "mine", "accepted"),
        [
            (Lease.HELD, 1, True),
            (Lease.LAPSED, 1, True),
            (Lease.SPENT, 1, False),
            (Lease.NONE, 1, False),
            (Lease.HELD, 2, False),
            (Lease.LAPSED, 2, False),
        ],
    )
    def test_a_worker_writes_with_the_newest_unspent_token(
        self, place: Place, lease: Lease, mine: int, accepted: bool
    ) -> None:
        before = claimed(queued(1), token(1))
        before = Task(before.spec, msgspec.structs.replace(before.life, lease=lease))
        after = succeeded(before)

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[before]))
            update = over(before, after, by=token(mine))
            receipt = await store.commit(Changes(turn=2, updates=[update]))
            assert receipt.refused_updates == ([] if accepted else [task_id(1)])
            assert await store.load([task_id(1)]) == [after if accepted else before]

        with_store(place, body)

    def test_an_empty_token_is_a_token_and_matches_none(self, place: Place) -> None:
        before = claimed(queued(1), token(1))

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[before]))
            update = over(before, succeeded(before), by=NO_TOKEN)
            receipt = await store.commit(Changes(turn=2, updates=[update]))
            assert receipt.refused_updates == [task_id(1)]

        with_store(place, body)

    @pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
    def test_a_terminal_task_never_changes(self, place: Place, state: State) -> None:
        ended = changed(
            claimed(queued(1), token(1)), state=state, failure=Failure(message="why"), mark=4
        )

        async def body(one: Store, two: Store) -> None:
            await one.commit(Changes(turn=1, inserts=[ended]))
            for store in (one, two):
                for after in (changed(ended, state=State.QUEUED), succeeded(ended)):
                    for by in (None, token(1)):
                        update = over(ended, after, by=by)
                        receipt = await store.commit(Changes(turn=2, updates=[update]))
                        assert receipt.refused_updates == [task_id(1)]
            assert await two.load([task_id(1)]) == [ended]

        with_two(place, body)

    def test_an_unknown_task_is_refused(self, place: Place) -> None:
        async def body(store: Store) -> None:
            ghost = queued(1)
            receipt = await store.commit(
                Changes(turn=1, updates=[over(ghost, claimed(ghost, token(1)))])
            )
            assert receipt.refused_updates == [task_id(1)]
            assert await store.load([task_id(1)]) == []

        with_store(place, body)

    @pytest.mark.parametrize("what", _POISON)
    def test_a_poisoned_turn_writes_nothing(self, place: Place, what: str) -> None:
        good = queued(1)

        async def body(store: Store) -> None:
            poisoned = Changes(turn=5, inserts=[good, _POISON[what]], workers=[worker(1)])
            with pytest.raises(StoreRefusedError):
                await store.commit(poisoned)
            assert await store.last_turn() == 0
            assert await store.load([good.spec.id]) == []
            assert await store.worker_rows() == []
            # The store goes on, and the turn without its offender is written.
            assert await store.commit(Changes(turn=5, inserts=[good])) == Receipt()
            assert await store.load([good.spec.id]) == [good]

        with_store(place, body)

    # Inserts that have a life already.

    @pytest.mark.parametrize("kind", ["claimed", "ended", "with history"])
    def test_a_task_may_be_inserted_in_any_state(self, place: Place, kind: str) -> None:
        task = claimed(queued(1), token(1))
        if kind == "ended":
            task = succeeded(task)
        if kind == "with history":
            task = changed(task, used=Charges(retries=2), freed=(token(9),), avoid="w")

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[task, queued(2)]))
            assert await store.load([task_id(1)]) == [task]
            assert await store.running() == ([] if kind == "ended" else [task])

        with_store(place, body)

    # Workers and code.

    def test_a_worker_row_only_grows(self, place: Place) -> None:
        async def body(one: Store, two: Store) -> None:
            await one.commit(Changes(turn=1, workers=[worker(5, incarnation=2)]))
            for stale in (worker(5, incarnation=2), worker(4, incarnation=2), worker(9)):
                with pytest.raises(StoreRefusedError):
                    await two.commit(Changes(turn=2, inserts=[queued(1)], workers=[stale]))
            assert await two.last_turn() == 1
            assert await two.load([task_id(1)]) == []
            for newer in (worker(6, incarnation=2), worker(1, incarnation=3, name="renamed")):
                await two.commit(Changes(turn=3, workers=[newer]))
                assert await one.worker_rows() == [newer]

        with_two(place, body)

    def test_a_worker_is_forgotten_unless_it_said_hello_meanwhile(self, place: Place) -> None:
        async def body(one: Store, two: Store) -> None:
            other = msgspec.structs.replace(worker(1), identity="other")
            await one.commit(Changes(turn=1, workers=[worker(1), other]))
            await two.commit(Changes(turn=2, workers=[worker(2)]))
            gone = msgspec.structs.replace(worker(1), identity="never seen")
            await one.commit(Changes(turn=3, forgotten=[worker(1), other, gone]))
            assert await two.worker_rows() == [worker(2)]
            await one.commit(Changes(turn=4, forgotten=[worker(2)], workers=[worker(1)]))
            assert await two.worker_rows() == [worker(1)], "it comes back as a new one"

        with_two(place, body)

    def test_outages_are_counted_until_a_hello(self, place: Place) -> None:
        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, workers=[worker(1)]))
            for number in (1, 2):
                await store.commit(Changes(turn=2, outages=["identity", "nobody"]))
                assert await store.worker_rows() == [worker(1, outages=number)]
            await store.commit(Changes(turn=3, outages=["identity"], workers=[worker(2)]))
            assert await store.worker_rows() == [worker(2, outages=0)]

        with_store(place, body)

    def test_code_is_kept_once(self, place: Place) -> None:
        async def body(store: Store) -> None:
            assert await store.load_code(b"digest") is None
            for _ in range(2):
                await store.commit(Changes(turn=1, code=[CodeRow(b"digest", b"\x00bytes")]))
            assert await store.load_code(b"digest") == b"\x00bytes"

        with_store(place, body)

    def test_which_code_is_kept(self, place: Place) -> None:
        digests = [number.to_bytes(32, "big") for number in range(700)]

        async def body(one: Store, two: Store) -> None:
            assert await one.kept_code([]) == []
            assert await one.kept_code(digests) == []
            here = [CodeRow(digest, b"bytes") for digest in digests[::2]]
            await two.commit(Changes(turn=1, code=here))
            assert sorted(await one.kept_code(digests)) == digests[::2]
            assert await one.kept_code([digests[1], digests[2]]) == [digests[2]]

        with_two(place, body)

    # The line.

    def test_ready_pages_go_through_a_class_in_line(self, place: Place) -> None:
        tasks = [queued(n, priority=n % 3) for n in range(700)]
        others = [queued(n, queue="other") for n in range(1000, 1003)]
        line = sorted(tasks, key=lambda t: (rank_of(t.spec), t.spec.id))

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=tasks + others))
            found: list[Task] = []
            after = None
            while True:
                page = await store.ready("default", after=after, limit=300)
                found += page.tasks
                assert len(page.tasks) <= 300
                if not page.more:
                    break
                after = (rank_of(found[-1].spec), found[-1].spec.id)
            assert found == line
            exact = await store.ready("default", after=None, limit=700)
            assert (len(exact.tasks), exact.more) == (700, False)
            assert await store.ready("nobody", after=None, limit=5) == type(exact)([], False)

        with_store(place, body)

    def test_a_page_of_large_payloads_ends_early(self, place: Place) -> None:
        body_bytes = 64 * 1024
        payload = Payload(Encoding.JSON, bytes(body_bytes), b"", body_bytes)
        tasks = [queued(n, payload=payload) for n in range(300)]

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=tasks))
            page = await store.ready("default", after=None, limit=300)
            assert page.more
            assert 0 < len(page.tasks) < 300
            last = page.tasks[-1].spec
            rest = await store.ready("default", after=(rank_of(last), last.id), limit=300)
            assert page.tasks + rest.tasks == tasks
            assert not rest.more

        with_store(place, body)

    def test_classes_are_those_with_claimable_tasks(self, place: Place) -> None:
        async def body(store: Store) -> None:
            busy = claimed(queued(5, queue="busy"), token(1))
            later = queued(6, queue="later", due_ms=99)
            await store.commit(
                Changes(
                    turn=1,
                    inserts=[
                        *[queued(n, queue=f"q{n % 3}") for n in range(4)],
                        queued(7, tags=("gpu",), concurrent=True),
                        busy,
                        later,
                    ],
                )
            )
            assert await store.classes() == ["default+gpu~", "q0", "q1", "q2"]

        with_store(place, body)

    def test_due_tasks_come_earliest_first(self, place: Place) -> None:
        tasks = [queued(n, due_ms=10_000 - n // 2) for n in range(600)]
        line = sorted(tasks, key=lambda t: (t.life.due_ms, t.spec.id))

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[*tasks, queued(7000)]))
            assert await store.next_due_ms() == line[0].life.due_ms
            assert await store.due(line[0].life.due_ms - 1, limit=9) == []
            assert await store.due(9_900, limit=10) == line[:10]
            assert await store.due(10_000, limit=1000) == line
            early = [t for t in line if t.life.due_ms <= 9_900]
            assert await store.due(9_900, limit=1000) == early
            first = line[0]
            update = over(first, changed(first, due_ms=0))
            await store.commit(Changes(turn=2, updates=[update]))
            assert await store.due(10_000, limit=1) == [line[1]]
            page = await store.ready("default", after=None, limit=10)
            assert len(page.tasks) == 2

        with_store(place, body)


class ReaderSuite:
    """Tests of lists and stories."""

    def test_counts(self, place: Place) -> None:
        async def body(store: Store) -> None:
            running = claimed(queued(1), token(1))
            paused = changed(queued(2), state=State.PAUSED, wanted=Wanted.PAUSE)
            done = succeeded(claimed(queued(3), token(3)))
            tasks = [running, paused, done, queued(4), queued(5, due_ms=77), queued(6, queue="b")]
            await store.commit(Changes(turn=1, inserts=tasks))
            reader = place.reader()
            assert await reader.counts() == {
                "queued": 3,
                "running": 1,
                "paused": 1,
                "succeeded": 1,
                "failed": 0,
                "cancelled": 0,
            }
            assert await reader.queued_by_class() == {"b": 1, "default": 1}
            await reader.close()

        with_store(place, body)

    def test_functions_of_what_ended_lately(self, place: Place) -> None:
        def ended(
            number: int, function: str, state: State, *, claimed_ms: int = 0, started_ms: int = 0
        ) -> Task:
            """Give the times as so long before the end."""
            at_ms = 2_000_000_000_000 + number
            done = succeeded(claimed(queued(number, function=function), token(number)))
            return changed(
                done,
                state=state,
                claimed_ms=at_ms - claimed_ms if claimed_ms else 0,
                started_ms=at_ms - started_ms if started_ms else 0,
                ended_ms=at_ms,
            )

        long_ago = [ended(number, "m:old", State.FAILED) for number in range(1, 4)]
        lately = [
            ended(11, "m:slow", State.SUCCEEDED, claimed_ms=950, started_ms=900),
            ended(12, "m:slow", State.SUCCEEDED, claimed_ms=100),
            ended(13, "m:bad", State.FAILED, claimed_ms=5),
            ended(14, "m:bad", State.SUCCEEDED, claimed_ms=6),
            ended(15, "m:never", State.CANCELLED),
            # A wall clock that was set back makes no run shorter than nothing.
            ended(16, "m:back", State.SUCCEEDED, claimed_ms=-5),
        ]
        told = [
            FunctionRow("m:bad", 2, 1, 5.5, 6),
            FunctionRow("m:slow", 2, 0, 500.0, 900),
            FunctionRow("m:back", 1, 0, 0.0, 0),
            FunctionRow("m:never", 1, 0, None, None),
        ]

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[*long_ago, *lately, queued(20)]))
            reader = place.reader()
            assert await reader.functions(tasks=6, limit=9) == told
            assert await reader.functions(tasks=6, limit=2) == told[:2]
            assert (await reader.functions(tasks=99, limit=9))[0].function == "m:old"
            assert await reader.functions(tasks=1, limit=9) == [told[2]]
            await reader.close()

        with_store(place, body)

    def test_pages_go_backward_and_filter(self, place: Place) -> None:
        tasks = [
            queued(n, function=f"m:f{n % 2}", queue=f"q{n % 3}", tags=("gpu",) * (n % 5 == 0))
            for n in range(600)
        ]
        newest = tasks[::-1]
        marked = queued(9000, key="mine")

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[*tasks, claimed(marked, token(1))]))
            reader = place.reader()

            async def page(before: bytes = b"", limit: int = 5, **chosen: Any) -> list[Task]:
                return await reader.page(TaskFilter(**chosen), before=before, limit=limit)

            assert (
                await page(function="m:f1", queue="q2")
                == [t for t in newest if t.spec.function == "m:f1" and t.spec.queue == "q2"][:5]
            )
            assert await page(limit=1000, states=(State.QUEUED,)) == newest
            assert await page(before=task_id(10)) == newest[-10:-5]
            assert await page(tag="gpu") == newest[4:25:5]
            assert [t.spec.id for t in await page(key="mine")] == [task_id(9000)]
            low, high = task_id(3), task_id(5)
            assert await page(id_low=low, id_high=high) == newest[-6:-3]
            assert await page(states=(State.FAILED, State.RUNNING), queue="q1") == []
            assert await page(limit=0) == []
            await reader.close()

        with_store(place, body)

    def test_pages_filter_by_notes_and_times(self, place: Place) -> None:
        tasks = [
            queued(1, meta=(("a", "1"), ("b.'\"$", "x"))),
            queued(2, meta=(("a", "1"),)),
            queued(3, meta=(("a", "2"),)),
            queued(4),
        ]

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=tasks))
            reader = place.reader()

            async def numbers(**chosen: Any) -> list[int]:
                page = await reader.page(TaskFilter(**chosen), before=b"", limit=9)
                return [tasks.index(task) + 1 for task in page]

            assert await numbers(meta=(("a", "1"),)) == [2, 1]
            assert await numbers(meta=(("a", "1"), ("b.'\"$", "x"))) == [1]
            assert await numbers(meta=(("b", "x"),)) == []
            submitted = tasks[1].spec.submitted_ms
            assert await numbers(submitted_low_ms=submitted) == [4, 3, 2]
            assert await numbers(submitted_high_ms=submitted) == [1]
            await reader.close()

        with_store(place, body)

    def test_queues_are_paused_until_they_are_not(self, place: Place) -> None:
        async def body(store: Store) -> None:
            assert await store.queue_rows() == []
            rows = [QueueRow("a", paused=True), QueueRow("b", paused=True)]
            await store.commit(Changes(turn=1, queues=rows))
            assert await store.queue_rows() == rows
            await store.commit(Changes(turn=2, queues=[QueueRow("a", paused=False)]))
            assert await store.queue_rows() == [QueueRow("a", paused=False), rows[1]]

        with_store(place, body)

    def test_functions_are_kept_under_an_id_and_never_change(self, place: Place) -> None:
        rows = [Registered(task_id(n), f"f{n % 2}", "m:f", b"", "3.11", n) for n in range(3)]

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, functions=rows))
            other = msgspec.structs.replace(rows[0], name="other")
            await store.commit(Changes(turn=2, functions=[other]))
            reader = place.reader()
            assert await reader.registered(task_id(0)) == rows[0]
            assert await reader.registered(task_id(9)) is None
            assert await reader.all_registered(name="", before=b"", limit=2) == [rows[2], rows[1]]
            assert await reader.all_registered(name="", before=rows[1].id, limit=2) == [rows[0]]
            assert await reader.all_registered(name="f0", before=b"", limit=9) == [rows[2], rows[0]]
            await reader.close()

        with_store(place, body)

    def test_what_has_ended_is_pruned_and_what_has_not_stays(self, place: Place) -> None:
        ended, waits = succeeded(claimed(queued(1), token(1))), queued(2)
        large = Payload(Encoding.JSON, b"x" * 2000, b"", 2000)
        big = changed(queued(3, payload=large), state=State.SUCCEEDED, result=large)

        async def body(store: Store) -> None:
            told = [event(ended, "one"), event(waits, "two")]
            rows = [ended, waits, big]
            await store.commit(
                Changes(turn=1, inserts=rows, events=told, attempts=[attempt(ended, "lapsed")])
            )
            ids = [row.spec.id for row in rows]
            await store.commit(Changes(turn=2, pruned=ids, pruned_ms=10))
            assert await store.load(ids) == [waits]
            assert sorted(await store.pruned([*ids, task_id(8)])) == [ids[0], ids[2]]
            reader = place.reader()
            assert await reader.is_pruned(ids[0])
            assert not await reader.is_pruned(ids[1])
            assert await reader.events(ids[0]) == []
            assert await reader.attempts(ids[0]) == []
            assert await reader.events(ids[1]) == [told[1]]
            # What was large leaves nothing behind that the next one would meet.
            await store.commit(Changes(turn=3, inserts=[msgspec.structs.replace(big)]))
            assert await store.load([ids[2]]) == [big]
            await reader.close()

        with_store(place, body)

    def test_pruned_ids_are_forgotten_after_a_month(self, place: Place) -> None:
        ended = [succeeded(claimed(queued(n), token(n))) for n in (1, 2)]

        async def body(store: Store) -> None:
            ids = [task.spec.id for task in ended]
            await store.commit(Changes(turn=1, inserts=ended))
            await store.commit(Changes(turn=2, pruned=ids[:1], pruned_ms=10))
            later = 11 + PRUNED_KEPT_MS
            await store.commit(Changes(turn=3, pruned=ids[1:], pruned_ms=later))
            assert await store.pruned(ids) == ids[1:]

        with_store(place, body)

    def test_depths_tell_what_waits_for_a_worker_and_what_for_its_time(self, place: Place) -> None:
        tasks = [queued(1), queued(2), queued(3, queue="q"), queued(4, due_ms=1 << 50)]

        async def body(store: Store) -> None:
            await store.commit(Changes(turn=1, inserts=[*tasks, claimed(queued(9), token(9))]))
            reader = place.reader()
            first = 1_700_000_000_000
            assert await reader.depths() == [
                Depth("default", False, 2, first + 1),
                Depth("q", False, 1, first + 3),
                Depth("default", True, 1, first + 4),
            ]
            await reader.close()

        with_store(place, body)

    def test_stories_keep_their_order(self, place: Place) -> None:
        task = queued(1)

        async def body(store: Store) -> None:
            kinds = [f"kind {n}" for n in range(300)]
            await store.commit(
                Changes(turn=1, inserts=[task], events=[event(task, kind) for kind in kinds])
            )
            former = attempt(task, OutcomeKind.RAISED.name.lower())
            await store.commit(Changes(turn=2, attempts=[attempt(task, "lapsed")]))
            await store.commit(Changes(turn=3, attempts=[former]))
            reader = place.reader()
            assert await reader.events(task.spec.id) == [event(task, kind) for kind in kinds]
            assert await reader.attempts(task.spec.id) == [former]
            assert await reader.events(task_id(2)) == []
            await reader.close()

        with_store(place, body)
