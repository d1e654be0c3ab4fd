"""What goes wrong, done: each fault of the plan at its time, and its repair.

Owns the counting of faults by kind: one counts where it met somebody. Everything is repaired by the
end of the plan, whatever overlapped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from holdfast.lab.sim.clock import HostTime
from holdfast.lab.sim.coverage import Point
from holdfast.lab.sim.hosts import ClientHost, CoordinatorHost, WorkerHost
from holdfast.lab.sim.loop import Party
from holdfast.lab.sim.misfortunes import (
    CHILD,
    CHILDREN,
    COORDINATOR,
    DEAF_LEASES,
    Fault,
    FaultKind,
)
from holdfast.lab.sim.network import HELLO, End
from holdfast.lab.sim.stage import Stage

STRIKE_SECONDS = 0.0005
"""How much later than the frame that it waited for an ambush strikes."""
BURIED_SECONDS = 0.3
"""How long a hello is held up whose sender died: its guard has told by then."""


class Nemesis:
    """Does the faults of one run."""

    def __init__(
        self,
        stage: Stage,
        coordinator: CoordinatorHost,
        workers: Mapping[str, WorkerHost],
        clients: Mapping[str, ClientHost],
    ) -> None:
        self._stage = stage
        self._coordinator = coordinator
        self._workers = workers
        self._clients = clients
        self._armed: dict[tuple[str, str, str], deque[Fault]] = {}
        """Party, kind and moment of a crash point → the faults that wait for it."""
        self._cut_off: dict[str, int] = {}
        """Host → how many partitions of it overlap now."""
        self._jumps: dict[str, int] = {}
        self.counts: dict[FaultKind, int] = dict.fromkeys(FaultKind, 0)
        self._do: dict[FaultKind, Callable[[Fault], bool]] = {
            FaultKind.CRASH: self._crash,
            FaultKind.CUT: self._cut,
            FaultKind.PARTITION: self._partition,
            FaultKind.STALL: self._stall,
            FaultKind.CORRUPTION: self._corrupt,
            FaultKind.CLOCK: self._jump,
            FaultKind.STORE: self._store,
            FaultKind.AMBUSH: self._ambush,
            FaultKind.DELAY: self._delay,
            FaultKind.DRAIN: self._drain,
        }

    def start(self) -> None:
        """Set all faults, and the healing after them."""
        loop, plan = self._stage.loop, self._stage.plan
        for fault in plan.faults:
            loop.call_at(fault.at, self._begin, fault, context=loop.world)
        loop.call_at(plan.heal_at, self._heal, context=loop.world)

    def _begin(self, fault: Fault) -> None:
        self._stage.history.add(
            "nemesis",
            f"{fault.kind.text} {fault.target} {fault.seconds:.3f} {fault.flavour} {fault.number}",
        )
        if self._do[fault.kind](fault):
            self._count(fault)

    def _count(self, fault: Fault) -> None:
        self.counts[fault.kind] += 1
        if fault.kind is FaultKind.CRASH and fault.target == COORDINATOR:
            self._stage.sessions.disturbed(COORDINATOR, for_seconds=fault.seconds)
        else:
            self._obstruct(fault.target, fault.seconds)

    def _obstruct(self, host: str, seconds: float) -> None:
        """Let the oracles know that something stands in the way of a host for so long."""
        self._stage.sessions.disturbed(host, for_seconds=seconds)
        self._stage.records.obstruct(host, self._stage.loop.time() + seconds)

    def _heal(self) -> None:
        """End whatever is left of any fault."""
        self._stage.history.add("nemesis", "heals all")
        self._stage.points.disarm()
        self._armed.clear()
        self._coordinator.disk.heal()
        net = self._stage.net
        for name in list(self._cut_off):
            net.restore(name, cut=False)
        self._cut_off.clear()
        net.calm()
        for host in self._hosts().values():
            host.mend()

    # Crashes.

    def _crash(self, fault: Fault) -> bool:
        if fault.flavour in (CHILD, CHILDREN):
            return self._workers[fault.target].crash_child(every=fault.flavour == CHILDREN)
        words = fault.flavour.split()
        if words and words[0] in ("guarded", "silent"):
            words = words[1:]
        if words:
            when, kind = words[0], " ".join(words[1:])
            self._armed.setdefault((fault.target, kind, when), deque()).append(fault)
            self._stage.points.arm(fault.target, kind, when, skip=fault.number)
            # It counts when the point is reached.
            return False
        return self._fell(fault)

    def reached(self, party: Party, point: Point) -> None:
        """A party stands at its deadly point: it dies there."""
        _, kind, when = point
        fault = self._armed[party.name, kind, when].popleft()
        self._stage.history.add("nemesis", f"{party.name} dies {when} {kind}")
        if self._fell(fault):
            self._count(fault)

    def _fell(self, fault: Fault) -> bool:
        """Let a process die; False where none lived."""
        if fault.target == COORDINATOR:
            return self._coordinator.crash(fault.seconds)
        if fault.target in self._clients:
            return self._clients[fault.target].crash(fault.seconds)
        guarded = not fault.flavour.startswith("silent")
        return self._workers[fault.target].crash(fault.seconds, guarded=guarded)

    # The way.

    def _ambush(self, fault: Fault) -> bool:
        what, kind = fault.flavour.split()
        if what == "bury":
            # Of a life that was welcomed once: its guard knows a word to prove itself by.
            self._cut_off_for(fault.target, fault.number / 1000)
        self._stage.net.trap(fault.target, kind, partial(self._sprung, fault, what))
        # It counts when the frame is sent.
        return False

    def _sprung(self, fault: Fault, what: str, end: End) -> None:
        """The frame that was waited for is about to be sent."""
        stage = self._stage
        stage.history.add("nemesis", f"ambushes {fault.target}: {fault.flavour}")
        self._count(fault)
        if what in ("partition", "deafness"):
            self._part(fault.target, fault.seconds)
            if what == "deafness":
                stage.loop.later(DEAF_LEASES[0] * stage.plan.lease_seconds, self._deafen)
            return
        if what == "spool":
            self._cut_off_for(fault.target, fault.number / 1000)
            stage.net.trap(fault.target, HELLO, partial(self._unheard, fault))
            return
        if what == "vanish":
            stage.net.swallow(end)
            return
        stage.net.hold_up(end)
        strike = stage.net.break_off if what == "cut" else partial(self._kill_ambushed, fault)
        stage.loop.later(STRIKE_SECONDS, strike, end)
        if what == "bury":
            stage.loop.later(BURIED_SECONDS, stage.net.let_go, end)

    def _unheard(self, fault: Fault, end: End) -> None:
        """A hello is about to be sent: it is lost, and its sender dies."""
        later = self._stage.loop.later
        later(STRIKE_SECONDS, self._stage.net.lose, end)
        later(STRIKE_SECONDS, self._kill_ambushed, fault, end)

    def _deafen(self) -> None:
        """Freeze the coordinator, at most until all heals."""
        stage = self._stage
        left = stage.plan.heal_at - stage.loop.time()
        seconds = min(left, DEAF_LEASES[1] * stage.plan.lease_seconds)
        if seconds > 0 and self._coordinator.stall(seconds):
            self._obstruct(COORDINATOR, seconds)

    def _kill_ambushed(self, fault: Fault, end: End) -> None:
        if self._workers[fault.target].party is end.party:
            self._fell(fault)

    def _part(self, name: str, seconds: float) -> None:
        """Let nothing pass to a host or from it for so long, at most until all heals."""
        stage = self._stage
        self._obstruct(name, seconds)
        stage.net.silence(name, outward=True, inward=True, hanging=False)
        self._cut_off[name] = self._cut_off.get(name, 0) + 1
        stage.loop.later(seconds, self._rejoin, name, False)

    def _cut_off_for(self, name: str, seconds: float) -> None:
        """Cut all connections of a host, and let it open none for so long."""
        self._part(name, seconds)
        self._stage.net.cut(name)

    def _cut(self, fault: Fault) -> bool:
        return self._stage.net.cut(fault.target) > 0

    def _corrupt(self, fault: Fault) -> bool:
        return self._stage.net.corrupt(fault.target, inward=fault.flavour == "inward") > 0

    def _partition(self, fault: Fault) -> bool:
        ways, hang, end = fault.flavour.split()
        name = fault.target
        self._stage.net.silence(
            name,
            outward=ways in ("both", "from"),
            inward=ways in ("both", "to"),
            hanging=hang == "hanging",
        )
        self._cut_off[name] = self._cut_off.get(name, 0) + 1
        self._stage.loop.later(fault.seconds, self._rejoin, name, end == "cut")
        return True

    def _rejoin(self, name: str, cut: bool) -> None:
        left = self._cut_off.get(name, 0) - 1
        if left > 0:
            self._cut_off[name] = left
        elif left == 0:
            del self._cut_off[name]
            self._stage.net.restore(name, cut=cut)

    def _delay(self, fault: Fault) -> bool:
        until = self._stage.loop.time() + fault.seconds
        self._stage.net.slow_until[fault.target] = (until, fault.number / 1000)
        return True

    # Hosts.

    def _stall(self, fault: Fault) -> bool:
        if fault.target == COORDINATOR:
            return self._coordinator.stall(fault.seconds)
        host = self._workers.get(fault.target) or self._clients[fault.target]
        party = host.party
        if party is None or party.dead:
            return False
        self._stage.loop.stall(party, fault.seconds)
        return True

    def _jump(self, fault: Fault) -> bool:
        host = self._hosts()[fault.target]
        host.jump(fault.number)
        self._stage.loop.later(fault.seconds, host.mend)
        return True

    def _hosts(self) -> dict[str, HostTime]:
        hosts = {COORDINATOR: self._coordinator.time}
        hosts |= {name: worker.time for name, worker in self._workers.items()}
        return hosts | {name: client.time for name, client in self._clients.items()}

    def _store(self, fault: Fault) -> bool:
        disk, until = self._coordinator.disk, self._stage.loop.time() + fault.seconds
        if fault.flavour == "full":
            disk.full_until = max(disk.full_until, until)
        elif fault.flavour == "slow":
            disk.slow_until = max(disk.slow_until, until)
        elif fault.flavour == "unreadable":
            disk.unreadable_until = max(disk.unreadable_until, until)
        elif fault.flavour == "before":
            disk.doubts_before += fault.number
        else:
            disk.doubts_after += fault.number
        # A slow disk is a delay.
        return fault.flavour != "slow"

    def _drain(self, fault: Fault) -> bool:
        return self._workers[fault.target].drain()
