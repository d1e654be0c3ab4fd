"""What a run is to be: from one seed, who is there, what is asked, and what goes wrong when.

Owns all chance that is drawn before the run. Each part of a plan has a stream of its own, so that
a smaller number of faults leaves the tasks as they were, and the other way round.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from holdfast.lab.sim.charges import CRASHES_MAX, ENVIRONMENT_MAX, OUT_OF_MEMORY_MAX
from holdfast.lab.sim.misfortunes import (
    STORM_LEASE_SECONDS,
    Fault,
    ambushes,
    child_deaths,
    client_deaths,
    code_faults,
    eclipse,
    effect_deaths,
    faults,
    is_stormy,
    storm,
    tremors,
)
from holdfast.lab.sim.witness import Behaviour
from holdfast.model.task import Wanted

BUSY_SECONDS = (15.0, 40.0)
"""How long faults come; everything is healed after that."""


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
    one_host: bool
    """Whether the workers share the coordinator's host, whose kernel tells of their deaths."""
    pickled: frozenset[str] = frozenset()
    """Functions that workers cannot import: their bytes travel with their tasks."""
    large: frozenset[int] = frozenset()
    """Numbers of the tasks whose arguments go by reference."""

    @property
    def work_seconds(self) -> float:
        """How long all of its tasks take one after another, with all that repeats by itself."""
        behaviours = (task.behaviour for task in self.submissions)
        return sum(_RUNS.get(each.do, 1) * each.ms for each in behaviours) / 1000


def stream(seed: int, name: str) -> random.Random:
    """Return a stream of chance of its own. The same for every process and hash seed."""
    return random.Random(f"holdfast {seed} {name}")


def draw(seed: int, *, faults_max: int | None = None) -> Plan:
    """Return the plan of a seed; `faults_max` 0 is the same run with nothing going wrong."""
    shape = stream(seed, "shape")
    workers = _workers(shape)
    clients = shape.choice((1, 1, 2, 3))
    heal_at = shape.uniform(*BUSY_SECONDS)
    lease_seconds = shape.choice((3.0, 5.0, 10.0))
    storms = stream(seed, "storm")
    stormy = is_stormy(storms)
    if stormy:
        # Long enough for a task to use its budgets up.
        heal_at, lease_seconds = BUSY_SECONDS[1], STORM_LEASE_SECONDS
    tremor = stream(seed, "tremors")
    shaken = not stormy and tremor.random() < _TREMORS
    if shaken:
        lease_seconds = _SHAKEN_LEASE_SECONDS
    submissions = _submissions(stream(seed, "tasks"), clients, heal_at, workers)
    wishes = _wishes(stream(seed, "wishes"), submissions, heal_at)
    submissions += _convoy(stream(seed, "convoy"), len(submissions), clients, heal_at)
    names = [worker.name for worker in workers]
    dark = stream(seed, "eclipse")
    marathons: tuple[Submission, ...] = ()
    if shaken or (len(names) > 1 and dark.random() < _ECLIPSES):
        leases = _SHAKEN_LEASES if shaken else _MARATHON_LEASES
        marathons = _marathons(dark, len(submissions), clients, names, lease_seconds, leases)
        submissions += marathons
    drawn = faults(stream(seed, "faults"), names, clients, heal_at)
    drawn += storm(storms, names) if stormy else []
    drawn += ambushes(stream(seed, "ambushes"), names, heal_at, lease_seconds)
    pickles = stream(seed, "pickled functions")
    pickled: frozenset[str] = frozenset()
    if pickles.random() < _PICKLES:
        functions = dict.fromkeys(task.function for task in submissions)
        pickled = frozenset(name for name in functions if pickles.random() < 0.6)
        drawn += code_faults(pickles, names, heal_at)
    drawn += [eclipse(dark, names, marathons[0].at, lease_seconds)] if marathons else []
    drawn += client_deaths(stream(seed, "client deaths"), clients, heal_at)
    drawn += effect_deaths(stream(seed, "effect deaths"), names, heal_at)
    drawn += child_deaths(stream(seed, "child deaths"), names, heal_at)
    if shaken:
        drawn = tremors(tremor, names, marathons[0].at + 1.0)
        heal_at = max(heal_at, drawn[-1].at + drawn[-1].seconds)
    submissions += _crowd(stream(seed, "crowd"), len(submissions), clients, heal_at)
    if faults_max is not None:
        drawn = drawn[:faults_max]
    return Plan(
        seed=seed,
        workers=workers,
        clients=clients,
        submissions=submissions,
        wishes=wishes,
        faults=tuple(sorted(drawn, key=lambda fault: fault.at)),
        heal_at=heal_at,
        lease_seconds=lease_seconds,
        beat_seconds=lease_seconds / 10,
        one_host=stream(seed, "one host").random() < _ONE_HOST,
        pickled=pickled,
        large=_large(stream(seed, "large payloads"), len(submissions)),
    )


def _large(rng: random.Random, tasks: int) -> frozenset[int]:
    """Return the tasks whose arguments are too large for a frame."""
    if rng.random() >= _LARGE:
        return frozenset()
    return frozenset(number for number in range(tasks) if rng.random() < 0.5)


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


_RUNS = {
    "crash": CRASHES_MAX + 1,
    "environment": ENVIRONMENT_MAX + 1,
    "out_of_memory": OUT_OF_MEMORY_MAX + 1,
}
"""How often such a task runs before its budget is used up."""
_CONVOYS = 0.6
_CONVOY_FIRST = 3
_CONVOY_REST = (12, 30)
_CONVOY_LONG_MS = (200, 1_500)
_ECLIPSES = 0.3
_ONE_HOST = 0.5
_PICKLES = 0.2
"""In so many of the runs, some functions travel."""
_LARGE = 0.2
"""In so many of the runs, some arguments go by reference."""
_MARATHON_LEASES = (3.0, 4.0)
_TREMORS = 0.08
"""In so many of the runs nothing goes wrong but that coordinators die, one after another."""
_SHAKEN_LEASES = (6.0, 9.0)
_SHAKEN_LEASE_SECONDS = 10.0
_CROWDS = 0.15
_CROWD_TASKS = (70, 90)


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


def _convoy(rng: random.Random, first: int, clients: int, heal_at: float) -> tuple[Submission, ...]:
    """Return tasks of one function that seemed short, until some of a crowd take long.

    What was sent ahead then waits behind them, at one worker, while another has nothing to do.
    """
    if rng.random() >= _CONVOYS:
        return ()
    client, at = rng.randrange(clients), rng.uniform(0.0, heal_at * 0.7)
    crowd = [(at + 0.5, rng.randint(1, 3)) for _ in range(rng.randint(*_CONVOY_REST))]
    for place in rng.sample(range(len(crowd) // 2), k=rng.randint(1, 3)):
        crowd[place] = (at + 0.5, rng.randint(*_CONVOY_LONG_MS))
    times = [(at, rng.randint(1, 3)) for _ in range(_CONVOY_FIRST)] + crowd
    return tuple(
        _plain(first + number, when, client, "sim:convoy", ms)
        for number, (when, ms) in enumerate(times)
    )


def _marathons(
    rng: random.Random,
    first: int,
    clients: int,
    names: list[str],
    lease_seconds: float,
    leases: tuple[float, float],
) -> tuple[Submission, ...]:
    """Return a task for each worker that outlasts several leases."""
    at = rng.uniform(0.5, BUSY_SECONDS[0] * 0.8)
    return tuple(
        _plain(first + number, at, rng.randrange(clients), "sim:marathon", ms)
        for number, ms in enumerate(int(lease_seconds * 1000 * rng.uniform(*leases)) for _ in names)
    )


def _crowd(rng: random.Random, first: int, clients: int, heal_at: float) -> tuple[Submission, ...]:
    """Return many tasks that no worker can run at first, and few that stand behind them in line."""
    if rng.random() >= _CROWDS:
        return ()
    client, at = rng.randrange(clients), rng.uniform(0.0, heal_at * 0.7)
    lacking = Behaviour("environment", 1, rng.choice((1, 2)))
    crowd = [
        replace(_plain(first + number, at, client, "sim:crowd", 1), behaviour=lacking)
        for number in range(rng.randint(*_CROWD_TASKS))
    ]
    behind = first + len(crowd)
    late = [_plain(behind + n, at + 0.5, client, "sim:behind", rng.randint(1, 3)) for n in range(3)]
    return (*crowd, *late)


def _plain(number: int, at: float, client: int, function: str, ms: int) -> Submission:
    return Submission(
        number=number,
        at=at,
        client=client,
        behaviour=Behaviour("ok", ms),
        function=function,
        priority=0,
        key="",
        delay_ms=0,
        tags=(),
        concurrent=False,
        twice=False,
    )


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
