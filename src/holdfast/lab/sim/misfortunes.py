"""What goes wrong in a run, and when: drawn from the seed before the run begins.

Owns the kinds of faults and how often each comes. Some come at a time, some wait for a moment: a
crash for its crash point, an ambush for a frame. Each is one value with its own repair.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from holdfast.lab.sim.coverage import AFTER, BEFORE
from holdfast.model.words import Word

COORDINATOR = "coordinator"
LOST_HOSTS = 0.25
"""In so many of the runs with several workers, one is lost for good and nobody tells of it."""
NEVER_SECONDS = 1_000_000.0
STORMS = 0.1
"""In so many of the runs, every worker dies the same death over and over."""
STORM_DEATHS = 12
STORM_LEASE_SECONDS = 3.0


class FaultKind(Word):
    """What goes wrong. Up to `AMBUSH` they are counted as faults."""

    CRASH = 1
    CUT = 2
    PARTITION = 3
    STALL = 4
    CORRUPTION = 5
    CLOCK = 6
    STORE = 7
    AMBUSH = 8
    DELAY = 9
    DRAIN = 10


COUNTED = tuple(kind for kind in FaultKind if kind <= FaultKind.AMBUSH)


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
CODE_POINTS = ((COORDINATOR, "commit code"), (COORDINATOR, "Code"), ("", "CodeWanted"))
"""Where functions that travel are on their way: who dies ("": a worker), and at what."""

CLIENT_POINTS = ("ClientHello", "Submit", "Watch", "SetWanted", "PutCode")
EFFECT_POINTS = (
    "disk incarnation",
    "disk store",
    "disk spool",
    "disk forget",
    "disk shelf",
    "disk shelf",
    "blob",
    "blob",
    "guard session",
    "guard started",
    "guard spooled",
    "guard done",
    "child order",
    "child take back",
    "child interrupt",
    "child interrupt",
    "child kill",
    "child kill",
)
"""What a worker does beside sending; what is rare, twice."""
CHILD, CHILDREN = "child", "children"
"""Flavours of a crash: one child of a worker dies, or all of them at once."""
MORTAL = 0.5
"""In so many of the runs, clients die; in as many, workers at an effect; in as many, children."""

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

_AMBUSHES = (
    # The frame is held up until a later hello has overtaken it; then its socket breaks.
    ("cut WorkerHello", 3),
    ("cut Started", 1),
    ("cut Ended", 1),
    # It is held up in the same way, and its sender dies.
    ("crash WorkerHello", 1),
    ("crash Started", 2),
    ("crash Ended", 3),
    # After a partition its sender dies and stays dead for a while; it arrives when the guard of its
    # sender has told.
    ("bury WorkerHello", 2),
    # A partition keeps it, in which what it tells of ends; the sender dies as it comes back.
    ("spool Started", 4),
    # It is the first that a partition keeps.
    ("partition WorkerHello", 1),
    ("partition Started", 4),
    ("partition Ended", 1),
    # So it is, and the coordinator freezes meanwhile: it heard nothing, but did not listen either.
    ("deafness Heartbeat", 2),
    # It vanishes, and what is sent after it arrives. Heartbeats on both ways then show the gap.
    ("vanish Started", 1),
    ("vanish Ended", 1),
    ("vanish Assign", 2),
    ("vanish Answered", 1),
    ("vanish WishTold", 1),
)
_OF_COORDINATOR = ("Assign", "Answered", "WishTold")
_PARTED_LEASES = {"partition": (0.5, 1.2, 1.2), "deafness": (1.2,)}
"""How long these last, in leases."""
_DEAD_SECONDS = (1.5, 4.0)
_DEATHS_AFTER_MS = {"bury": (50, 2_500), "spool": (2_100,)}
"""How long these are cut off before they die: long enough for a spool to be written, or not."""
DEAF_LEASES = (0.1, 0.6)
"""When the coordinator freezes, and for how long, in leases."""
_STORMS = (
    # Each costs a loss; or nobody can tell what had begun, and silence has to tell that it ended.
    ("guarded after Started", 0.2),
    ("silent before Started", STORM_LEASE_SECONDS * 1.25),
)
_TREMORS = (2, 8)
_LOST_BEFORE = 0.5
_LIVES_SECONDS = ((0.1, 2.9), (3.2, 4.5), (3.2, 4.5))
"""How long the coordinators of a tremor live: too short for anybody to come, or long enough."""


def is_stormy(rng: random.Random) -> bool:
    """Whether one death comes over and over, so that budgets are used up."""
    return rng.random() < STORMS


def faults(rng: random.Random, workers: list[str], clients: int, heal_at: float) -> list[Fault]:
    """Return what comes at its time, or at a crash point."""
    everybody = [COORDINATOR, *workers, *(f"client-{number}" for number in range(clients))]
    count = rng.choice((8, 20, 30, 40))
    drawn = [_fault(rng, workers, everybody, heal_at) for _ in range(count)]
    if len(workers) > 1 and rng.random() < LOST_HOSTS:
        at = rng.uniform(0.05, heal_at * 0.95)
        drawn.append(Fault(FaultKind.CRASH, at, workers[-1], NEVER_SECONDS, "silent"))
    return drawn


def storm(rng: random.Random, workers: list[str]) -> list[Fault]:
    """Return the deaths of a storm: each worker dies as soon as it has something to run."""
    flavour, seconds = rng.choice(_STORMS)
    at = rng.uniform(0.05, 5.0)
    return [
        Fault(FaultKind.CRASH, at, worker, seconds, flavour)
        for worker in workers
        for _ in range(STORM_DEATHS)
    ]


def tremors(rng: random.Random, workers: list[str], at: float) -> list[Fault]:
    """Return coordinators that die one after another, of which some had time to listen.

    Nothing else goes wrong, but that in some runs a worker is lost before, without a word.
    """
    drawn: list[Fault] = []
    if len(workers) > 1 and rng.random() < _LOST_BEFORE:
        drawn.append(Fault(FaultKind.CRASH, at, workers[-1], NEVER_SECONDS, "silent"))
    when = at + 0.1
    for _ in range(rng.randint(*_TREMORS)):
        seconds = rng.choice((0.05, 2.0, 8.0, 25.0))
        drawn.append(Fault(FaultKind.CRASH, when, COORDINATOR, seconds))
        when += seconds + rng.uniform(*rng.choice(_LIVES_SECONDS))
    return drawn


def ambushes(
    rng: random.Random, workers: list[str], heal_at: float, lease_seconds: float
) -> list[Fault]:
    """Return what lies in wait for a frame of a worker."""
    drawn: list[Fault] = []
    for _ in range(rng.choice((0, 2, 3, 5))):
        flavour, _ = rng.choices(_AMBUSHES, [weight for _, weight in _AMBUSHES])[0]
        what, kind = flavour.split()
        leases = _PARTED_LEASES.get(what)
        seconds = lease_seconds * rng.choice(leases) if leases else rng.choice((0.001, 0.2, 1.0))
        parted_ms = 0
        if what in _DEATHS_AFTER_MS:
            seconds, parted_ms = rng.choice(_DEAD_SECONDS), rng.choice(_DEATHS_AFTER_MS[what])
        at = rng.uniform(0.05, heal_at * 0.9)
        worker = rng.choice(workers)
        target = COORDINATOR if kind in _OF_COORDINATOR else worker
        drawn.append(Fault(FaultKind.AMBUSH, at, target, seconds, flavour, parted_ms))
    return drawn


def eclipse(rng: random.Random, workers: list[str], at: float, lease_seconds: float) -> Fault:
    """Return a partition of one worker as soon as it has begun what comes at this time.

    Nobody hears that it did, so that others begin it too; it is still at it when it comes back.
    """
    before, seconds = at - 0.005, lease_seconds * 1.2
    return Fault(FaultKind.AMBUSH, before, rng.choice(workers), seconds, "partition Started")


def code_faults(rng: random.Random, workers: list[str], heal_at: float) -> list[Fault]:
    """Return what happens to functions on their way: deaths, and disks without room for them."""
    drawn: list[Fault] = []
    for _ in range(rng.choice((1, 2, 4))):
        target, point = rng.choice(CODE_POINTS)
        at = rng.uniform(0.05, heal_at * 0.5)
        seconds = min(_span(rng, FaultKind.CRASH), heal_at - at)
        flavour = f"{rng.choice((BEFORE, AFTER))} {point}"
        if target != COORDINATOR:
            flavour = f"guarded {flavour}"
        target = target or rng.choice(workers)
        drawn.append(Fault(FaultKind.CRASH, at, target, seconds, flavour, rng.choice((0, 0, 1))))
    for _ in range(2):
        at = rng.uniform(0.05, heal_at * 0.9)
        seconds = min(rng.uniform(0.2, 3.0), heal_at - at)
        drawn.append(Fault(FaultKind.STORE, at, COORDINATOR, seconds, "full"))
    return drawn


def client_deaths(rng: random.Random, clients: int, heal_at: float) -> list[Fault]:
    """Return the deaths of processes that submit and wait."""
    if rng.random() >= MORTAL:
        return []
    drawn: list[Fault] = []
    for _ in range(rng.choice((1, 2, 4))):
        point = f"{rng.choice((BEFORE, AFTER))} {rng.choice(CLIENT_POINTS)}"
        flavour = "" if rng.random() < 0.3 else point
        drawn.append(_death(rng, f"client-{rng.randrange(clients)}", flavour, heal_at))
    return drawn


def effect_deaths(rng: random.Random, workers: list[str], heal_at: float) -> list[Fault]:
    """Return deaths of workers before or after what they do beside sending."""
    if rng.random() >= MORTAL:
        return []
    drawn: list[Fault] = []
    for _ in range(rng.choice((1, 2, 4))):
        flavour = f"guarded {rng.choice((BEFORE, AFTER))} {rng.choice(EFFECT_POINTS)}"
        drawn.append(_death(rng, rng.choice(workers), flavour, heal_at))
    return drawn


def child_deaths(rng: random.Random, workers: list[str], heal_at: float) -> list[Fault]:
    """Return deaths of children that their tasks have no part in."""
    if rng.random() >= MORTAL:
        return []
    return [
        _death(rng, rng.choice(workers), rng.choice((CHILD, CHILD, CHILDREN)), heal_at)
        for _ in range(rng.choice((1, 2, 4)))
    ]


def _death(rng: random.Random, target: str, flavour: str, heal_at: float) -> Fault:
    at = rng.choice((0.0, 1.0, 1.0, 1.0)) * rng.uniform(0.05, heal_at * 0.9)
    seconds = min(_span(rng, FaultKind.CRASH), heal_at - at)
    return Fault(FaultKind.CRASH, at, target, seconds, flavour, rng.choice((0, 0, 1, 3)))


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
