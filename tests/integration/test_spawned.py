"""A script that submits from processes which `multiprocessing` spawned, as `__mp_main__`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import told_by

SCRIPT = """
import functools, json, multiprocessing, sys
from dataclasses import dataclass
import holdfast

FACTOR = 3

@dataclass
class Point:
    x: int

    class Inner:
        pass

    def times(self, number):
        return Point(self.x * number)

class BoomError(Exception):
    pass

def triple(number):
    return helped(number)

def helped(number):
    return FACTOR * number

@holdfast.task
def decorated(number):
    return triple(number) + 1

def boom(point):
    raise BoomError(point.x)

def group(point):
    raise ExceptionGroup("both", [BoomError(point.x), ValueError("plain")])

def closing_over(function, value):
    def inner(number):
        return function(number) + value
    return inner

def name_of(kind):
    return kind.__name__

def answers(hf):
    calls = {
        "triple": (triple, 2),
        "closure": (closing_over(triple, 1), 2),
        "lambda": (lambda number: helped(number), 2),
        "partial": (functools.partial(max, triple, key=name_of), name_of),
        "method": (Point(2).times, 3),
        "class": (name_of, Point.Inner),
        "decorated": (decorated, 2),
    }
    found = {}
    for key, call in calls.items():
        future = hf.submit(*call, key=key)
        value = future.result(30)
        # What another process of the script submitted has a class of its own.
        found[key] = [future.id, getattr(value, "__name__", getattr(value, "x", value))]
    for function in (boom, group):
        future = hf.submit(function, Point(7))
        error = future.exception(30)
        for each in getattr(error, "exceptions", [error]):
            if isinstance(each, BoomError):
                found[function.__name__] = str(each)
        found["type of " + function.__name__] = hf.status(future.id)["error_type"]
    return found

def child(queue):
    with holdfast.connect() as hf:
        queue.put([__name__, answers(hf)])

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    name, spawned = queue.get()
    process.join()
    with holdfast.connect() as hf:
        print(json.dumps([name, spawned, answers(hf)]))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_the_script_defines_travels_by_value(folder: Path, method: str) -> None:
    (folder / "script.py").write_text(SCRIPT)
    name, spawned, own = told_by(folder / "script.py", method, seed="1", folder=folder)
    assert name == "__mp_main__"
    values = {key: told[1] for key, told in spawned.items() if isinstance(told, list)}
    assert values == {
        "triple": 6,
        "closure": 7,
        "lambda": 6,
        "partial": "triple",
        "method": 6,
        "class": "Inner",
        "decorated": 7,
    }
    assert (spawned["boom"], spawned["group"]) == ("7", "7")
    assert spawned["type of boom"] == "__main__.BoomError"
    assert spawned == own, "a key finds the task of the same script, whatever that is called"
