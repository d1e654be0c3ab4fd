"""The main job: what a tree of text files holds, one task for each file, and one that merges.

Pure functions of files, so that the same work in one plain process gives the same answer. The
witness, where one is given, learns of each run.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.engines.current import current
from holdfast.lab.witness import Witness

_SUFFIXES = (".py", ".txt", ".md", ".rst", ".toml", ".cfg", ".json", ".csv", ".html", ".c", ".h")

Entry = dict[str, Any]


def files_of(tree: Path) -> list[str]:
    """Return the text files below a directory, in order; installed packages are left out."""
    return sorted(
        str(path)
        for path in tree.rglob("*")
        if path.suffix in _SUFFIXES and "site-packages" not in path.parts and path.is_file()
    )


def index_file(path: str, witness: str = "") -> Entry:
    """Return what one file holds: bytes, lines, words, SHA-256, and for Python its definitions."""
    with _seen(witness):
        content = Path(path).read_bytes()
        entry: Entry = {
            "path": path,
            "bytes": len(content),
            "lines": content.count(b"\n"),
            "words": len(content.split()),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        if path.endswith(".py"):
            entry |= _definitions(content)
        return entry


def _definitions(content: bytes) -> Entry:
    with warnings.catch_warnings():
        # The files are somebody's; what their compiler would warn of is not ours.
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError, RecursionError):
            return {"functions": -1, "classes": -1}
    nodes = list(ast.walk(tree))
    return {
        "functions": sum(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in nodes),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
    }


def merge(entries: list[Entry], witness: str = "") -> Entry:
    """Return the sums over all files, and a digest over all of their entries."""
    with _seen(witness):
        sums: Entry = {"files": len(entries)}
        for name in ("bytes", "lines", "words", "functions", "classes"):
            sums[name] = sum(max(0, entry.get(name, 0)) for entry in entries)
        whole = repr([sorted(entry.items()) for entry in entries])
        sums["sha256"] = hashlib.sha256(whole.encode()).hexdigest()
        return sums


@contextmanager
def _seen(witness: str) -> Iterator[None]:
    if not witness:
        yield
        return
    attempt = current()
    with Witness(witness).running(attempt.id, attempt.fence):
        yield
