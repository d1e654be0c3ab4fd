"""A script with keys that is run again: by another process, with other hashes, and edited."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import told_by

SCRIPT = """
import functools, json, sys
from dataclasses import dataclass, field
import holdfast

CHOSEN = {"alpha", "beta", "gamma", "delta"}

@dataclass
class Settings:
    words: set = field(default_factory=lambda: {"one", "two", "three"})
    within: dict = field(default_factory=lambda: {"k": {frozenset({"a", "b", "c"}), 7}})

class Array:
    def __init__(self, data):
        self.data = data
    def __reduce__(self):
        return Array, (self.data,), {"flags": {"x", "y", "z"}}

class Model:
    def __init__(self, factor):
        self.factor, self.names = factor, {"p", "q", "r"}
    def times(self, number):
        return self.factor * number

def chosen(word):
    return word in CHOSEN

def count(*things):
    return len(things)

def closing_over(value):
    def inner(number):
        return value * number
    return inner

size = int(sys.argv[1])
calls = {
    "global": (chosen, "alpha"),
    "in set": (lambda word: word in {"a", "b", "c"}, "a"),
    "set": (len, {"a", "b", "c"}),
    "class": (count, Settings(), Settings),
    "large": (count, {"w%d" % n for n in range(20_000)}, Array(b"x" * 100_000), size),
    "array": (count, Array(b"x" * size)),
    "text twice": (count, ("alp" + "ha" * size, "alpha")),
    "closure": (closing_over(size), 3),
    "method": (Model(size).times, 3),
    "partial": (functools.partial(count, {"a", "b", "c"}, size), 3),
    "function": (count, chosen, closing_over(size)),
}
found = {}
with holdfast.connect() as hf:
    for key, (function, *arguments) in calls.items():
        try:
            future = hf.submit(function, *arguments, key=key)
            found[key] = [future.result(30), future.id]
        except holdfast.KeyConflictError as error:
            found[key] = str(error).rpartition(": ")[2]
print(json.dumps(found))
"""
EDITED = (
    SCRIPT.replace("\ndef ", "\n# It was edited.\ndef ")
    .replace("word in CHOSEN", "word.strip() in CHOSEN")
    .replace("self.factor * number", "number * self.factor")
    .replace("value * number", "number * value")
)


def run(folder: Path, source: str, *, seed: str, size: str) -> dict[str, object]:
    path = folder / "script.py"
    path.write_text(source)
    found: dict[str, object] = told_by(path, size, seed=seed, folder=folder)
    return found


def test_a_script_that_is_run_again_finds_its_tasks(folder: Path) -> None:
    first = run(folder, SCRIPT, seed="1", size="1")
    assert all(isinstance(told, list) for told in first.values()), first
    assert run(folder, SCRIPT, seed="2", size="1") == first
    assert run(folder, EDITED, seed="3", size="1") == first
    other = run(folder, SCRIPT, seed="4", size="2")
    differing = {key: told for key, told in other.items() if told != first[key]}
    assert differing == {
        "large": "payload differs",
        "array": "payload differs",
        "text twice": "payload differs",
        "closure": "code differs",
        "method": "code differs",
        "partial": "code differs",
        "function": "payload differs",
    }
