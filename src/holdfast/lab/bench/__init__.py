"""The bench: what this machine does with Holdfast, as a user has it.

Owns the figures, their goals and how they are told. A family is a function of a `Bench` that
returns named numbers; it uses the public surface alone, and what it learns of a process it reads
from `/proc`. Never a part of a running service, and never a test: a figure below its goal is a
verdict, not an error.
"""
