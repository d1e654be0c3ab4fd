"""What a mutant is: one rule of the product altered, and a seed that is known to show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

Alter = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One alteration of product code. Its docstring says which rule it breaks, first line first.

    `seed` showed it when that was last measured (`python -m tests.sim.tables`); it is where a test
    looks first, and never what the test relies on. `calm`: while nothing goes wrong in the world,
    nothing shows: it takes a fault to bring it out.
    """

    alter: Alter
    seed: int
    calm: bool = True

    @property
    def name(self) -> str:
        """The name it bears in tests and documents."""
        return self.alter.__name__

    @property
    def breaks(self) -> str:
        """The rule it breaks, in one line."""
        assert self.alter.__doc__, self.name
        return self.alter.__doc__.strip().splitlines()[0]
