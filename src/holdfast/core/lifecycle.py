"""The life of a task: the rules, the tables, and little code that applies them.

Rules
-----
A task is `queued`, `running` or `paused` until it is `succeeded`, `failed` or `cancelled`; the
last three never change. A task is running exactly while its newest lease is *held*.

A lease is the right to write for one attempt. Its token is fresh at every claim, and only the
newest token of a task writes, only while it is not *spent*, and only while the task is not
terminal. Time alone never ends a lease: silence, death and lost orders make it *lapse*, which
puts the task back, but the token stays the newest until somebody else claims; so a worker that
comes back in time goes on, or delivers, under the same token.

What surely did not run is free. What may have run is charged once. The charge of a lapse falls at
the next claim and not before, because until then the lease may come back.

Each way to fail has its own budget. The event after the last one allowed ends the task.

"Back" below means: queued where the user wants it to run, paused where the user wants a pause,
cancelled where the user wants it cancelled. Every terminal state spends the newest token in the
same write.

The tables say what happens; `core.lease` applies them. An event for which a table has no row is a
bug of ours and raises `IllegalTransitionError`, with the task's life in its text, and changes
nothing.
"""

from __future__ import annotations

from holdfast.model.outcome import Answer, OutcomeKind, Reason
from holdfast.model.task import Owed, State, Wanted
from holdfast.model.words import Word


class Standing(Word):
    """How a token stands to a task, when a worker writes with it."""

    ASSIGNED = 1
    STARTED = 2
    LAPSED = 3
    SPENT = 4
    OLDER = 5


class Write(Word):
    """What a worker writes with its token."""

    STARTED = 1
    NAMED_ASSIGNED = 2
    OUTCOME = 3
    SAVE = 4


class Judgement(Word):
    """What is judged of a lease without a word from it."""

    SILENCE = 1
    """Longer than the lease, or a death that no guard told of."""
    DEATH = 2
    """The guard told of the death and did not name this token."""
    DEATH_STARTED = 3
    """The guard told of the death and named this token as started."""
    DEATH_SPOOLED = 4
    """The guard told of the death and named this token's outcome as spooled."""
    UNNAMED = 5
    """A hello did not name it."""


class Wish(Word):
    """What a person, or a deadline, wishes of a task."""

    RESUME = 0
    PAUSE = 1
    CANCEL = 2
    EXPIRE = 3


class Said(Word):
    """What the wisher is answered."""

    DONE = 1
    ASKED = 2
    FINISHED = 3
    BEING_CANCELLED = 4


class Move(Word):
    """What becomes of the row."""

    NOTHING = 0
    START = 1
    REVIVE = 2
    RECHARGE = 3
    END = 4
    SAVE = 5
    LAPSE = 6
    WAIT = 7
    QUEUE = 8
    PAUSE = 9
    CANCEL = 10
    FAIL = 11
    SUCCEED = 12
    ASK_RUN = 13
    ASK_PAUSE = 14
    ASK_CANCEL = 15
    BACK = 16


class Charge(Word):
    """Which budget an outcome is charged to."""

    NOTHING = 0
    RETRY = 1
    CRASH = 2
    OUT_OF_MEMORY = 3
    ENVIRONMENT = 4
    FREE = 5
    LOSS = 6
    CHECKPOINT = 7


WRITES = {
    # A worker reports that the attempt was handed to a child.
    (Write.STARTED, Standing.ASSIGNED): (Move.START, Answer.KEEP),
    (Write.STARTED, Standing.STARTED): (Move.NOTHING, Answer.KEEP),
    (Write.STARTED, Standing.LAPSED): (Move.REVIVE, Answer.KEEP),
    (Write.STARTED, Standing.SPENT): (Move.NOTHING, Answer.STOP),
    (Write.STARTED, Standing.OLDER): (Move.RECHARGE, Answer.STOP),
    # A hello names a lease that has not started.
    (Write.NAMED_ASSIGNED, Standing.ASSIGNED): (Move.NOTHING, Answer.KEEP),
    (Write.NAMED_ASSIGNED, Standing.STARTED): (Move.NOTHING, Answer.KEEP),
    (Write.NAMED_ASSIGNED, Standing.LAPSED): (Move.REVIVE, Answer.KEEP),
    (Write.NAMED_ASSIGNED, Standing.SPENT): (Move.NOTHING, Answer.STOP),
    (Write.NAMED_ASSIGNED, Standing.OLDER): (Move.NOTHING, Answer.STOP),
    # An attempt ended; the table of outcomes says how the task goes on.
    (Write.OUTCOME, Standing.ASSIGNED): (Move.END, Answer.SETTLED),
    (Write.OUTCOME, Standing.STARTED): (Move.END, Answer.SETTLED),
    (Write.OUTCOME, Standing.LAPSED): (Move.END, Answer.SETTLED),
    (Write.OUTCOME, Standing.SPENT): (Move.NOTHING, Answer.SETTLED),
    (Write.OUTCOME, Standing.OLDER): (Move.NOTHING, Answer.SUPERSEDED),
    # A checkpoint or a step, ordered by (fence, number).
    (Write.SAVE, Standing.ASSIGNED): (Move.SAVE, Answer.COMMITTED),
    (Write.SAVE, Standing.STARTED): (Move.SAVE, Answer.COMMITTED),
    (Write.SAVE, Standing.LAPSED): (Move.SAVE, Answer.COMMITTED),
    (Write.SAVE, Standing.SPENT): (Move.NOTHING, Answer.SUPERSEDED),
    (Write.SAVE, Standing.OLDER): (Move.NOTHING, Answer.SUPERSEDED),
}

OUTCOMES = {
    # outcome: (wanted=run, wanted=pause, wanted=cancel), charge, reason where its budget is over
    OutcomeKind.SUCCEEDED: (
        (Move.SUCCEED, Move.SUCCEED, Move.SUCCEED),
        Charge.NOTHING,
        Reason.NONE,
    ),
    OutcomeKind.RAISED: ((Move.BACK, Move.BACK, Move.CANCEL), Charge.RETRY, Reason.ERROR),
    OutcomeKind.TIMED_OUT: ((Move.BACK, Move.BACK, Move.CANCEL), Charge.RETRY, Reason.TIMEOUT),
    OutcomeKind.CRASHED: ((Move.BACK, Move.BACK, Move.CANCEL), Charge.CRASH, Reason.CRASHED),
    OutcomeKind.OUT_OF_MEMORY: (
        (Move.BACK, Move.BACK, Move.CANCEL),
        Charge.OUT_OF_MEMORY,
        Reason.OUT_OF_MEMORY,
    ),
    OutcomeKind.ENVIRONMENT: (
        (Move.BACK, Move.BACK, Move.CANCEL),
        Charge.ENVIRONMENT,
        Reason.ENVIRONMENT,
    ),
    # Handing back is what a pause asks for: `PAUSE` charges nothing.
    OutcomeKind.RETURNED: ((Move.BACK, Move.PAUSE, Move.CANCEL), Charge.FREE, Reason.LOST),
    OutcomeKind.STOPPED: ((Move.BACK, Move.PAUSE, Move.CANCEL), Charge.LOSS, Reason.LOST),
    OutcomeKind.CHECKPOINTED: (
        (Move.BACK, Move.PAUSE, Move.CANCEL),
        Charge.CHECKPOINT,
        Reason.CRASHED,
    ),
    OutcomeKind.INVALID: ((Move.FAIL, Move.FAIL, Move.CANCEL), Charge.NOTHING, Reason.INVALID),
}

JUDGEMENTS = {
    # (judgement, standing): (move, what the next claim owes)
    (Judgement.SILENCE, Standing.ASSIGNED): (Move.LAPSE, Owed.UNHEARD),
    (Judgement.SILENCE, Standing.STARTED): (Move.LAPSE, Owed.LOSS),
    (Judgement.SILENCE, Standing.LAPSED): (Move.NOTHING, Owed.NOTHING),
    (Judgement.DEATH, Standing.ASSIGNED): (Move.LAPSE, Owed.FREE),
    (Judgement.DEATH, Standing.STARTED): (Move.LAPSE, Owed.LOSS),
    (Judgement.DEATH, Standing.LAPSED): (Move.NOTHING, Owed.NOTHING),
    (Judgement.DEATH_STARTED, Standing.ASSIGNED): (Move.LAPSE, Owed.LOSS),
    (Judgement.DEATH_STARTED, Standing.STARTED): (Move.LAPSE, Owed.LOSS),
    (Judgement.DEATH_STARTED, Standing.LAPSED): (Move.LAPSE, Owed.LOSS),
    (Judgement.DEATH_STARTED, Standing.OLDER): (Move.RECHARGE, Owed.NOTHING),
    (Judgement.DEATH_SPOOLED, Standing.ASSIGNED): (Move.WAIT, Owed.NOTHING),
    (Judgement.DEATH_SPOOLED, Standing.STARTED): (Move.WAIT, Owed.NOTHING),
    (Judgement.DEATH_SPOOLED, Standing.LAPSED): (Move.NOTHING, Owed.NOTHING),
    (Judgement.UNNAMED, Standing.ASSIGNED): (Move.LAPSE, Owed.FREE),
    (Judgement.UNNAMED, Standing.STARTED): (Move.LAPSE, Owed.LOSS),
    (Judgement.UNNAMED, Standing.LAPSED): (Move.NOTHING, Owed.NOTHING),
}

WISHES = {
    # (wish, state, wanted): (move, answer); terminal states are answered FINISHED before.
    (Wish.CANCEL, State.QUEUED, Wanted.RUN): (Move.CANCEL, Said.DONE),
    (Wish.CANCEL, State.PAUSED, Wanted.PAUSE): (Move.CANCEL, Said.DONE),
    (Wish.CANCEL, State.RUNNING, Wanted.RUN): (Move.ASK_CANCEL, Said.ASKED),
    (Wish.CANCEL, State.RUNNING, Wanted.PAUSE): (Move.ASK_CANCEL, Said.ASKED),
    (Wish.CANCEL, State.RUNNING, Wanted.CANCEL): (Move.NOTHING, Said.ASKED),
    (Wish.PAUSE, State.QUEUED, Wanted.RUN): (Move.PAUSE, Said.DONE),
    (Wish.PAUSE, State.PAUSED, Wanted.PAUSE): (Move.NOTHING, Said.DONE),
    (Wish.PAUSE, State.RUNNING, Wanted.RUN): (Move.ASK_PAUSE, Said.ASKED),
    (Wish.PAUSE, State.RUNNING, Wanted.PAUSE): (Move.NOTHING, Said.ASKED),
    (Wish.PAUSE, State.RUNNING, Wanted.CANCEL): (Move.NOTHING, Said.BEING_CANCELLED),
    (Wish.RESUME, State.QUEUED, Wanted.RUN): (Move.NOTHING, Said.DONE),
    (Wish.RESUME, State.PAUSED, Wanted.PAUSE): (Move.QUEUE, Said.DONE),
    (Wish.RESUME, State.RUNNING, Wanted.RUN): (Move.NOTHING, Said.DONE),
    (Wish.RESUME, State.RUNNING, Wanted.PAUSE): (Move.ASK_RUN, Said.DONE),
    (Wish.RESUME, State.RUNNING, Wanted.CANCEL): (Move.NOTHING, Said.BEING_CANCELLED),
    (Wish.EXPIRE, State.QUEUED, Wanted.RUN): (Move.FAIL, Said.DONE),
    (Wish.EXPIRE, State.PAUSED, Wanted.PAUSE): (Move.FAIL, Said.DONE),
    (Wish.EXPIRE, State.RUNNING, Wanted.RUN): (Move.ASK_CANCEL, Said.ASKED),
    (Wish.EXPIRE, State.RUNNING, Wanted.PAUSE): (Move.ASK_CANCEL, Said.ASKED),
    (Wish.EXPIRE, State.RUNNING, Wanted.CANCEL): (Move.NOTHING, Said.ASKED),
}
