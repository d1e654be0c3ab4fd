"""`python -m tests.sim.tables`: write what docs/guarantees.md shows of the simulator.

The mutants are printed as they are defined, in no time. With `--seeds N --first F` that many seeds
are run, and the crash points with them are written too. `--measure` writes nothing: it looks for
the first of the seeds that shows each mutant, and says where that is not the one which is noted.

Tables of that page have no outer pipes: there, a row that begins with one is a promise.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from holdfast.lab.sim.__main__ import COMMAND, Tally
from holdfast.lab.sim.world import Verdict, run
from tests.sim.mutants import MUTANTS, Mutant

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "guarantees.md"
SEEDS = range(200)
"""Within these every mutant has to be noticed."""


def mutants() -> str:
    """Return the table of mutants."""
    lines = ["mutant | what it breaks | seen at seed", "--- | --- | ---:"]
    lines += [f"`{mutant.name}` | {mutant.breaks} | {mutant.seed}" for mutant in MUTANTS]
    return "\n".join(lines)


def crash_points(seeds: range) -> str:
    """Run seeds; return what the page says of them."""
    tally = Tally()
    for seed in seeds:
        tally.add(run(seed))
    command = f"`{COMMAND} --seeds {len(seeds)} --first {seeds.start} --markdown`:"
    return "\n".join([command, *tally.markdown()])


def first_seed(mutant: Mutant, seeds: Iterable[int] = SEEDS) -> int | None:
    """Return the first of the seeds at which the simulator notices a mutant, None for none."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.alter(patch)
        return next((seed for seed in seeds if run(seed).verdict is Verdict.INVALID), None)


def part_of(page: str, name: str) -> str:
    """Return what stands on the page between the marks of a part."""
    found = re.search(_between(name), page, re.DOTALL)
    assert found is not None, name
    return found[0]


def with_part(page: str, name: str, text: str) -> str:
    """Return the page with another text between the marks of a part."""
    changed, count = re.subn(_between(name), lambda _: text, page, flags=re.DOTALL)
    assert count == 1, name
    return changed


def _between(name: str) -> str:
    return rf"(?<=<!-- {name} -->\n\n).*?(?=\n\n<!-- /{name} -->)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page's parts, or measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--first", type=int, default=300_000)
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args(arguments)
    if options.measure:
        return _measure()
    page = PAGE.read_text(encoding="utf-8")
    page = with_part(page, "mutants", mutants())
    if options.seeds:
        told = crash_points(range(options.first, options.first + options.seeds))
        page = with_part(page, "crash points", told)
    PAGE.write_text(page, encoding="utf-8")
    return 0


def _measure() -> int:
    """Say at which seed each mutant is seen; return 1 where one is not seen at all."""
    unseen = 0
    for mutant in MUTANTS:
        seed = first_seed(mutant)
        unseen += seed is None
        noted = "" if seed == mutant.seed else f", and noted is {mutant.seed}"
        sys.stdout.write(f"{mutant.name}: {seed}{noted}\n")
        sys.stdout.flush()
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())
