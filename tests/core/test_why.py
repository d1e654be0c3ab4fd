"""Each state of a task has its one line, and says the mend where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.core.dispatch import Offer
from holdfast.core.why import why
from holdfast.model.ids import TaskId
from holdfast.model.outcome import Encoding, Failure, Payload, Reason
from holdfast.model.task import Charges, Lease, Life, Phase, Spec, State, Task, Wanted

NOW_MS = 20_000
NAMES = {"a": "north", "b": "south"}


def worker(
    identity: str,
    *,
    queues: Sequence[str] = (),
    tags: Sequence[str] = (),
    concurrent_slots: int = 0,
    open: bool = True,
) -> Offer:
    return Offer(
        identity,
        slots=1,
        concurrent_slots=concurrent_slots,
        queues=queues,
        tags=tags,
        pull=False,
        open=open,
    )


def told(
    life: Life,
    *offers: Offer,
    tags: tuple[str, ...] = (),
    concurrent: bool = False,
    absent: str = "",
    paused: Sequence[str] = (),
) -> str:
    spec = Spec(
        TaskId(bytes(16)), "m:f", Payload(Encoding.JSON), 1, tags=tags, concurrent=concurrent
    )
    task = Task(spec, life)
    return why(task, offers, now_ms=NOW_MS, names=NAMES, paused=paused, absent=absent)


def running(**fields: Any) -> Life:
    life = {"worker": "a", "claimed_ms": 15_000, "phase": Phase.ASSIGNED, "fence": 2}
    return Life(state=State.RUNNING, lease=Lease.HELD, **{**life, **fields})


@pytest.mark.parametrize(
    ("life", "text"),
    [
        (running(), "assigned on worker north for 5.0 s (run 2)"),
        (
            running(phase=Phase.STARTED, started_ms=19_500, worker="x"),
            "started on worker x for 0.5 s (run 2)",
        ),
        (running(claimed_ms=NOW_MS + 5), "assigned on worker north for 0.0 s (run 2)"),
        (
            running(wanted=Wanted.CANCEL),
            "assigned on worker north for 5.0 s (run 2), being cancelled",
        ),
        (
            running(wanted=Wanted.PAUSE),
            "assigned on worker north for 5.0 s (run 2), asked to pause",
        ),
        (Life(state=State.PAUSED), "paused: resume it to let it run"),
        (Life(state=State.CANCELLED), "cancelled"),
        (Life(state=State.CANCELLED, reason=Reason.EXPIRED), "cancelled (expired)"),
        (Life(state=State.SUCCEEDED, fence=3, worker="b"), "succeeded in run 3 on worker south"),
        (Life(state=State.FAILED, reason=Reason.LOST), "failed: lost"),
        (
            Life(
                state=State.FAILED,
                reason=Reason.ERROR,
                failure=Failure(types=("builtins.ValueError",), message="a\nb", evidence=" end \n"),
            ),
            "failed: error · ValueError: a b: end",
        ),
        (
            Life(state=State.FAILED, reason=Reason.CRASHED, failure=Failure(evidence="signal 9")),
            "failed: crashed · signal 9",
        ),
    ],
)
def test_a_task_that_does_not_wait(life: Life, text: str) -> None:
    assert told(life) == text


def test_a_task_that_waits_for_its_time() -> None:
    assert told(Life(due_ms=NOW_MS + 1_500), worker("a")) == "starts in 1.5 s"


def test_a_task_that_nobody_serves() -> None:
    assert told(Life()) == "queued: no worker is connected"
    other = worker("a", queues=["q"])
    assert told(Life(), other) == "queued: no worker serves queue 'default'"
    gpu, big = worker("a", tags=["gpu"]), worker("b", tags=["big"])
    assert told(Life(), gpu, tags=("big",)) == "queued: no worker of queue 'default' has tag 'big'"
    text = "queued: no single worker has all of the tags big, gpu"
    assert told(Life(), gpu, big, tags=("big", "gpu")) == text
    assert told(Life(), gpu, concurrent=True) == "queued: no worker runs async functions"


def test_a_task_that_waits_for_a_slot() -> None:
    assert told(Life(), worker("a")) == "queued: no free slot"
    lost = Life(lease=Lease.LAPSED, worker="b", fence=4)
    text = "queued: no free slot (worker south was lost with run 4)"
    assert told(lost, worker("a")) == text
    draining = worker("a", open=False)
    assert told(Life(), draining) == "queued: every worker that serves it is draining"


def test_a_task_that_a_worker_cannot_run() -> None:
    life = Life(
        avoid="a",
        avoid_until_ms=NOW_MS + 500,
        used=Charges(environment=2),
        failure=Failure(message="no module named x"),
    )
    text = "worker north cannot run it: no module named x (tried 2 times"
    alone = f"queued: {text}, and there is no other); tried again in 0.5 s"
    assert told(life, worker("a")) == alone
    later = replace(life, due_ms=life.avoid_until_ms)
    assert told(later, worker("a")) == alone, "the store remembers it"
    both = worker("a"), worker("b")
    assert told(later, *both) == f"queued: {text}); tried again in 0.5 s"
    assert told(life, *both) == f"queued: no free slot on another worker; {text})"
    again = replace(life, avoid_until_ms=NOW_MS)
    assert told(again, *both) == f"queued: no free slot; {text})"
    bare = Life(avoid="a", avoid_until_ms=NOW_MS + 1)
    assert "its environment lacks something" in told(bare, worker("a"))
    assert told(Life(avoid="a", avoid_until_ms=NOW_MS), worker("a")) == "queued: no free slot"


def test_a_worker_that_should_be_here_is_named_where_no_other_serves() -> None:
    ended = "its own worker ended"
    assert told(Life(), absent=ended) == f"queued: no worker is connected; {ended}"
    assert told(Life(), worker("a", queues=["b"]), absent=ended).endswith(f"; {ended}")
    assert told(Life(), worker("a"), absent=ended) == "queued: no free slot"
    assert told(Life(due_ms=NOW_MS + 1), absent=ended).startswith("starts in")


def test_a_task_of_a_paused_queue() -> None:
    text = "queued: its queue 'default' is paused"
    assert told(Life(), worker("a"), paused=["default"]) == text
    assert told(Life(), paused=["other"]) == "queued: no worker is connected"
