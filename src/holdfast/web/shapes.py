"""What requests and answers look like: the schema that the REST reference is made from.

Requests are checked by these models, unknown fields refused. Answers are written from plain data,
and the models of answers say what is in them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from holdfast.model.ids import parse_id
from holdfast.model.limits import (
    DELAY_MS_MAX,
    KEY_BYTES_MAX,
    META_BYTES_MAX,
    META_MAX,
    NAME_BYTES_MAX,
    PAGE_ROWS_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    TAGS_MAX,
)

BATCH_MAX = 10_000
BULK_MAX = 10_000
WAIT_SECONDS_MAX = 300.0
_TIME_MS_MAX = (1 << 47) - 1
_ID = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_WORD = r"^[^+~\x00]+$"
_NO_NUL = r"^[^\x00]*$"
_PATH = r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$"

StateWord = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


def _uuid(text: str) -> str:
    try:
        parse_id(text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    return text


def _whole(value: object) -> object:
    """Take 5.0 for 5, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(text: str) -> str:
    if "\x00" in text:
        raise ValueError("has a NUL in it")
    return text


Text = Annotated[str, Field(max_length=NAME_BYTES_MAX, pattern=_NO_NUL), AfterValidator(_plain)]
_WHOLE = BeforeValidator(_whole)
Name = Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX, pattern=_NO_NUL)]
Word = Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX, pattern=_WORD)]
_EXAMPLE = "0192f3a4-5b6c-7d8e-9f01-23456789abcd"
TaskIdText = Annotated[
    str, Field(pattern=_ID, max_length=36, description="A UUIDv7.", examples=[_EXAMPLE])
]
TimeMs = Annotated[
    int, Field(ge=0, le=_TIME_MS_MAX, description="Milliseconds since 1970."), _WHOLE
]
SomeTimeMs = Annotated[
    int, Field(gt=0, le=_TIME_MS_MAX, description="Milliseconds since 1970."), _WHOLE
]


Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"}), AfterValidator(_uuid)]


class Strict(BaseModel):
    """A request: what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _one_of(*names: str) -> ConfigDict:
    """Return what the schema says where exactly one of these fields is to be given."""
    told: JsonDict = {"oneOf": [{"required": [name]} for name in names]}
    return ConfigDict(extra="forbid", strict=True, json_schema_extra=told)


def _check_one(**fields: str) -> None:
    if sum(map(bool, fields.values())) != 1:
        names = " and ".join(map(repr, fields))
        raise ValueError(f"give exactly one of {names}")


class TaskNew(Strict):
    """A task to be kept. Exactly one of `function` and `function_id` names what runs.

    Send the same `id` or `key` again where an answer was lost: it is the same task then.
    """

    model_config = _one_of("function", "function_id")

    function: Annotated[
        str,
        Field(
            max_length=NAME_BYTES_MAX,
            pattern=_PATH,
            description="Import path `module:function`; workers import it.",
            examples=["operator:add"],
        ),
    ] = ""
    function_id: Annotated[
        str,
        Field(description="Id of a registered function.", json_schema_extra={"format": "uuid"}),
        AfterValidator(_uuid),
    ] = ""
    args: Annotated[list[Any], Field(description="Positional arguments, as JSON.")] = []
    kwargs: Annotated[dict[str, Any], Field(description="Keyword arguments, as JSON.")] = {}
    id: Annotated[
        TaskIdText,
        Field(description="The task's id, made by you; else it is made here."),
    ] = ""
    queue: Word = "default"
    tags: Annotated[list[Word], Field(max_length=TAGS_MAX)] = []
    priority: Annotated[int, Field(ge=PRIORITY_MIN, le=PRIORITY_MAX), _WHOLE] = 0
    key: Annotated[str, Field(max_length=KEY_BYTES_MAX, pattern=_NO_NUL)] = ""
    delay: Annotated[
        float, Field(ge=0, le=DELAY_MS_MAX / 1000, description="Seconds before it may start.")
    ] = 0.0
    meta: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX)], str],
        Field(
            max_length=META_MAX,
            description=f"Notes to find it by; at most {META_BYTES_MAX} characters in all.",
        ),
    ] = {}

    @model_validator(mode="after")
    def _names_one(self) -> TaskNew:
        _check_one(function=self.function, function_id=self.function_id)
        return self


class BatchNew(Strict):
    """Tasks to be kept together in few transactions; each is accepted or refused by itself."""

    tasks: Annotated[list[TaskNew], Field(min_length=1, max_length=BATCH_MAX)]


class Kept(BaseModel):
    """A task that is on disk."""

    id: TaskIdText
    known: Annotated[bool, Field(description="Whether its id or key was known before.")]


class ProblemOut(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="Stable, for programs.")]
    model_config = ConfigDict(extra="allow")


class BatchOut(BaseModel):
    """What became of each task of a batch, in its order."""

    accepted: int
    refused: int
    tasks: list[Kept | ProblemOut]


class Charges(BaseModel):
    """Budgets that a task has used."""

    retries: int
    losses: int
    crashes: int
    out_of_memory: int
    environment: int
    free_returns: int
    unheard: int


class TaskOut(BaseModel):
    """Where a task is. Times are milliseconds since 1970, 0 for never."""

    id: TaskIdText
    state: StateWord
    reason: str
    function: str
    queue: str
    tags: list[str]
    priority: int
    key: str
    meta: dict[str, str]
    wanted: Literal["run", "pause", "cancel"]
    version: int
    run: int
    phase: str
    worker: str
    submitted_ms: int
    due_ms: int
    claimed_ms: int
    started_ms: int
    ended_ms: int
    charges: Charges
    error: str
    error_type: str
    traceback: str
    evidence: str


class TaskPage(BaseModel):
    """Tasks, newest first."""

    tasks: list[TaskOut]
    next: Annotated[str | None, Field(description="The cursor of the next page; null: none.")]


class Blob(BaseModel):
    """A large value, to be fetched by itself."""

    url: str
    sha256: str
    size_bytes: int


class ResultOut(BaseModel):
    """How a task ended, and what it returned or raised.

    `encoding` tells where the result is: `json` in `value`, `pickle` as base64 in `data`, or either
    of them in `blob`; `none` where there is no result.
    """

    id: TaskIdText
    state: StateWord
    reason: str
    encoding: Literal["none", "json", "pickle"]
    value: Any = None
    data: str = ""
    blob: Blob | None = None
    error: str
    error_type: str
    traceback: str


class AttemptOut(BaseModel):
    """One try of a task; `run` is its fence."""

    run: int
    worker: str
    claimed_ms: int
    started_ms: int
    ended_ms: int
    ended: Annotated[str, Field(description="How it ended, empty while it goes on.")]


class AttemptsOut(BaseModel):
    """All tries of a task, the newest last."""

    attempts: list[AttemptOut]


class LineOut(BaseModel):
    """One line of a story."""

    at_ms: int
    what: str
    run: int
    worker: str
    detail: str


class StoryOut(BaseModel):
    """All that happened to a task, in order."""

    story: list[LineOut]


class WaitingOut(BaseModel):
    """A task that has not ended yet."""

    id: TaskIdText
    state: StateWord


class WhyOut(BaseModel):
    """Why a task is where it is."""

    id: TaskIdText
    state: StateWord
    why: str
    due_ms: int


class WishOut(BaseModel):
    """What became of a wish: `said` is `done`, `asked`, or tells that it had ended."""

    id: TaskIdText
    said: str
    state: StateWord
    wanted: Literal["run", "pause", "cancel"]


class Chosen(Strict):
    """Which tasks: all that is given has to be so, and something has to be given."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"minProperties": 1})

    states: Annotated[list[StateWord], Field(min_length=1)] = []
    function: Name = ""
    queue: Name = ""
    tag: Name = ""
    key: Annotated[str, Field(min_length=1, max_length=KEY_BYTES_MAX, pattern=_NO_NUL)] = ""
    meta: Annotated[dict[str, str], Field(min_length=1, max_length=META_MAX)] = {}
    since_ms: SomeTimeMs = 0
    until_ms: SomeTimeMs = 0


class Page(BaseModel):
    """The query of a list; unknown words in it are refused."""

    model_config = ConfigDict(extra="forbid")

    state: list[StateWord] = []
    function: Text = ""
    queue: Text = ""
    tag: Text = ""
    key: Annotated[str, Field(max_length=KEY_BYTES_MAX, pattern=_NO_NUL)] = ""
    meta: Annotated[
        list[Annotated[str, Field(pattern=r"^[^=\x00]+=[^\x00]*$")]],
        Field(description="`NAME=VALUE`, any number of them.", max_length=META_MAX),
    ] = []
    since_ms: TimeMs = 0
    until_ms: TimeMs = 0
    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS_MAX), _WHOLE] = 100
    cursor: Annotated[Uuid, Field(description="`next` of the page before.")] = ""


class Bulk(Strict):
    """A verb for many tasks. With `dry_run` it is only counted what it would reach."""

    filter: Chosen
    dry_run: bool = False
    limit: Annotated[int, Field(ge=1, le=BULK_MAX), _WHOLE] = BULK_MAX


class BulkOut(BaseModel):
    """What a verb reached; `more` where tasks are left beyond the limit."""

    matched: int
    done: Annotated[int, Field(description="On how many it took effect, or would.")]
    more: bool
    dry_run: bool
    sample: Annotated[list[TaskIdText], Field(description="Some of them.")]


class FunctionNew(Strict):
    """A function to register: its import path, or its pickle as base64 text."""

    model_config = _one_of("function", "pickle")

    name: Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX, pattern=_NO_NUL)]
    function: Annotated[str, Field(max_length=NAME_BYTES_MAX, pattern=_PATH)] = ""
    pickle: Annotated[str, Field(description="Base64 of a pickle of the function.")] = ""
    python: Annotated[
        str,
        Field(
            pattern=r"^(\d{1,3}\.\d{1,3})?$",
            description="The Python that made the pickle, such as 3.11; empty: any worker tries.",
        ),
    ] = ""

    @model_validator(mode="after")
    def _names_one(self) -> FunctionNew:
        _check_one(function=self.function, pickle=self.pickle)
        return self


class FunctionOut(BaseModel):
    """A registered function."""

    id: str
    name: str
    function: str
    pickled: bool
    python: str
    registered_ms: int


class FunctionPage(BaseModel):
    """Registered functions, newest first."""

    functions: list[FunctionOut]
    next: str | None


class WorkerOut(BaseModel):
    """A worker that is connected, or holds something."""

    name: str
    identity: str
    state: Literal["connected", "draining", "disconnected"]
    slots: int
    mode: Literal["push", "pull"]
    queues: list[str]
    tags: list[str]
    running: int
    holds: int
    incarnation: int
    epoch: int
    heard_seconds_ago: float
    host: str
    pid: int
    python: str
    version: str


class WorkersOut(BaseModel):
    """All workers that are connected or hold something, newest first."""

    workers: list[WorkerOut]


class DrainOut(BaseModel):
    """A worker that takes no more, and leaves once what it runs has ended."""

    worker: str
    draining: bool


class QueueOut(BaseModel):
    """How much waits in a queue, and for how long the oldest of it has."""

    name: str
    paused: bool
    queued: Annotated[int, Field(description="Tasks that could start now.")]
    delayed: int
    running: int
    oldest_seconds: float


class QueuesOut(BaseModel):
    """All queues that have tasks that have not ended, or are paused."""

    queues: list[QueueOut]


class StatsOut(BaseModel):
    """What the coordinator counts."""

    tasks: dict[str, int]
    waiting: dict[str, int]
    workers: int
    clients: int
    counters: dict[str, int]
