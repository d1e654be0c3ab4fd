"""What all inhabitants of one run share: its loop, network, witness, records and history."""

from __future__ import annotations

import random

from holdfast.lab.sim.coverage import CrashPoints
from holdfast.lab.sim.history import History
from holdfast.lab.sim.loop import SimLoop
from holdfast.lab.sim.network import Network
from holdfast.lab.sim.plan import Plan, stream
from holdfast.lab.sim.records import Records
from holdfast.lab.sim.sessions import Sessions
from holdfast.lab.sim.witness import Witness


class Stage:
    """The common ground of one run. `over` once nothing is to be started any more."""

    __slots__ = (
        "history",
        "loop",
        "net",
        "over",
        "plan",
        "points",
        "records",
        "sessions",
        "witness",
    )

    def __init__(
        self,
        plan: Plan,
        loop: SimLoop,
        net: Network,
        points: CrashPoints,
        *,
        history: History,
        records: Records,
        sessions: Sessions,
        witness: Witness,
    ) -> None:
        self.plan = plan
        self.loop = loop
        self.net = net
        self.points = points
        self.history = history
        self.records = records
        self.sessions = sessions
        self.witness = witness
        self.over = False

    def stream(self, name: str) -> random.Random:
        """Return a stream of chance of its own for one inhabitant."""
        return stream(self.plan.seed, name)
