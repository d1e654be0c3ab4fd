"""The kill test: tens of thousands of tasks while children, workers and coordinators are killed.

    python -m holdfast.lab.killtest --seconds 90 --seed 7

Real processes, a client that stays through all of it, and blows by seed on what the witness shows
at work. The verdict comes from the store's file and the witness alone; the exit code is 0 valid,
1 invalid, 2 unknown; 130 on Ctrl-C and SIGTERM, which end everything that was started. The killer
never strikes a task twice, nor the worker of the long tasks.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from holdfast import __version__
from holdfast.client.client import Client
from holdfast.client.session import Terms
from holdfast.clock import SystemClock
from holdfast.coordinator.statedir import DATABASE
from holdfast.entropy import BulkEntropy
from holdfast.errors import ConnectionLostError
from holdfast.lab.blows import Blow, Plan, Striker
from holdfast.lab.cluster import Cluster
from holdfast.lab.faults.proxy_thread import ProxyThread
from holdfast.lab.interruption import EXIT_CODE, TOLD, interrupted_once
from holdfast.lab.judgement import Case, Findings, Verdict, judge
from holdfast.lab.witness import WitnessReader
from holdfast.lab.workloads.marking import linger, mark
from holdfast.model.ids import IdMint
from holdfast.transports import endpoint
from holdfast.transports.address import parse_address
from holdfast.transports.websocket import WebSocketDialer

if TYPE_CHECKING:
    from holdfast.client.future import Future

_LONG_QUEUE = "long"
_KEEPER = "keeper"
"""The worker of the long tasks; it is spared."""
_CUT = "remote"
"""The worker that is cut off, where the plan says so; it is never killed."""
_WAVE_SECONDS = 0.5
_READY_SECONDS = 30.0
_SETTLE_SECONDS = 120.0
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the test. `slow_share` of the tasks sleep, up to `slow_seconds`.

    Their later attempts sleep `again_seconds`, so that the outcome of a worker that was cut off
    for longer than its lease comes while another attempt runs.
    """

    plan: Plan
    tasks: int
    long_tasks: int
    workers: int
    slots: int
    slow_share: float
    slow_seconds: float = 3.0
    again_seconds: float = 3.0
    lease_seconds: float = 10.0


FULL = Form(
    plan=Plan(seconds=80, children=24, workers=12, coordinators=8, pairs=3, cuts=1),
    tasks=52_000,
    long_tasks=20,
    workers=3,
    slots=4,
    slow_share=0.006,
)
SHORT = Form(
    plan=Plan(seconds=6, children=4, workers=2, coordinators=2, pairs=1, cuts=1),
    tasks=3_000,
    long_tasks=4,
    workers=2,
    slots=3,
    slow_share=0.03,
    slow_seconds=2.0,
    again_seconds=4.5,
    lease_seconds=3.0,
)
FORMS = {"full": FULL, "short": SHORT}

Tell = Callable[[str], None]


def run(form: Form, *, seed: int, directory: Path, tell: Tell) -> Findings:
    """Run one form in a directory that is empty, and judge it.

    Raises what kept the test from being held, which proves neither the one nor the other.
    """
    witness = directory / "witness"
    with ExitStack() as stack:
        cluster = stack.enter_context(
            Cluster(directory / "cluster", lease_seconds=form.lease_seconds)
        )
        cluster.start_coordinator()
        proxy = _start_workers(form, cluster, stack)
        client = _connect(cluster.url, spill_to=directory)
        stack.push(partial(_leave, cluster, client))
        striker = Striker(
            cluster,
            WitnessReader(witness),
            form.plan,
            seed=seed,
            spared=frozenset({_KEEPER, _CUT}),
            tell=lambda blow, hit: tell(_line(blow, hit=hit)),
            proxy=proxy,
            cut_name=_CUT,
        )
        work = _Work(form, client, witness, release=directory / "release", seed=seed)
        work.begin_long()
        WitnessReader(witness).wait_until(
            "every long task runs",
            lambda seen: len(seen.busy()) >= form.long_tasks,
            timeout_seconds=_READY_SECONDS,
        )
        with striker:
            work.submit_while(lambda: striker.strikes)
        tell("the blows are over; waiting for what is left")
        case = work.settle()
    return judge(
        case,
        striker.blows,
        database=cluster.state_dir / DATABASE,
        witness=WitnessReader(witness),
    )


def _connect(url: str, *, spill_to: Path) -> Client:
    """Return a client put together here: what users call is made above this room."""
    rng = BulkEntropy()
    return Client(
        Terms(
            dialers=(WebSocketDialer(parse_address(url)),),
            clock=SystemClock(),
            rng=rng,
            spill_to=spill_to,
            version=__version__,
        ),
        mint=IdMint(rng),
        connect_seconds=_READY_SECONDS,
    )


def _leave(
    cluster: Cluster,
    client: Client,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Close the client as its own block would; who is interrupted waits for no submission.

    Then the processes end first: guards end sooner while the proxy still stands.
    """
    if kind is None or issubclass(kind, Exception):
        client.__exit__(kind, error, trace)
        return
    cluster.stop(0.0)
    with suppress(ConnectionLostError):
        client.close(0.0)


def _start_workers(form: Form, cluster: Cluster, stack: ExitStack) -> ProxyThread | None:
    for number in range(form.workers):
        cluster.start_worker(f"worker-{number}", "--slots", str(form.slots), "--queues", "default")
    if form.long_tasks:
        slots = str(form.long_tasks)
        cluster.start_worker(_KEEPER, "--slots", slots, "--queues", _LONG_QUEUE)
    if not form.plan.cuts:
        return None
    proxy = stack.enter_context(ProxyThread(endpoint.socket_path(cluster.state_dir)))
    words = ("--slots", str(form.slots), "--queues", "default")
    cluster.start_worker(_CUT, *words, url=f"http://127.0.0.1:{proxy.port}")
    return proxy


class _Work:
    """What is submitted, by one client that stays connected, in waves."""

    def __init__(
        self, form: Form, client: Client, witness: Path, *, release: Path, seed: int
    ) -> None:
        self._form = form
        self._client = client
        self._witness = str(witness)
        self._release = release
        self._rng = random.Random(seed)
        self._futures: list[Future[Any]] = []
        self._long: list[Future[Any]] = []

    def begin_long(self) -> None:
        """Submit the long tasks, which end when they are released."""
        seconds = self._form.plan.seconds + _SETTLE_SECONDS
        for number in range(self._form.long_tasks):
            arguments = (number, str(self._release), seconds, self._witness)
            self._long.append(self._client.submit(linger, *arguments, queue=_LONG_QUEUE))

    def submit_while(self, goes_on: Callable[[], bool]) -> None:
        """Submit wave after wave over the span of the plan, and on while blows still fall."""
        waves = max(1, int(self._form.plan.seconds / _WAVE_SECONDS))
        wave = -(-self._form.tasks // waves)
        due = time.monotonic()
        while len(self._futures) < self._form.tasks or goes_on():
            for _ in range(wave):
                self._submit()
            due = max(due + _WAVE_SECONDS, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _submit(self) -> None:
        form, number = self._form, len(self._long) + len(self._futures)
        seconds = [0.0]
        if self._rng.random() < form.slow_share:
            seconds = [self._rng.random() * form.slow_seconds, form.again_seconds]
        self._futures.append(self._client.submit(mark, number, seconds, self._witness))

    def settle(self) -> Case:
        """Release the long tasks, wait for everything, and return what was acknowledged."""
        self._release.touch()
        numbers: dict[str, int] = {}
        results: dict[str, object] = {}
        deadline = time.monotonic() + _SETTLE_SECONDS
        for number, future in enumerate([*self._long, *self._futures]):
            future.wait_accepted(max(0.0, deadline - time.monotonic()))
            numbers[future.id] = number
            try:
                results[future.id] = future.result(max(0.0, deadline - time.monotonic()))
            except Exception as error:  # the store tells what became of it
                results[future.id] = repr(error)
        return Case(
            plan=self._form.plan,
            numbers=numbers,
            results=results,
            long_lived=frozenset(future.id for future in self._long),
            tasks_min=self._form.tasks,
        )


def _line(blow: Blow, *, hit: bool) -> str:
    word = "cut off" if blow.kind == "cut" else "SIGKILL"
    return f"  {word}  {blow.kind:<12} {blow.name}{'' if hit else ', too late'}"


def report(found: Findings) -> str:
    """Return what was found, for people."""
    lines = [f"{found.tasks} tasks acknowledged, {found.runs} runs witnessed"]
    for kind, count in found.blows.items():
        if not count:
            continue
        line = f"  struck at work: {count} × {kind}"
        times = sorted(found.begun_again_ms.get(kind, []))
        if times:
            p50, p95 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 95 // 100)]
            line += (
                f"; next begin after ms: p50 {p50:.0f}, p95 {p95:.0f}, max {times[-1]:.0f} "
                f"({len(times)} measured)"
            )
        lines.append(line)
    lost, unexpected, wrong = len(found.lost), len(found.unexpected), len(found.wrong)
    alive, late = len(found.begun_twice_alive), found.superseded_ends
    lines += [
        f"  blows within 100 ms of another: {found.pairs}",
        f"  begun twice: {found.begun_twice}, of them alive: {alive}; superseded ends: {late}",
        f"  lost: {lost}, unexpected: {unexpected}, wrong: {wrong}",
    ]
    for each in (found.lost, found.unexpected, found.wrong, found.begun_twice_alive):
        lines += [f"    {text}" for text in each[:_SHOWN]]
    lines += [f"  not shown: {text}" for text in found.unproven[:_SHOWN]]
    return "\n".join([*lines, f"verdict: {found.verdict.name.lower()}"])


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.lab.killtest", description=__doc__)
    parser.add_argument("--form", choices=sorted(FORMS), default="full", help="[full]")
    parser.add_argument("--seconds", type=float, help="over which blows fall, and a little more")
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    parser.add_argument("--lease", type=float, help="seconds [10; form short: 3]")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    chosen = parser.parse_args(words)
    form = _form(FORMS[chosen.form], chosen.seconds, chosen.lease)

    def tell(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    try:
        with (
            interrupted_once(),
            tempfile.TemporaryDirectory(prefix="holdfast-kill-") as directory,
        ):
            found = run(form, seed=chosen.seed, directory=Path(directory), tell=tell)
    except KeyboardInterrupt:
        tell(TOLD)
        return EXIT_CODE
    except Exception:
        logging.getLogger(__name__).exception("the test could not be held; seed %d", chosen.seed)
        return Verdict.UNKNOWN
    if chosen.json:
        data = {**asdict(found), "verdict": found.verdict.name.lower(), "seed": chosen.seed}
        sys.stdout.write(f"{json.dumps(data)}\n")
    else:
        sys.stdout.write(f"{report(found)}\nseed: {chosen.seed}\n")
    return found.verdict


def _form(form: Form, seconds: float | None, lease_seconds: float | None) -> Form:
    """Stretch a form to so many seconds: the work with them, the number of blows as it is."""
    if seconds is not None:
        share = seconds / form.plan.seconds
        # What starts and what settles is not under fire; the tasks of the full form stay as many.
        plan = replace(form.plan, seconds=max(1.0, seconds - (10.0 if share > 1 else 0.0)))
        form = replace(form, plan=plan)
    return form if lease_seconds is None else replace(form, lease_seconds=lease_seconds)


if __name__ == "__main__":
    sys.exit(main())
