"""The base of all closed vocabularies: small integers with names."""

from __future__ import annotations

from enum import IntEnum


class Word(IntEnum):
    """An integer with a name, as quick to hash as an integer.

    The enum's own hash is that of its name, in Python code: ten times slower in the tables that
    every message passes.
    """

    __hash__ = int.__hash__

    @property
    def text(self) -> str:
        """The name as people read it: lower case."""
        return self.name.lower()
