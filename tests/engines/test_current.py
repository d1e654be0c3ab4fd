from __future__ import annotations

import pytest

from holdfast.engines.current import Current, TaskCancelled, current, enter, leave
from holdfast.errors import InvalidInputError
from holdfast.model.ids import TaskId, id_text


def test_the_current_attempt_is_that_of_the_context() -> None:
    attempt = Current(TaskId(bytes(range(16))), 3, "m:f")
    token = enter(attempt)
    try:
        assert current() is attempt
        assert current().id == id_text(attempt.task)
        assert current().id in repr(current())
    finally:
        leave(token)
    with pytest.raises(InvalidInputError):
        current()


def test_a_cancellation_passes_an_except_exception() -> None:
    assert not issubclass(TaskCancelled, Exception)
