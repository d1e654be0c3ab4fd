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


def swallow(**anything: Any) -> dict[str, Any]:
    return anything
