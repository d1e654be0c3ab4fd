"""Why a task is not running, in one line: the reason and, where there is one, the mend."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.core import lease
from holdfast.core.dispatch import Offer
from holdfast.model.task import Lease, State, Task, Wanted, needs_of


def why(
    task: Task,
    offers: Sequence[Offer],
    *,
    now_ms: int,
    names: dict[str, str],
    paused: Collection[str] = (),
    absent: str = "",
) -> str:
    """Return the reason for a task's state, for a person.

    `offers` are the present workers, `names` their names by identity, `paused` the queues that are
    paused. `absent` says what became of a worker that should be present, where that is known.
    """
    life = task.life
    if life.state is State.RUNNING:
        return _running(task, names, now_ms)
    if life.state is State.PAUSED:
        return "paused: resume it to let it run"
    if life.state is State.CANCELLED:
        return "cancelled" + (f" ({life.reason.text})" if life.reason else "")
    if life.state is State.FAILED:
        return f"failed: {life.reason.text}{_failure(task)}"
    if life.state is State.SUCCEEDED:
        return f"succeeded in run {life.fence} on worker {names.get(life.worker, life.worker)}"
    if task.spec.queue in paused:
        return f"queued: its queue {task.spec.queue!r} is paused"
    text = _queued(task, offers, now_ms=now_ms, names=names)
    served = any(offer.serves(needs_of(task.spec)) for offer in offers)
    return text if served or not absent or life.due_ms > now_ms else f"{text}; {absent}"


def _running(task: Task, names: dict[str, str], now_ms: int) -> str:
    life = task.life
    worker = names.get(life.worker, life.worker)
    since = life.started_ms or life.claimed_ms
    word = life.phase.text
    text = f"{word} on worker {worker} for {max(0, now_ms - since) / 1000:.1f} s (run {life.fence})"
    if life.wanted is Wanted.CANCEL:
        return text + ", being cancelled"
    if life.wanted is Wanted.PAUSE:
        return text + ", asked to pause"
    return text


def _queued(task: Task, offers: Sequence[Offer], *, now_ms: int, names: dict[str, str]) -> str:
    life, spec = task.life, task.spec
    # Where the siding was full, the store remembers when it is tried again.
    aside = life.due_ms == life.avoid_until_ms
    if life.due_ms > now_ms and not aside:
        return f"starts in {(life.due_ms - now_ms) / 1000:.1f} s"
    if not offers:
        return "queued: no worker is connected"
    serving = [offer for offer in offers if offer.serves(needs_of(spec))]
    if not serving:
        return f"queued: {_unserved(task, offers)}"
    avoided = lease.avoided(life, now_ms)
    able = [offer for offer in serving if offer.identity not in avoided]
    if not able or life.due_ms > now_ms:
        again = f"tried again in {(life.avoid_until_ms - now_ms) / 1000:.1f} s"
        return f"queued: {_unable(task, serving, names)}; {again}"
    if all(not offer.open for offer in able):
        return "queued: every worker that serves it is draining"
    text = "queued: no free slot"
    if avoided:
        return f"{text} on another worker; {_unable(task, serving, names)}"
    if life.used.environment:
        return f"{text}; {_unable(task, serving, names)}"
    if life.lease is Lease.LAPSED:
        text += f" (worker {names.get(life.worker, life.worker)} was lost with run {life.fence})"
    return text


def _unserved(task: Task, offers: Sequence[Offer]) -> str:
    spec = task.spec
    queue = [offer for offer in offers if not offer.queues or spec.queue in offer.queues]
    if not queue:
        return f"no worker serves queue {spec.queue!r}"
    for tag in spec.tags:
        if not any(tag in offer.tags for offer in queue):
            return f"no worker of queue {spec.queue!r} has tag {tag!r}"
    if len(spec.tags) > 1:
        return f"no single worker has all of the tags {', '.join(spec.tags)}"
    return "no worker runs async functions"


def _unable(task: Task, serving: Sequence[Offer], names: dict[str, str]) -> str:
    failure = task.life.failure
    told = failure.message if failure is not None else "its environment lacks something"
    unable = [names.get(each, each) for each in task.life.avoid.split()]
    workers = f"worker{'s' if len(unable) > 1 else ''} {', '.join(unable)}"
    others = "" if len(serving) > len(unable) else ", and there is no other"
    count = task.life.used.environment
    return f"{workers} cannot run it: {told} (tried {count} times{others})"


def _failure(task: Task) -> str:
    failure = task.life.failure
    if failure is None:
        return ""
    name = failure.types[0].removeprefix("builtins.") if failure.types else ""
    parts = [part for part in (name, failure.message, failure.evidence.strip()) if part]
    return " · " + ": ".join(parts).replace("\n", " ")
