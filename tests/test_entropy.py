"""Chance in bulk: as many bytes as asked for, never the same ones twice."""

from __future__ import annotations

from holdfast.entropy import BulkEntropy


def test_bytes_are_drawn_once() -> None:
    entropy = BulkEntropy()
    drawn = [entropy.randbytes(16) for _ in range(2_000)]
    assert {len(each) for each in drawn} == {16}
    assert len(set(drawn)) == len(drawn)


def test_more_than_the_pool_holds_comes_whole() -> None:
    entropy = BulkEntropy()
    assert len(entropy.randbytes(10_000)) == 10_000
    assert len(entropy.randbytes(3)) == 3


def test_numbers_fill_the_span_below_one() -> None:
    entropy = BulkEntropy()
    numbers = [entropy.random() for _ in range(2_000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert min(numbers) < 0.05
    assert max(numbers) > 0.95
