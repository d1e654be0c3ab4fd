"""What an event does to one task: the tables of `core.lifecycle`, applied.

Every function takes a `Life` and returns a new one (the same object where nothing changes). It
never reads a clock, and never looks at more than one task. A store repeats the check of the token
in the writing statement; here it decides, there it binds.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from holdfast.core.lifecycle import (
    JUDGEMENTS,
    OUTCOMES,
    WISHES,
    WRITES,
    Charge,
    Judgement,
    Move,
    Said,
    Standing,
    Wish,
    Write,
)
from holdfast.errors import IllegalTransitionError
from holdfast.model.ids import Token
from holdfast.model.limits import (
    AVOIDED_MAX,
    CRASHES_MAX,
    ENVIRONMENT_MAX,
    FREE_RETURNS_MAX,
    LOSSES_MAX,
    OUT_OF_MEMORY_MAX,
    UNHEARD_MAX,
)
from holdfast.model.outcome import Answer, Failure, OutcomeKind, Payload, Reason
from holdfast.model.task import TERMINAL_MIN, Charges, Lease, Life, Owed, Phase, State, Wanted


class Step(msgspec.Struct, frozen=True, gc=False):
    """What an event does: the life after it, and the answer. `counted`: a superseded write."""

    life: Life
    answer: Answer = Answer.KEEP
    counted: bool = False


def standing(life: Life, token: bytes) -> Standing:
    """Return how a token stands to a task. A token that is not the newest one is `OLDER`."""
    if token != life.token:
        return Standing.OLDER
    if life.lease is Lease.HELD:
        return Standing.STARTED if life.phase is Phase.STARTED else Standing.ASSIGNED
    return Standing.LAPSED if life.lease is Lease.LAPSED else Standing.SPENT


def claim(
    life: Life, *, token: Token, worker: str, incarnation: int, epoch: int, now_ms: int
) -> Step:
    """Give a queued task to a worker; the former lease's charge falls now.

    Returns the life `running`, or `failed` with reason `lost` where that charge is over its
    budget. Raises IllegalTransitionError on a task that cannot be claimed.
    """
    if life.state is not State.QUEUED or life.wanted is not Wanted.RUN:
        raise _illegal("claim", life)
    if life.lease is Lease.LAPSED:
        charged = _charge_lapse(life)
        if charged.used.losses > LOSSES_MAX:
            return Step(_fail(replace(life, used=charged.used), Reason.LOST, now_ms))
        life = charged
    return Step(
        replace(
            life,
            version=life.version + 1,
            state=State.RUNNING,
            due_ms=0,
            fence=life.fence + 1,
            token=token,
            lease=Lease.HELD,
            phase=Phase.ASSIGNED,
            owed=Owed.NOTHING,
            worker=worker,
            incarnation=incarnation,
            epoch=epoch,
            claimed_ms=now_ms,
            started_ms=0,
            ended_ms=0,
            saved_number=0,
            saved_digest=b"",
        )
    )


def started(life: Life, token: bytes, *, now_ms: int) -> Step:
    """A worker handed the attempt to a child: it may have run from here on."""
    move, answer = WRITES[Write.STARTED, standing(life, token)]
    return Step(_write(life, token, move, Phase.STARTED, now_ms), answer)


def named_assigned(life: Life, token: bytes, *, now_ms: int) -> Step:
    """A hello names a lease that it has not started."""
    move, answer = WRITES[Write.NAMED_ASSIGNED, standing(life, token)]
    return Step(_write(life, token, move, Phase.ASSIGNED, now_ms), answer)


def ended(
    life: Life,
    token: bytes,
    kind: OutcomeKind,
    *,
    now_ms: int,
    result: Payload | None = None,
    failure: Failure | None = None,
    again_ms: int | None = None,
    avoid_until_ms: int = 0,
) -> Step:
    """The outcome of an attempt.

    `again_ms` is when the retry policy lets a raised or timed-out task run again, None where it
    does not; `avoid_until_ms` keeps an environment failure off this worker until then.
    """
    move, answer = WRITES[Write.OUTCOME, standing(life, token)]
    if move is Move.NOTHING:
        return Step(life, answer, counted=answer is Answer.SUPERSEDED)
    moves, charge, reason = OUTCOMES[kind]
    move = moves[life.wanted]
    if move is Move.SUCCEED:
        return Step(_finish(life, State.SUCCEEDED, now_ms, result=result), answer)
    if move is Move.PAUSE:
        charge = Charge.NOTHING
    used, over = _charge_outcome(life, charge)
    if charge is Charge.RETRY and life.wanted is not Wanted.CANCEL and again_ms is None:
        over = True
    if over and move is Move.BACK:
        move = Move.FAIL
    life = replace(
        life,
        used=used,
        crash_mark=life.mark if _is_crash(life, charge) else life.crash_mark,
    )
    if move is Move.FAIL:
        return Step(_fail(life, reason, now_ms, failure=failure), answer)
    if move is Move.CANCEL:
        return Step(_finish(life, State.CANCELLED, now_ms, reason=life.reason), answer)
    return Step(
        replace(
            life,
            version=life.version + 1,
            state=State.PAUSED if life.wanted is Wanted.PAUSE else State.QUEUED,
            lease=Lease.SPENT,
            phase=Phase.ENDED,
            owed=Owed.NOTHING,
            ended_ms=now_ms,
            due_ms=again_ms or 0 if charge is Charge.RETRY else 0,
            avoid=_avoiding(life, now_ms) if avoid_until_ms else life.avoid,
            avoid_until_ms=avoid_until_ms or life.avoid_until_ms,
            failure=failure if failure is not None else life.failure,
        ),
        answer,
    )


def avoided(life: Life, now_ms: int) -> list[str]:
    """Return the workers that lately could not run a task, the last one last."""
    return life.avoid.split() if life.avoid_until_ms > now_ms else []


def _avoiding(life: Life, now_ms: int) -> str:
    names = [name for name in avoided(life, now_ms) if name != life.worker]
    return " ".join([*names, life.worker][-AVOIDED_MAX:])


def saved(life: Life, token: bytes, number: int, digest: bytes) -> Step:
    """A checkpoint or a step under this token; order is (fence, number).

    Answers `COMMITTED` for a repetition with the same digest and `STOP` for one with another: an
    attempt that contradicts itself must not go on.
    """
    move, answer = WRITES[Write.SAVE, standing(life, token)]
    if move is Move.NOTHING:
        return Step(life, answer, counted=True)
    if number > life.saved_number:
        grown = replace(
            life,
            version=life.version + 1,
            saved_number=number,
            saved_digest=digest,
            mark=(life.fence << 32) | number,
        )
        return Step(grown, answer)
    if number == life.saved_number and digest != life.saved_digest:
        return Step(life, Answer.STOP)
    return Step(life, answer)


def judged(life: Life, token: bytes, judgement: Judgement, *, now_ms: int) -> Step:
    """Silence, death, or a hello that does not name the lease.

    A lease whose task is terminal, or whose token is spent or older, is none of its business.
    """
    row = JUDGEMENTS.get((judgement, standing(life, token)))
    if row is None or life.state >= TERMINAL_MIN:
        return Step(life)
    move, owed = row
    if move is Move.LAPSE and owed > life.owed:
        return Step(_lapse(life, owed, judgement, now_ms))
    return Step(_write(life, token, move, Phase.STARTED, now_ms))


def wished(life: Life, wish: Wish, *, now_ms: int) -> tuple[Life, Said]:
    """A person cancels, pauses or resumes, or a deadline passes."""
    if life.state >= TERMINAL_MIN:
        return life, Said.FINISHED
    row = WISHES.get((wish, life.state, life.wanted))
    if row is None:
        raise _illegal(wish.text, life)
    move, said = row
    if move is Move.NOTHING:
        return life, said
    version, number = life.version + 1, life.wish + 1
    if move is Move.CANCEL:
        life = replace(life, wanted=Wanted.CANCEL, wish=number)
        return _finish(life, State.CANCELLED, now_ms), said
    if move is Move.FAIL:
        return _fail(replace(life, wish=number), Reason.EXPIRED, now_ms), said
    if move is Move.QUEUE:
        life = replace(life, version=version, state=State.QUEUED, wanted=Wanted.RUN, wish=number)
    elif move is Move.PAUSE:
        life = replace(life, version=version, state=State.PAUSED, wanted=Wanted.PAUSE, wish=number)
    else:
        reason = Reason.EXPIRED if wish is Wish.EXPIRE else life.reason
        life = replace(life, version=version, wanted=_ASKED[move], wish=number, reason=reason)
    return life, said


_ASKED = {
    Move.ASK_RUN: Wanted.RUN,
    Move.ASK_PAUSE: Wanted.PAUSE,
    Move.ASK_CANCEL: Wanted.CANCEL,
}


def _write(life: Life, token: bytes, move: Move, phase: Phase, now_ms: int) -> Life:
    if move is Move.START:
        return replace(life, version=life.version + 1, phase=Phase.STARTED, started_ms=now_ms)
    if move is Move.REVIVE:
        return replace(
            life,
            version=life.version + 1,
            state=State.RUNNING,
            lease=Lease.HELD,
            phase=max(phase, life.phase),
            owed=Owed.NOTHING,
            started_ms=life.started_ms or (now_ms if phase is Phase.STARTED else 0),
            ended_ms=0,
        )
    if move is Move.RECHARGE and token in life.freed and life.state < TERMINAL_MIN:
        used = life.used
        return replace(
            life,
            version=life.version + 1,
            freed=tuple(freed for freed in life.freed if freed != token),
            used=replace(used, free_returns=used.free_returns - 1, losses=used.losses + 1),
        )
    return life


def _lapse(life: Life, owed: Owed, judgement: Judgement, now_ms: int) -> Life:
    """Put the task back; the token stays the newest and writes until the next claim."""
    if life.wanted is Wanted.CANCEL:
        return _finish(life, State.CANCELLED, now_ms, reason=life.reason)
    return replace(
        life,
        version=life.version + 1,
        state=State.PAUSED if life.wanted is Wanted.PAUSE else State.QUEUED,
        lease=Lease.LAPSED,
        phase=Phase.STARTED if judgement is Judgement.DEATH_STARTED else life.phase,
        owed=owed,
        ended_ms=now_ms,
    )


def _charge_lapse(life: Life) -> Life:
    """Charge what a lapsed lease owes: once, at the claim that supersedes it."""
    used, owed = life.used, life.owed
    if owed is Owed.UNHEARD:
        used = replace(used, unheard=used.unheard + 1)
        owed = Owed.FREE if used.unheard <= UNHEARD_MAX else Owed.LOSS
    if owed is Owed.FREE and used.free_returns < FREE_RETURNS_MAX:
        used = replace(used, free_returns=used.free_returns + 1)
        return replace(life, used=used, freed=(*life.freed, life.token))
    return replace(life, used=replace(used, losses=used.losses + 1))


def _is_crash(life: Life, charge: Charge) -> bool:
    """Whether an outcome counts as a crash: exit code 85 without a checkpoint does."""
    return charge is Charge.CRASH or (charge is Charge.CHECKPOINT and not life.saved_number)


def _charge_outcome(life: Life, charge: Charge) -> tuple[Charges, bool]:
    """Return the budgets after an outcome, and whether one of them is over."""
    used = life.used
    if _is_crash(life, charge):
        crashes = 1 if life.mark > life.crash_mark else used.crashes + 1
        return replace(used, crashes=crashes), crashes > CRASHES_MAX
    if charge is Charge.FREE and used.free_returns >= FREE_RETURNS_MAX:
        charge = Charge.LOSS
    if charge in (Charge.NOTHING, Charge.CHECKPOINT):
        return used, False
    if charge is Charge.RETRY:
        return replace(used, retries=used.retries + 1), False
    if charge is Charge.OUT_OF_MEMORY:
        count = used.out_of_memory + 1
        return replace(used, out_of_memory=count), count > OUT_OF_MEMORY_MAX
    if charge is Charge.ENVIRONMENT:
        return replace(used, environment=used.environment + 1), used.environment >= ENVIRONMENT_MAX
    if charge is Charge.FREE:
        return replace(used, free_returns=used.free_returns + 1), False
    return replace(used, losses=used.losses + 1), used.losses >= LOSSES_MAX


def _finish(
    life: Life,
    state: State,
    now_ms: int,
    *,
    reason: Reason = Reason.NONE,
    result: Payload | None = None,
    failure: Failure | None = None,
) -> Life:
    """Make the task terminal; the newest token is spent in the same write."""
    return replace(
        life,
        version=life.version + 1,
        state=state,
        lease=Lease.SPENT if life.token else Lease.NONE,
        phase=Phase.ENDED if life.token else Phase.NONE,
        owed=Owed.NOTHING,
        ended_ms=now_ms,
        reason=reason,
        result=result,
        failure=failure if failure is not None or state is State.SUCCEEDED else life.failure,
    )


def _fail(life: Life, reason: Reason, now_ms: int, *, failure: Failure | None = None) -> Life:
    return _finish(life, State.FAILED, now_ms, reason=reason, failure=failure)


def _illegal(event: str, life: Life) -> IllegalTransitionError:
    return IllegalTransitionError(f"no row for {event}: {life}")
