"""What a submitter says about a task beside its arguments: queue, tags, key, notes, …

Owns their names, their checks, and the question whose a keyword is, Holdfast's or the function's.
Light: a worker's child imports it for the sake of `@task`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

from holdfast.errors import InvalidInputError
from holdfast.model.limits import (
    DELAY_MS_MAX,
    KEY_BYTES_MAX,
    META_BYTES_MAX,
    META_MAX,
    NAME_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    RESERVED_SIGNS,
    TAGS_MAX,
)

_CO_VARKEYWORDS = 0x08
_SHOWN_MAX = 60


class Options(NamedTuple):
    """How a task is to be kept and run. `delay` is in seconds from the submission.

    `key` names the task: a second submission with the same key and contents is the same task.
    `meta` are notes to find it by; nothing is decided by them.
    """

    queue: str = "default"
    tags: tuple[str, ...] = ()
    priority: int = 0
    key: str = ""
    delay: float = 0.0
    meta: tuple[tuple[str, str], ...] = ()


DEFAULTS = Options()
OPTION_NAMES = frozenset(Options._fields)


def options_with(base: Options, given: Mapping[str, Any]) -> Options:
    """Return `base` with the options given, checked; tags are put in order, once each.

    Raises InvalidInputError naming the option and the mend.
    """
    unknown = given.keys() - OPTION_NAMES
    if unknown:
        known = ", ".join(Options._fields)
        raise InvalidInputError(f"{', '.join(sorted(unknown))}: no such option; there are {known}")
    if "tags" in given:
        given = {**given, "tags": _tags(given["tags"])}
    if "meta" in given:
        given = {**given, "meta": _meta(given["meta"])}
    options = base._replace(**given)
    _check(options)
    return options


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise InvalidInputError(f"tags={tags!r} is one text; give a list, such as [{tags!r}]")
    given: object = tags
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise InvalidInputError(f"tags={_shown(given)} is not a list of texts, such as ['gpu']")
    listed = list(tags)
    for tag in listed:
        _check_word("tags", tag)
    if len(set(listed)) > TAGS_MAX:
        raise InvalidInputError(f"tags: {len(listed)} are over {TAGS_MAX}")
    return tuple(sorted(set(listed)))


def _meta(notes: object) -> tuple[tuple[str, str], ...]:
    if isinstance(notes, tuple):
        # As options keep it.
        notes = dict(notes)
    if not isinstance(notes, Mapping):
        raise InvalidInputError(f"meta={_shown(notes)} is not a dict of texts")
    for pair in notes.items():
        for text in pair:
            if not isinstance(text, str) or "\x00" in text:
                raise InvalidInputError(f"meta: {_shown(text)} is not a text, or has a NUL in it")
            _check_unicode("meta", text)
    size = sum(len(name) + len(value) for name, value in notes.items())
    if len(notes) > META_MAX or size > META_BYTES_MAX:
        raise InvalidInputError(
            f"meta has {len(notes)} names and {size} characters; at most {META_MAX} and "
            f"{META_BYTES_MAX}: it is for notes, data goes into the arguments"
        )
    for name in notes:
        if not 0 < len(name) <= NAME_BYTES_MAX:
            raise InvalidInputError(f"meta: {_shown(name)} is no name of 1 to {NAME_BYTES_MAX}")
    return tuple(sorted(notes.items()))


def _check(options: Options) -> None:
    # What a user gives has any type, whatever the annotations say.
    priority: object = options.priority
    key: object = options.key
    delay: object = options.delay
    _check_word("queue", options.queue)
    if type(priority) is not int or not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise InvalidInputError(
            f"priority={_shown(priority)} is not a whole number from {PRIORITY_MIN} "
            f"to {PRIORITY_MAX}"
        )
    if not isinstance(key, str) or len(key) > KEY_BYTES_MAX or "\x00" in key:
        raise InvalidInputError(f"key is not a text of at most {KEY_BYTES_MAX} characters")
    _check_unicode("key", key)
    # Whole numbers are compared as such: a large one is no float.
    if not isinstance(delay, int | float) or not (delay >= 0) or delay == inf:
        raise InvalidInputError(f"delay={_shown(delay)} is not a number of seconds from 0")
    if delay * 1000 > DELAY_MS_MAX:
        raise InvalidInputError(f"delay={_shown(delay)} is over {DELAY_MS_MAX // 1000} seconds")


def _shown(value: object) -> str:
    """Return a value as an error shows it; Python refuses to write a number of many digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of too many digits"
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _check_word(option: str, word: object) -> None:
    if not isinstance(word, str) or not 0 < len(word) <= NAME_BYTES_MAX:
        raise InvalidInputError(f"{option}: {word!r} is not a text of 1 to {NAME_BYTES_MAX}")
    if any(sign in word for sign in RESERVED_SIGNS):
        raise InvalidInputError(f"{option}: {word!r} has one of '+', '~' and NUL in it")
    _check_unicode(option, word)


def _check_unicode(option: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{option}: {text!r} is no Unicode text: {error.reason}") from None


def split_options(
    function: Callable[..., Any], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (options, keyword arguments) out of the keywords of a submission.

    Raises InvalidInputError where a keyword could be meant for the function as well.
    """
    given = {name: kwargs[name] for name in kwargs if name in OPTION_NAMES}
    if not given:
        return given, kwargs
    for name in given:
        if _takes(function, name):
            shown = getattr(function, "__name__", "the function")
            raise InvalidInputError(
                f"{name}= could be meant for {shown}() or for Holdfast. For {shown}(), submit "
                f"task({shown}).options(); for Holdfast, task({shown}).options({name}=…): every "
                f"keyword of the submission then goes to {shown}()"
            )
    return given, {name: kwargs[name] for name in kwargs if name not in given}


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has a parameter of this name, or takes any keyword."""
    code = getattr(function, "__code__", None)
    if code is not None and not hasattr(function, "__wrapped__"):
        if code.co_flags & _CO_VARKEYWORDS:
            return True
        first = code.co_posonlyargcount
        last = code.co_argcount + code.co_kwonlyargcount
        return name in code.co_varnames[first:last]
    # Slow to import, and rarely needed: wrapped functions, partials, instances that are called.
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        # A builtin without a signature: nothing says that it takes the name.
        return False
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (parameter.name == name and parameter.kind is not parameter.POSITIONAL_ONLY)
        for parameter in parameters
    )
