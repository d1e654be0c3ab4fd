"""The rules of the house that no linter knows.

Each rule is a function from one parsed module to its offences. It is run over the tree, and over
a planted offence, so that a rule that has gone blind fails here too.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import textwrap
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
TYPE_IGNORES_MAX = 10

# Exceptions. A number here is what the thing measures today: it may fall, never rise.
LONG_MODULES: dict[str, int] = {}
"""Module -> lines."""
LONG_FUNCTIONS: dict[str, int] = {}
"""`module:Class.function` -> lines."""

PURE_ROOMS = ("holdfast.core", "holdfast.model")
PURE_NEVER_IMPORTS = frozenset(
    "asyncio logging multiprocessing os random secrets signal socket sqlite3 subprocess threading "
    "time".split()
)
PURE_NEVER_CALLS = frozenset({"breakpoint", "eval", "exec", "input", "open", "print"})
WALL_CLOCK = frozenset({"now", "today", "utcnow"})

TASK_STARTER = "holdfast.observe"
"""The one module that starts asyncio tasks, so that each is kept, named and reported."""

ENVIRONMENT_READERS = ("holdfast.config", "holdfast.engines.child", "holdfast.engines.guard")
"""Rooms that touch the environment: configuration, and the two that scrub it for user code."""

LIBRARIES_EVERYWHERE = frozenset({"msgspec"})
LIBRARY_ROOMS = {
    **dict.fromkeys(("click", "rich"), "holdfast.cli"),
    **dict.fromkeys(("fastapi", "pydantic", "starlette"), "holdfast.web"),
}
"""Libraries that a whole room may import. Every other one is imported by a single module."""

EMPTY_WORDS = frozenset("common enhanced helper helpers manager managers util utils".split())

LAZY_AT_THE_FACE = frozenset(
    "asyncio click cloudpickle msgspec multiprocessing rich sqlite3 uvicorn websockets".split()
)
"""What `import holdfast` alone must not load."""


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed source file."""

    name: str
    text: str
    tree: ast.Module

    @classmethod
    def parse(cls, name: str, text: str) -> Module:
        return cls(name, text, ast.parse(text))

    def stands_in(self, *rooms: str) -> bool:
        return any(self.name == room or self.name.startswith(f"{room}.") for room in rooms)

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def imports(self) -> Iterator[tuple[int, str, str]]:
        """Yield (line, module, name or "") for every import, at the top or in a function."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


Rule = Callable[[Module], Iterator[str]]


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for a chain of names; a call in it shows as `a().b`, the rest as `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{dotted(node.func)}()"
    return "?"


def module_name(path: Path, base: Path) -> str:
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules_below(folder: str) -> tuple[Module, ...]:
    base = ROOT / folder
    return tuple(
        Module.parse(module_name(path, base), path.read_text(encoding="utf-8"))
        for path in sorted(base.rglob("*.py"))
    )


def functions(module: Module) -> Iterator[tuple[str, int]]:
    """Yield (`module:Class.function`, lines) for every function, nested ones too."""

    def walk(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = (*path, child.name)
                if not isinstance(child, ast.ClassDef):
                    lines = (child.end_lineno or child.lineno) - child.lineno + 1
                    yield f"{module.name}:{'.'.join(inner)}", lines
                yield from walk(child, inner)
            else:
                yield from walk(child, path)

    return walk(module.tree, ())


def pure_rooms_stay_pure(module: Module) -> Iterator[str]:
    if not module.stands_in(*PURE_ROOMS):
        return
    for line, imported, _ in module.imports():
        if imported.split(".")[0] in PURE_NEVER_IMPORTS:
            yield f"{line}: imports {imported}"
    for call in module.calls():
        name = dotted(call.func)
        if name in PURE_NEVER_CALLS:
            yield f"{call.lineno}: calls {name}()"
        owner, _, verb = name.rpartition(".")
        if verb in WALL_CLOCK and owner.split(".")[-1] in {"date", "datetime"}:
            yield f"{call.lineno}: asks the wall clock, {name}()"


def no_failure_is_swallowed(module: Module) -> Iterator[str]:
    broad = {"Exception", "BaseException"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            is_broad = any(kind is None or dotted(kind).split(".")[-1] in broad for kind in caught)
            if is_broad and all(is_empty(statement) for statement in node.body):
                yield f"{node.lineno}: swallows every exception"
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func).split(".")[-1] == "suppress"
            and any(dotted(kind) in broad for kind in node.args)
        ):
            yield f"{node.lineno}: suppresses every exception"


def is_empty(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass | ast.Continue) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def no_module_level_state(module: Module) -> Iterator[str]:
    containers = {"bytearray", "Counter", "defaultdict", "deque", "dict", "list", "set"}
    containers |= {"OrderedDict", "WeakKeyDictionary", "WeakSet", "WeakValueDictionary"}
    displays = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
    for node in module.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        makes_one = isinstance(value, displays) or (
            isinstance(value, ast.Call) and dotted(value.func).split(".")[-1] in containers
        )
        for target in targets:
            name = dotted(target)
            if makes_one and name != "__all__" and name != name.upper():
                yield f"{node.lineno}: {name} is mutable state of the module"


def tasks_start_in_one_place(module: Module) -> Iterator[str]:
    if module.name == TASK_STARTER:
        return
    starters = {"create_task", "ensure_future"}
    for line, imported, name in module.imports():
        if imported == "asyncio" and name in starters:
            yield f"{line}: imports asyncio.{name}"
    for call in module.calls():
        owner, _, verb = dotted(call.func).rpartition(".")
        # A TaskGroup keeps its tasks and reports them; asyncio and its loops do not.
        if verb in starters and (owner == "asyncio" or "loop" in owner.split(".")[-1]):
            yield f"{call.lineno}: calls {owner}.{verb}()"


def environment_is_read_in_one_place(module: Module) -> Iterator[str]:
    if module.stands_in(*ENVIRONMENT_READERS):
        return
    doors = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for line, imported, name in module.imports():
        if imported == "os" and name in doors:
            yield f"{line}: imports os.{name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in doors and dotted(node.value) == "os":
            yield f"{node.lineno}: touches os.{node.attr}"


def names_say_something(module: Module) -> Iterator[str]:
    for part in module.name.split("."):
        if EMPTY_WORDS & set(part.split("_")):
            yield f"the module's name {part!r} says nothing"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            words = {word.lower() for word in re.findall(r"[A-Z][a-z]+", node.name)}
            if EMPTY_WORDS & words:
                yield f"{node.lineno}: the name {node.name!r} says nothing"


def nothing_is_left_for_later(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), 1):
        if re.search(r"\b(TOD[O]|FIXM[E]|XX[X])\b", line):
            yield f"{number}: {line.strip()}"


def type_ignores_have_reasons(module: Module) -> Iterator[str]:
    for line, comment in type_ignores(module):
        if not re.fullmatch(r"#\s*type:\s*ignore\[[\w, -]+\]\s*#\s*\w.{9,}", comment):
            yield f"{line}: `# type: ignore[code]  # reason` is what we write, not {comment!r}"


def type_ignores(module: Module) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and re.match(r"#\s*type:\s*ignore", token.string):
            yield token.start[0], token.string


def nothing_sleeps(module: Module) -> Iterator[str]:
    for line, imported, name in module.imports():
        if name == "sleep":
            yield f"{line}: imports {imported}.sleep"
    for call in module.calls():
        if dotted(call.func).endswith(".sleep"):
            yield f"{call.lineno}: calls {dotted(call.func)}()"


RULES_OF_THE_SOURCE: dict[Rule, tuple[str, ...]] = {
    pure_rooms_stay_pure: (
        "import time",
        "from random import random",
        "def f():\n    import os.path",
        "open('x')",
        "print('x')",
        "datetime.datetime.now()",
        "date.today()",
    ),
    no_failure_is_swallowed: (
        "try: f()\nexcept Exception: pass",
        "try: f()\nexcept: ...",
        "try: f()\nexcept (ValueError, BaseException): 'why not'",
        "with contextlib.suppress(Exception): f()",
    ),
    no_module_level_state: ("cache = {}", "seen: set[int] = set()", "a = b = [x for x in y]"),
    tasks_start_in_one_place: (
        "asyncio.create_task(f())",
        "asyncio.get_running_loop().create_task(f())",
        "self._loop.create_task(f())",
        "from asyncio import ensure_future",
    ),
    environment_is_read_in_one_place: (
        "os.environ['X']",
        "os.getenv('X')",
        "from os import environ",
    ),
    names_say_something: ("class TaskManager: pass", "class HTTPUtils: pass"),
    nothing_is_left_for_later: ("x = 1  # TO" + "DO: later",),
    type_ignores_have_reasons: (
        "x = f()  # type: ignore",
        "x = f()  # type: ignore[arg-type]",
        "x = f()  # type: ignore[arg-type]  # why",
    ),
}

CLEAN = """
    \"\"\"Say # type: ignore in prose, as one may.\"\"\"
    import math
    TABLE = {"a": 1}
    __all__ = ["f"]
    async def f(group):
        try:
            group.create_task(g())
        except ValueError:
            pass
        except Exception:
            log.exception("g")
        limits = []
        return row.now(), limits  # type: ignore[no-any-return]  # the driver has no types
"""

PLANTED = [
    pytest.param(rule, source, id=f"{rule.__name__}-{number}")
    for rule, sources in {**RULES_OF_THE_SOURCE, nothing_sleeps: ("time.sleep(1)",)}.items()
    for number, source in enumerate(sources)
]


@pytest.mark.parametrize(("rule", "source"), PLANTED)
def test_a_rule_sees_a_planted_offence(rule: Rule, source: str) -> None:
    assert list(rule(Module.parse("holdfast.core.planted", source)))


@pytest.mark.parametrize("rule", [*RULES_OF_THE_SOURCE, nothing_sleeps])
def test_a_rule_leaves_clean_code_alone(rule: Rule) -> None:
    assert not list(rule(Module.parse("holdfast.core.clean", textwrap.dedent(CLEAN))))


@pytest.mark.parametrize("rule", RULES_OF_THE_SOURCE)
def test_the_source_keeps_the_rule(rule: Rule) -> None:
    offences = [f"{module.name}:{text}" for module in modules_below("src") for text in rule(module)]
    assert not offences, "\n".join(offences)


def test_the_tests_of_the_core_wait_for_nothing() -> None:
    pure = [module for module in modules_below("tests") if module.stands_in("core", "model")]
    offences = [f"{module.name}:{text}" for module in pure for text in nothing_sleeps(module)]
    assert not offences, "\n".join(offences)


def test_the_tests_leave_nothing_for_later() -> None:
    offences = [
        f"{module.name}:{text}"
        for module in modules_below("tests")
        for text in nothing_is_left_for_later(module)
    ]
    assert not offences, "\n".join(offences)


def too_large(measured: dict[str, int], exceptions: dict[str, int], limit: int) -> list[str]:
    """Return what is above its limit, and the exceptions that are no longer true."""
    offences = [
        f"{name} has {lines} lines, {exceptions.get(name, limit)} are allowed"
        for name, lines in measured.items()
        if lines > exceptions.get(name, limit)
    ]
    for name, listed in exceptions.items():
        lines = measured.get(name, 0)
        if lines <= limit:
            offences.append(f"{name} needs no exception any more, take it from the table")
        elif lines < listed:
            offences.append(f"{name} has fallen to {lines} lines, write that in the table")
    return offences


def test_modules_are_small_rooms() -> None:
    measured = {module.name: len(module.text.splitlines()) for module in modules_below("src")}
    offences = too_large(measured, LONG_MODULES, MODULE_LINES_MAX)
    assert not offences, "\n".join(offences)


def test_functions_fit_a_screen() -> None:
    measured: dict[str, int] = {}
    for module in modules_below("src"):
        for name, lines in functions(module):
            # Overloads and the two halves of a property share a name: the longest counts.
            measured[name] = max(lines, measured.get(name, 0))
    offences = too_large(measured, LONG_FUNCTIONS, FUNCTION_LINES_MAX)
    assert not offences, "\n".join(offences)


def test_an_exception_may_only_fall() -> None:
    assert not too_large({"a": 12, "b": 9}, {"a": 12}, 10)
    assert too_large({"a": 13}, {"a": 12}, 10) == ["a has 13 lines, 12 are allowed"]
    assert len(too_large({"a": 11}, {"a": 12}, 10)) == 1
    assert len(too_large({"a": 10}, {"a": 12}, 10)) == 1
    assert len(too_large({}, {"gone": 12}, 10)) == 1


def test_functions_are_measured_by_their_full_name() -> None:
    module = Module.parse("m", "class A:\n  def f(self):\n    def g():\n      pass\n    g()\n")
    assert dict(functions(module)) == {"m:A.f": 4, "m:A.f.g": 2}


def test_type_ignores_are_few() -> None:
    found = [
        f"{module.name}:{line}"
        for module in modules_below("src")
        for line, _ in type_ignores(module)
    ]
    assert len(found) <= TYPE_IGNORES_MAX, "\n".join(found)


def test_a_library_is_imported_in_one_place() -> None:
    free = sys.stdlib_module_names | LIBRARIES_EVERYWHERE | {"holdfast"}
    places: dict[str, set[str]] = {}
    for module in modules_below("src"):
        for _, imported, _ in module.imports():
            library = imported.split(".")[0]
            room = LIBRARY_ROOMS.get(library)
            if library not in free:
                place = room if room and module.stands_in(room) else module.name
                places.setdefault(library, set()).add(place)
    offences = [
        f"{library} is imported in {', '.join(sorted(each))}"
        for library, each in sorted(places.items())
        if len(each) > 1
    ]
    assert not offences, "\n".join(offences)


def project_files() -> Iterator[Path]:
    """Yield the text files that belong to the project, with or without git."""
    not_ours = {"__pycache__", "build", "dist", "htmlcov", "lab-runs", "node_modules"}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in not_ours and (name == ".ci" or not name.startswith("."))
        ]
        for name in names:
            path = Path(folder, name)
            if path.is_file() and b"\0" not in path.read_bytes():
                yield path


def test_no_file_names_an_index_or_a_path_of_one_machine() -> None:
    alien = re.compile(
        r"https?://[\w.-]*(?:py[p]i|pythonhoste[d]|npmj[s]|debia[n]|artifactor[y]|nexu[s])"
        r"|--(?:extra-)?index-ur[l]|--trusted-hos[t]|(?<![\w.])/(?:roo[t]|User[s]|wor[k])/\w",
        re.IGNORECASE,
    )
    # Documents may point readers to the page of a package.
    allowed = re.compile(r"https://py[p]i\.org/project/")
    offences = []
    for path in project_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            seen = allowed.sub("", line) if path.suffix == ".md" else line
            if alien.search(seen):
                offences.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not offences, "\n".join(offences)


def pins(name: str) -> dict[str, str]:
    """Return project -> the whole entry, with its hashes, of one requirements file."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {entry.split("==")[0]: entry for entry in entries}


def project_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_the_pins_hold_all_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = {project_of(each) for each in project["project"]["dependencies"]}
    tools = {project_of(each) for each in project["dependency-groups"]["dev"]}
    base, dev = pins("base.txt"), pins("dev.txt")
    assert runtime <= base.keys()
    assert runtime | tools <= dev.keys()
    for name, entry in base.items():
        assert dev[name] == entry, f"{name} differs between base.txt and dev.txt: make lock"
    for entry in dev.values():
        assert re.match(r"[\w.-]+==\S+", entry)
        assert "--hash=sha256:" in entry


IMPORT_EVERYTHING = """
    import importlib, json, logging, os, signal, sys, threading

    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
    NEVER = ("os.exec", "os.fork", "os.mkdir", "os.posix_spawn", "os.putenv", "os.remove",
             "os.rename", "os.spawn", "os.system", "os.unsetenv", "socket.bind",
             "socket.connect", "subprocess.Popen", "sqlite3.connect")
    seen = []

    def watch(event, args):
        if event in NEVER:
            seen.append(event)
        elif event == "open" and (args[2] or 0) & WRITES and args[0] != os.devnull:
            seen.append(f"opens {args[0]} for writing")

    def start(thread, start=threading.Thread.start):
        seen.append("Thread.start")
        start(thread)

    def handlers(logger):
        return list(map(repr, getattr(logger, "handlers", [])))

    def state():
        ours = [name for name in logging.root.manager.loggerDict if name.startswith("holdfast")]
        loggers = {name: logging.getLogger(name) for name in ours}
        return {
            "threads": [thread.name for thread in threading.enumerate()],
            "signal handlers": {s: repr(signal.getsignal(s)) for s in signal.valid_signals()},
            "logging": [logging.root.level, handlers(logging.root), logging.root.manager.disable],
            "loggers": {n: [l.level, handlers(l)] for n, l in loggers.items()
                        if l.level or l.handlers},
            "environment": dict(os.environ),
            "directory": os.getcwd(),
            "sys.path": list(sys.path),
            "hooks": [repr(sys.excepthook), repr(threading.excepthook), repr(sys.displayhook)],
        }

    sys.addaudithook(watch)
    threading.Thread.start = start
    offences = []
    for name in json.load(sys.stdin):
        before = state()
        seen.clear()
        try:
            importlib.import_module(name)
        except Exception as error:
            offences.append(f"{name} cannot be imported: {error!r}")
        effects = list(seen)
        after = state()
        effects += [f"changes {what}" for what in before if before[what] != after[what]]
        offences += [f"{name}: {effect}" for effect in effects]
    json.dump(offences, sys.stdout)
"""


def run_python(source: str, *, given: object, folder: Path, path: Path | None = None) -> object:
    """Run a program in a fresh interpreter and return the JSON that it prints."""
    search = [str(path)] if path else []
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(source)],
        input=json.dumps(given),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_any_module_changes_nothing(tmp_path: Path) -> None:
    names = [module.name for module in modules_below("src") if "__main__" not in module.name]
    assert run_python(IMPORT_EVERYTHING, given=names, folder=tmp_path, path=ROOT / "src") == []
    assert not list(tmp_path.iterdir())


PLANTED_EFFECTS = {
    "Thread.start": "import threading; threading.Thread(target=print).start()",
    "for writing": "open('left-behind', 'w').close()",
    "signal handlers": "import signal; signal.signal(signal.SIGTERM, lambda *_: None)",
    "logging": "import logging; logging.basicConfig()",
    "loggers": "import logging; logging.getLogger('holdfast.x').setLevel(10)",
    "environment": "import os; os.environ['PLANTED'] = '1'",
    "sys.path": "import sys; sys.path.append('x')",
    "Popen": "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
    "cannot be imported": "import no_such_package_anywhere",
}


@pytest.mark.parametrize("effect", PLANTED_EFFECTS)
def test_a_planted_effect_of_an_import_is_seen(effect: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED_EFFECTS[effect], encoding="utf-8")
    offences = run_python(IMPORT_EVERYTHING, given=["planted"], folder=tmp_path, path=tmp_path)
    assert isinstance(offences, list)
    assert any(effect in offence for offence in offences), offences


def test_the_public_face_is_light(tmp_path: Path) -> None:
    program = """
        import json, sys
        before = set(sys.modules)
        import holdfast
        json.dump(sorted(set(sys.modules) - before), sys.stdout)
    """
    loaded = run_python(program, given=None, folder=tmp_path, path=ROOT / "src")
    assert isinstance(loaded, list)
    assert "holdfast" in loaded
    assert not LAZY_AT_THE_FACE & set(loaded)
