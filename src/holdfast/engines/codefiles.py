"""The large pickled functions of one engine, as files that its children read.

Owns which of them are on disk. A file goes only when no order that a child may still take up names
it; so there are at most `CODE_FILES_MAX`, and beyond that no more than such orders.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from holdfast.payloads.values import PARTIAL_SUFFIX

CODE_FILES_MAX: Final = 64


class CodeFiles:
    """Files by digest, the one used last at the end."""

    __slots__ = ("_folder", "_named", "_paths")

    def __init__(self, folder: Path, *, named: Callable[[], Collection[str]]) -> None:
        """`named` tells the paths that orders in lanes name; it is asked only at the bound."""
        self._folder = folder
        self._named = named
        self._paths: OrderedDict[bytes, str] = OrderedDict()

    def path_of(self, code: bytes) -> str:
        """Return the file of a function, written where it is not there yet. Raises OSError."""
        digest = hashlib.sha256(code).digest()
        path = self._paths.get(digest)
        if path is None:
            path = self._write(digest, code)
            if len(self._paths) >= CODE_FILES_MAX:
                self._make_room()
            self._paths[digest] = path
        self._paths.move_to_end(digest)
        return path

    def _write(self, digest: bytes, code: bytes) -> str:
        file = self._folder / digest.hex()
        partial_file = file.with_suffix(PARTIAL_SUFFIX)
        try:
            partial_file.write_bytes(code)
            partial_file.rename(file)
        except OSError:
            partial_file.unlink(missing_ok=True)
            raise
        return str(file)

    def _make_room(self) -> None:
        """Remove what was not used for longest, as far as nobody will read it any more."""
        named = self._named()
        excess = len(self._paths) - CODE_FILES_MAX + 1
        spare = [digest for digest, path in self._paths.items() if path not in named]
        for digest in spare[:excess]:
            Path(self._paths.pop(digest)).unlink(missing_ok=True)
