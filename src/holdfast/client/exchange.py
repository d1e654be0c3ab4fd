"""Questions and wishes, and their answers by number.

Used on the loop's thread, but for `Answer`, which any thread may wait for; `heard` awaits it on the
loop. All of them may be said twice, so that after a reconnect what was not answered is said again.
Owns the bound on questions that a coordinator answers at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future as StandardFuture
from typing import Any

from holdfast.core.wire import size_of
from holdfast.errors import InvalidInputError, OverloadedError, error_of
from holdfast.model.messages import Ask, Message, Reply, SetWanted

OPEN_MAX = 20_000
ASKED_MAX = 8
"""A coordinator closes a session that asks more than 16 at once."""

Answer = StandardFuture[Any]
Make = Callable[[int], Ask | SetWanted]
QUESTION_BYTES_MAX = 64 * 1024
_RETRY_AFTER_SECONDS = 1.0


def check_question(question: str, parameters: dict[str, Any]) -> None:
    """Raise InvalidInputError for what no frame can carry, before it is in anybody's way."""
    try:
        size = size_of(Ask(0, question, parameters))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"the parameters of {question!r} cannot travel: {error}") from None
    if size > QUESTION_BYTES_MAX:
        raise InvalidInputError(f"the parameters of {question!r} have {size} bytes")


async def heard(answer: Answer) -> Any:
    """Await an answer on the loop that gives it, and return it or raise its error.

    Who stops waiting leaves the answer alone: it comes, and nobody hears it.
    """
    if not answer.done():
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: None if told.done() else told.set_result(None))
        await told
    return answer.result()


class Exchange:
    """What was asked and not answered."""

    def __init__(self, out: deque[Message]) -> None:
        self._out = out
        self._ref = 0
        self._open: dict[int, tuple[Ask | SetWanted, Answer]] = {}
        self._queue: deque[int] = deque()
        self._asked = 0

    @property
    def idle(self) -> bool:
        """Whether everything is answered."""
        return not self._open

    def begin(self, make: Make, answer: Answer, *, counted: bool = True) -> None:
        """Say what `make` returns for a number; the reply, or its error, ends `answer`.

        At the bound `answer` gets OverloadedError; not where it is not `counted`, for one who
        bounds by himself how much he says.
        """
        if counted and len(self._open) >= OPEN_MAX:
            text = f"{OPEN_MAX} questions are not answered yet"
            answer.set_exception(OverloadedError(text, retry_after_seconds=_RETRY_AFTER_SECONDS))
            return
        self._ref += 1
        message = make(self._ref)
        self._open[self._ref] = (message, answer)
        self._say(message)

    def reply(self, message: Reply) -> None:
        """Take an answer."""
        found = self._open.pop(message.ref, None)
        if found is None:
            return
        asked, answer = found
        if isinstance(asked, Ask):
            self._asked -= 1
            self._say_next()
        if message.code:
            answer.set_exception(error_of(message.code, message.text))
        else:
            answer.set_result(message.data)

    def say_again(self) -> None:
        """A new session: nothing that is open was said on it."""
        self._asked = 0
        self._queue.clear()
        for message, _ in self._open.values():
            self._say(message)

    def fail_all(self, error: BaseException) -> None:
        """End everything that is open with an error."""
        for _, answer in self._drain():
            answer.set_exception(error)

    def _drain(self) -> Iterator[tuple[Ask | SetWanted, Answer]]:
        while self._open:
            yield self._open.pop(next(iter(self._open)))

    def _say(self, message: Ask | SetWanted) -> None:
        if isinstance(message, SetWanted):
            self._out.append(message)
        else:
            self._queue.append(message.ref)
            self._say_next()

    def _say_next(self) -> None:
        while self._queue and self._asked < ASKED_MAX:
            found = self._open.get(self._queue.popleft())
            if found is not None:
                self._asked += 1
                self._out.append(found[0])
