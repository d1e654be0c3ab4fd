"""All mutants: product code altered by one rule each, which the simulator must notice."""

from __future__ import annotations

from tests.sim.mutants.charges import CHARGES
from tests.sim.mutants.leases import LEASES
from tests.sim.mutants.mutant import Mutant
from tests.sim.mutants.sessions import SESSIONS
from tests.sim.mutants.turns import TURNS
from tests.sim.mutants.workers import WORKERS

MUTANTS: tuple[Mutant, ...] = (*TURNS, *LEASES, *CHARGES, *SESSIONS, *WORKERS)
