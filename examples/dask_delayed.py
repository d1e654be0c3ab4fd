"""Dask with Holdfast below it: each node of a graph runs as a durable task.

Needs `pip install dask`. Run `python dask_delayed.py`; no server, no setup.
"""

import dask

import holdfast

LINES = ["nothing you submitted", "is lost", "whatever dies"]


@dask.delayed
def count_words(line: str) -> int:
    return len(line.split())


@dask.delayed
def total(counts: list[int]) -> int:
    return sum(counts)


with holdfast.connect() as hf:
    words = total([count_words(line) for line in LINES])
    # Dask keeps two nodes under way for each slot of the workers.
    print(words.compute(scheduler=hf.executor()), "words")
