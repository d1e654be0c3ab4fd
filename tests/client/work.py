"""Functions that tests submit: importable by name, as a worker would import them."""

from __future__ import annotations

from typing import Any

from holdfast import task


@task
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@task(queue="bulk", tags=["gpu", "big"], priority=7)
def labelled(number: int, key: str = "") -> str:
    return f"{number}{key}"


@task
async def later(number: int) -> int:
    return number + 1


class Refusal(Exception):
    """An exception of the user's own."""


def fail(text: str) -> None:
    raise Refusal(text)


def total(*numbers: int) -> int:
    return sum(numbers)


def size(data: bytes) -> int:
    return len(data)


def zeros(count: int) -> bytes:
    return bytes(count)


def swallow_one(anything: Any) -> Any:
    return anything


def swallow(**anything: Any) -> dict[str, Any]:
    return anything


class Scale:
    """Has tasks for methods."""

    factor = 3

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @task(queue="bulk")
    def times(self, number: int) -> int:
        return self.factor * number

    @task
    async def times_later(self, number: int) -> int:
        return self.factor * number

    @classmethod
    @task
    def usual(cls, number: int) -> int:
        return cls.factor * number

    @staticmethod
    @task
    def plain(number: int) -> int:
        return number
