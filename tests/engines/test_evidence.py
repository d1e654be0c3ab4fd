from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.engines.evidence import OomEvidence, Tail
from holdfast.model.limits import EVIDENCE_BYTES_MAX


def test_a_tail_keeps_the_end_within_its_bound() -> None:
    tail = Tail()
    tail.add("é".encode() * EVIDENCE_BYTES_MAX)
    tail.add(b"end\xff")
    text = tail.text()
    assert text.endswith("éend\N{REPLACEMENT CHARACTER}")
    assert not text.startswith("\N{REPLACEMENT CHARACTER}")
    assert len(text.encode()) <= EVIDENCE_BYTES_MAX


@pytest.mark.parametrize(
    ("line", "file", "before", "after"),
    [
        ("0::/a/b", "a/b/memory.events", "low 0\noom 1\noom_kill 1\n", "oom_kill 2\n"),
        (
            "4:cpu,memory:/a",
            "memory/a/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
            "oom_kill 1\n",
        ),
    ],
)
def test_kills_of_both_versions_are_counted(
    tmp_path: Path, line: str, file: str, before: str, after: str
) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroups"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(f"7:pids:/x\n{line}\n", encoding="utf-8")
    counter = cgroups / file
    counter.parent.mkdir(parents=True)
    counter.write_text(before, encoding="ascii")
    evidence = OomEvidence(proc=proc, cgroups=cgroups)
    assert not evidence.grew()
    counter.write_text(after, encoding="ascii")
    assert evidence.grew()
    assert not evidence.grew()
    text = counter.read_text(encoding="ascii")
    counter.write_text("nonsense", encoding="ascii")
    assert not evidence.grew()
    counter.unlink()
    assert not evidence.grew()
    counter.write_text(text, encoding="ascii")
    assert not evidence.grew(), "it could not be read for a while, and that is all"


def test_without_a_group_there_is_no_evidence(tmp_path: Path) -> None:
    assert not OomEvidence(proc=tmp_path, cgroups=tmp_path).grew()
