"""The tree of exceptions. Each says whether what was asked surely did not happen.

HoldfastError
├── DefiniteError                it surely did not happen
│   ├── InvalidInputError        what was given cannot be: the message names it and the mend
│   │   └── NotSerializableError an argument, a function or a result does not serialise
│   ├── KeyConflictError         the id or key is known with other contents
│   ├── UnknownTaskError         no task has this id, or no single one this prefix
│   │   └── PrunedTaskError      it had ended, and was removed
│   ├── RefusedError             the coordinator refused; `code` says why
│   │   └── OverloadedError      a bound is reached; try again after `retry_after_seconds`
│   ├── ProtocolError            a frame or a message that cannot be
│   ├── IllegalTransitionError   our own bug: an event where the table has no row
│   ├── ConfigurationError       a setting cannot be; the message names it
│   ├── NoCoordinatorError       nobody answers at the URL, or none could be started
│   ├── StoreRefusedError        the store refused a transaction; nothing was written
│   ├── StoreFullError           no room; nothing was written
│   ├── StoreVersionError        the state directory is from a newer release
│   ├── BlobMissingError, BlobTooLargeError, BlobCorruptError
├── IndefiniteError              it may have happened
│   ├── StoreDoubtError          a commit broke off; the turn's number will tell
│   ├── StoreCorruptError        the database is damaged; its coordinator ends
│   ├── StoreGoneError           the store's files were removed or replaced while it was open
│   ├── ChannelClosedError       the conversation broke; unanswered messages are unknown
│   └── ConnectionLostError      the client was cut off and gave up waiting
├── ResultUnreadableError        the task succeeded; what it returned cannot be loaded here
├── EngineLostError              a worker cannot keep the processes that run its tasks
└── TaskError                    the task itself ended so; raised by `future.result()`
    ├── TaskFailedError          `failed`: carries reason, types and traceback
    ├── TaskCancelledError       `cancelled`
"""

from __future__ import annotations


class HoldfastError(Exception):
    """Base of all errors of Holdfast."""


class DefiniteError(HoldfastError):
    """What was asked surely did not happen."""


class IndefiniteError(HoldfastError):
    """What was asked may have happened."""


class InvalidInputError(DefiniteError, ValueError):
    """What was given cannot be; the message names it and the mend."""


class NotSerializableError(InvalidInputError, TypeError):
    """An argument, a function or a result does not serialise; the message names which part."""


class KeyConflictError(DefiniteError):
    """The id or the key is known with other contents; the message says what differs."""


class UnknownTaskError(DefiniteError, LookupError):
    """No task has this id, or no single one begins with this prefix."""


class PrunedTaskError(UnknownTaskError):
    """The task had ended, and was removed since; its id is remembered for a while."""


class RefusedError(DefiniteError):
    """The coordinator refused. `code` is stable and made for programs."""

    def __init__(self, text: str, *, code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


class OverloadedError(RefusedError):
    """A bound is reached; nothing is wrong with the task. Try again later."""

    def __init__(self, text: str, *, retry_after_seconds: float, code: str = "overloaded") -> None:
        super().__init__(text, code=code)
        self.retry_after_seconds = retry_after_seconds


class ProtocolError(DefiniteError):
    """A frame or a message that cannot be; the session is closed and counted."""


class IllegalTransitionError(DefiniteError):
    """An event where the lifecycle has no row: a bug of ours. It changes nothing."""


class ConfigurationError(DefiniteError, ValueError):
    """A setting cannot be; the message names the setting and the mend."""


class NoCoordinatorError(DefiniteError, ConnectionError):
    """Nobody answers at the URL, or an embedded coordinator could not be started."""


class StoreRefusedError(DefiniteError):
    """The store refused the transaction; nothing of it was written."""


class StoreFullError(DefiniteError):
    """There is no room; nothing was written."""


class StoreVersionError(DefiniteError):
    """The state was written by a newer release than this one."""


class BlobMissingError(DefiniteError, LookupError):
    """No blob has this digest."""


class BlobTooLargeError(DefiniteError):
    """The payload is above the limit that the message names."""


class BlobCorruptError(DefiniteError):
    """A blob's bytes do not have its digest."""


class StoreDoubtError(IndefiniteError):
    """A commit broke off: only the reopened store knows whether it happened."""


class StoreCorruptError(IndefiniteError):
    """The database is damaged, and stays so: nothing more is accepted from it."""


class StoreGoneError(IndefiniteError):
    """A file of the store was removed, replaced or cut while it was open; the message names it."""


class ChannelClosedError(IndefiniteError, ConnectionError):
    """The conversation broke; what was not answered may have been read."""


class ConnectionLostError(IndefiniteError, ConnectionError):
    """The client was cut off and gave up waiting; the tasks go on."""


class ResultUnreadableError(HoldfastError):
    """The task succeeded, but what it returned cannot be loaded here; the cause says why."""


class EngineLostError(HoldfastError):
    """What runs a worker's tasks ended again and again before it ran any; the worker has left."""


class TaskError(HoldfastError):
    """The task itself ended so; raised where its result is asked."""


class TaskFailedError(TaskError):
    """The task is `failed`. `reason` is the lower-case word of the reason.

    Raised where the task's own exception cannot be raised instead.
    """

    def __init__(self, text: str, *, reason: str = "error", traceback: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.traceback = traceback


class TaskCancelledError(TaskError):
    """The task is `cancelled`."""


def error_of(code: str, text: str) -> HoldfastError:
    """Return the exception that a coordinator's code stands for."""
    if code == "unknown_task":
        return UnknownTaskError(text)
    if code == "pruned":
        return PrunedTaskError(text)
    if code == "key_conflict":
        return KeyConflictError(text)
    if code == "invalid_input":
        return InvalidInputError(text)
    return RefusedError(text, code=code)
