"""A transaction that the store surely refused: halved until the offender stands alone.

An offender is answered with the store's error; what was beside it is decided again without it.
"""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.coordinator.facts import Ahead, Hello, Prune, Register
from holdfast.coordinator.turn import Item
from holdfast.errors import StoreRefusedError
from holdfast.model.messages import Ended, Refused, Reply, SetQueue, SetWanted, Submit, View
from holdfast.model.outcome import Failure, OutcomeKind


def parts_of(items: list[Item], error: StoreRefusedError) -> list[list[Item]]:
    """Return the parts to be decided anew, in order; none where the offender was answered.

    Raises the error where nothing that came in can be the offender.
    """
    items = [item for item in items if not isinstance(item[1], View)]
    if not items:
        raise error
    if len(items) > 1:
        middle = len(items) // 2
        return [items[:middle], items[middle:]]
    session, message = items[0]
    if isinstance(message, Submit) and len(message.specs) > 1:
        middle = len(message.specs) // 2
        halves = (message.specs[:middle], message.specs[middle:])
        return [[(session, Submit(specs, message.again))] for specs in halves]
    if isinstance(message, Ahead) and len(message.outcomes) > 1:
        middle = len(message.outcomes) // 2
        pages = (message.outcomes[:middle], message.outcomes[middle:])
        return [[(session, Ahead(message.hello, page))] for page in pages]
    if isinstance(message, Hello) and message.outcomes and not message.tried:
        ahead = Ahead(message.hello, message.outcomes)
        whole = replace(message, tried=True)
        return [[(session, ahead)], [(session, whole)]]
    return answer(items[0], error)


def answer(item: Item, error: StoreRefusedError) -> list[list[Item]]:
    """Tell an offender; return what takes its place: for an outcome, that it is invalid."""
    session, message = item
    if session is None:
        raise error
    if isinstance(message, Submit):
        session.send(Refused(message.specs[0].id, "invalid_input", str(error)))
        return []
    if isinstance(message, SetWanted | SetQueue | Register | Prune):
        session.send(Reply(message.ref, None, "invalid_input", str(error)))
        return []
    if isinstance(message, Ended) and message.kind is not OutcomeKind.INVALID:
        return [[(session, _invalid(message, error))]]
    if isinstance(message, Ahead) and message.outcomes[0].kind is not OutcomeKind.INVALID:
        return [[(session, Ahead(message.hello, (_invalid(message.outcomes[0], error),)))]]
    session.close(f"the store refuses its {type(message).__name__}")
    return []


def _invalid(outcome: Ended, error: StoreRefusedError) -> Ended:
    failure = Failure(types=("holdfast.errors.StoreRefusedError",), message=str(error))
    return Ended(outcome.task, outcome.token, OutcomeKind.INVALID, failure=failure)
