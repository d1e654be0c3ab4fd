"""What a run is to be: from one seed, who is there, what is asked, and what goes wrong when.

Owns all chance that is drawn before the run. Each part of a plan has a stream of its own, so that
a smaller number of faults leaves the tasks as they were, and the other way round.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from holdfast.lab.sim.coverage import AFTER, BEFORE
from holdfast.lab.sim.witness import Behaviour
from holdfast.model.task import Wanted
from holdfast.model.words import Word

COORDINATOR = "coordinator"
BUSY_SECONDS = (15.0, 40.0)
"""How long faults come; everything is healed after that."""

LOST_HOSTS = 0.25
"""In so many of the runs with several workers, one is lost for good and nobody tells of it."""
NEVER_SECONDS = 1_000_000.0


class FaultKind(Word):
    """What goes wrong. Up to `STORE` they are counted as faults."""

    CRASH = 1
    CUT = 2
    PARTITION = 3
    STALL = 4
    CORRUPTION = 5
    CLOCK = 6
    STORE = 7
    DELAY = 8
    DRAIN = 9


COUNTED = tuple(kind for kind in FaultKind if kind <= FaultKind.STORE)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault with its own repair: it begins at `at` and is repaired `seconds` later.

    A host that is lost for good is the one fault that is never repaired.

    `flavour` says which variety; `number` is its size (milliseconds of a jump, points to skip).
    """

    kind: FaultKind
    at: float
    target: str
    seconds: float
    flavour: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One worker's host."""

    name: str
    slots: int
    concurrent_slots: int
    pull: bool
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """One task that a client submits. `number` names it in the run; `key` may be shared."""

    number: int
    at: float
    client: int
    behaviour: Behaviour
    function: str
    priority: int
    key: str
    delay_ms: int
    tags: tuple[str, ...]
    concurrent: bool
    twice: bool
    """Whether it is submitted again although it was answered."""


@dataclass(frozen=True, slots=True)
class WishPlan:
    """One wish of a client for a task that it submitted."""

    at: float
    client: int
    task: int
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. After `heal_at` nothing goes wrong any more."""

    seed: int
    workers: tuple[WorkerPlan, ...]
    clients: int
    submissions: tuple[Submission, ...]
    wishes: tuple[WishPlan, ...]
    faults: tuple[Fault, ...]
    heal_at: float
    lease_seconds: float
    beat_seconds: float


def stream(seed: int, name: str) -> random.Random:
    """Return a stream of chance of its own. The same for every process and hash seed."""
    return random.Random(f"holdfast {seed} {name}")


def draw(seed: int, *, faults_max: int | None = None) -> Plan:
    """Return the plan of a seed; `faults_max` 0 is the same run with nothing going wrong."""
    shape = stream(seed, "shape")
    workers = _workers(shape)
    clients = shape.choice((1, 1, 2, 3))
    heal_at = shape.uniform(*BUSY_SECONDS)
    submissions = _submissions(stream(seed, "tasks"), clients, heal_at, workers)
    wishes = _wishes(stream(seed, "wishes"), submissions, heal_at)
    names = [worker.name for worker in workers]
    faults = _faults(stream(seed, "faults"), names, clients, heal_at)
    if faults_max is not None:
        faults = faults[:faults_max]
    lease_seconds = shape.choice((3.0, 5.0, 10.0))
    return Plan(
        seed=seed,
        workers=workers,
        clients=clients,
        submissions=submissions,
        wishes=wishes,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        heal_at=heal_at,
        lease_seconds=lease_seconds,
        beat_seconds=lease_seconds / 10,
    )


def _workers(rng: random.Random) -> tuple[WorkerPlan, ...]:
    return tuple(
        WorkerPlan(
            name=f"worker-{number}",
            slots=rng.choice((1, 2, 2, 4)),
            concurrent_slots=rng.choice((0, 8)) if number else 8,
            pull=rng.random() < 0.2,
            # The first worker offers all, so that every task has somewhere to run.
            tags=("gpu",) if number == 0 or rng.random() < 0.3 else (),
        )
        for number in range(rng.choice((1, 2, 3, 3, 4)))
    )


# --- Tasks -------------------------------------------------------------------------------------

_DOINGS = (
    # what user code does, how often of a hundred, attempts that do it (0: all)
    ("ok", 68, (0,)),
    ("raise", 6, (0,)),
    ("crash", 6, (1, 1, 2, 3, 0)),
    ("big", 6, (0,)),
    ("forever", 3, (0,)),
    ("stubborn", 2, (0,)),
    ("environment", 3, (1, 2, 0)),
    ("out_of_memory", 3, (1, 1, 0)),
    ("invalid", 2, (0,)),
    ("poison", 1, (0,)),
)


def _submissions(
    rng: random.Random, clients: int, heal_at: float, workers: tuple[WorkerPlan, ...]
) -> tuple[Submission, ...]:
    count = rng.choice((10, 25, 40, 40, 60))
    keys = [f"key-{number}" for number in range(3)]
    submissions = []
    bursts = [rng.uniform(0.0, heal_at * 0.8) for _ in range(4)]
    for number in range(count):
        at = rng.choice(bursts) if rng.random() < 0.5 else rng.uniform(0.0, heal_at * 0.9)
        behaviour, length = _behaviour(rng)
        tagged = rng.random() < 0.1
        key = rng.choice(keys) if rng.random() < 0.08 else ""
        concurrent = rng.random() < 0.1 and behaviour.do not in ("crash", "out_of_memory")
        submissions.append(
            Submission(
                number=number,
                at=at,
                client=rng.randrange(clients),
                behaviour=Behaviour("ok", 50) if key else behaviour,
                function="sim:keyed" if key else f"sim:{behaviour.do}_{length}",
                priority=0 if key or rng.random() < 0.8 else rng.randint(-3, 3),
                key=key,
                delay_ms=rng.randrange(10, 5000) if not key and rng.random() < 0.1 else 0,
                tags=("gpu",) if tagged and not key else (),
                concurrent=concurrent and not key,
                twice=rng.random() < 0.1,
            )
        )
    return tuple(submissions)


def _behaviour(rng: random.Random) -> tuple[Behaviour, str]:
    do, _, times = rng.choices(_DOINGS, [weight for _, weight, _ in _DOINGS])[0]
    length = rng.choice(("quick", "quick", "middle", "middle", "long"))
    if length == "quick":
        ms = rng.randint(1, 6)
    else:
        ms = rng.randint(30, 900) if length == "middle" else rng.randint(1500, 14000)
    return Behaviour(do, ms, rng.choice(times)), length


def _wishes(
    rng: random.Random, submissions: tuple[Submission, ...], heal_at: float
) -> tuple[WishPlan, ...]:
    wishes: list[WishPlan] = []
    for task in submissions:
        if task.behaviour.do in ("forever", "stubborn"):
            at = rng.uniform(task.at + 0.5, heal_at + 2.0)
            wishes.append(WishPlan(at, task.client, task.number, Wanted.CANCEL))
        elif rng.random() < 0.12:
            at = task.at + rng.random() * rng.choice((0.05, 2.0, 2.0, 10.0))
            wishes.append(WishPlan(at, task.client, task.number, Wanted.CANCEL))
        if rng.random() < 0.10:
            at = task.at + rng.random() * rng.choice((0.05, 2.0, 5.0))
            wishes.append(WishPlan(at, task.client, task.number, Wanted.PAUSE))
            later = at + rng.random() * rng.choice((0.1, 3.0, 8.0))
            wishes.append(WishPlan(later, task.client, task.number, Wanted.RUN))
    return tuple(sorted(wishes, key=lambda wish: wish.at))


# --- Faults ------------------------------------------------------------------------------------

COORDINATOR_POINTS = (
    "commit hello",
    "commit insert",
    "commit insert+claim",
    "commit claim",
    "commit started",
    "commit outcome",
    "commit lapse",
    "commit wish",
    "commit outage",
    "WorkerWelcome",
    "Assign",
    "StopOrder",
    "WishTold",
    "Answered",
    "ClientWelcome",
    "Accepted",
    "Refused",
    "Settled",
    "Reply",
    "Heartbeat",
    "Goodbye",
    "Recall",
)
WORKER_POINTS = ("WorkerHello", "Started", "Ended", "Heartbeat", "Pull", "Draining", "Goodbye")

_MENU = (
    # kind, how often of a hundred
    (FaultKind.CRASH, 34),
    (FaultKind.CUT, 16),
    (FaultKind.PARTITION, 10),
    (FaultKind.STALL, 10),
    (FaultKind.CORRUPTION, 10),
    (FaultKind.CLOCK, 5),
    (FaultKind.STORE, 10),
    (FaultKind.DELAY, 3),
    (FaultKind.DRAIN, 2),
)


def _faults(rng: random.Random, workers: list[str], clients: int, heal_at: float) -> list[Fault]:
    everybody = [COORDINATOR, *workers, *(f"client-{number}" for number in range(clients))]
    count = rng.choice((8, 20, 30, 40))
    faults = [_fault(rng, workers, everybody, heal_at) for _ in range(count)]
    if len(workers) > 1 and rng.random() < LOST_HOSTS:
        at = rng.uniform(0.05, heal_at * 0.95)
        faults.append(Fault(FaultKind.CRASH, at, workers[-1], NEVER_SECONDS, "silent"))
    return faults


def _fault(rng: random.Random, workers: list[str], everybody: list[str], heal_at: float) -> Fault:
    kind, _ = rng.choices(_MENU, [weight for _, weight in _MENU])[0]
    at = rng.uniform(0.05, heal_at * 0.95)
    seconds = min(_span(rng, kind), heal_at - at)
    if kind is FaultKind.CRASH:
        return _crash(rng, workers, at, seconds)
    if kind is FaultKind.STORE:
        flavour = rng.choice(("full", "before", "after", "after", "slow", "unreadable"))
        return Fault(kind, at, COORDINATOR, seconds, flavour, rng.randint(1, 2))
    if kind is FaultKind.DRAIN:
        return Fault(kind, at, rng.choice(workers), seconds)
    target = rng.choice(everybody)
    if kind is FaultKind.PARTITION:
        ways = rng.choice(("both", "both", "from", "to"))
        hang = rng.choice(("hanging", "refusing"))
        end = rng.choice(("heal", "cut"))
        return Fault(kind, at, target, seconds, f"{ways} {hang} {end}")
    if kind is FaultKind.CORRUPTION:
        return Fault(kind, at, target, 0.0, rng.choice(("inward", "outward")))
    if kind is FaultKind.CLOCK:
        # A client says on its own clock when a delayed task falls due.
        sizes = (100, 5_000) if target.startswith("client") else (100, 5_000, 3_600_000)
        jump = rng.choice((1, -1)) * rng.choice(sizes)
        return Fault(kind, at, target, seconds, "", jump)
    if kind is FaultKind.DELAY:
        return Fault(kind, at, target, seconds, "", rng.choice((5, 50, 500)))
    return Fault(kind, at, target, seconds)


def _span(rng: random.Random, kind: FaultKind) -> float:
    if kind is FaultKind.CRASH:
        return rng.choice((0.01, 0.2, 1.0, 3.0)) * (0.5 + rng.random())
    return rng.choice((0.05, 0.5, 2.0, 6.0, 15.0)) * (0.5 + rng.random())


def _crash(rng: random.Random, workers: list[str], at: float, seconds: float) -> Fault:
    target = COORDINATOR if rng.random() < 0.55 else rng.choice(workers)
    if rng.random() < 0.25:
        flavour = ""
    else:
        points = COORDINATOR_POINTS if target == COORDINATOR else WORKER_POINTS
        flavour = f"{rng.choice((BEFORE, AFTER))} {rng.choice(points)}"
    if target != COORDINATOR:
        # One guard of five dies with its worker and says nothing.
        flavour = f"{'silent' if rng.random() < 0.2 else 'guarded'} {flavour}"
    return Fault(FaultKind.CRASH, at, target, seconds, flavour, rng.choice((0, 0, 1, 3)))
