"""Files of large functions: bounded, and never removed under an order that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.engines.codefiles import CODE_FILES_MAX, CodeFiles


def code(number: int) -> bytes:
    return b"function %d" % number


def test_the_files_used_longest_ago_go_first(tmp_path: Path) -> None:
    files = CodeFiles(tmp_path, named=tuple)
    for number in range(CODE_FILES_MAX):
        files.path_of(code(number))
    first = files.path_of(code(0))
    assert files.path_of(code(CODE_FILES_MAX)) != first
    assert len(list(tmp_path.iterdir())) == CODE_FILES_MAX
    assert Path(first).read_bytes() == code(0)
    assert Path(files.path_of(code(1))).read_bytes() == code(1), "it is written again"
    assert len(list(tmp_path.iterdir())) == CODE_FILES_MAX


def test_what_an_order_names_stays_and_what_went_over_the_bound_for_that_goes_later(
    tmp_path: Path,
) -> None:
    named: set[str] = set()
    files = CodeFiles(tmp_path, named=lambda: named)
    for number in range(CODE_FILES_MAX + 9):
        named.add(files.path_of(code(number)))
    assert all(Path(path).exists() for path in named)
    kept = next(iter(named))
    named.intersection_update({kept})
    last = files.path_of(b"last")
    assert len(list(tmp_path.iterdir())) == CODE_FILES_MAX
    assert Path(kept).exists()
    assert Path(last).exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CodeFiles(tmp_path, named=tuple)

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            files.path_of(code(1))
    assert not list(tmp_path.iterdir())
    assert Path(files.path_of(code(1))).read_bytes() == code(1)
