from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.engines.evidence import OomEvidence, Tail
from holdfast.model.limits import EVIDENCE_BYTES_MAX

Counted = tuple[OomEvidence, Callable[[], None]]


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    """Return the evidence of a memory cgroup, and what the kernel does when memory runs out."""
    return counting(tmp_path)


def counting(folder: Path) -> Counted:
    """Make a memory cgroup in a folder."""
    proc, counter = folder / "proc", folder / "cgroups" / "memory.events"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/\n", encoding="utf-8")
    counter.parent.mkdir()
    counter.write_text("oom_kill 7\n", encoding="ascii")

    def kill() -> None:
        kills = int(counter.read_text(encoding="ascii").split()[1])
        counter.write_text(f"oom_kill {kills + 1}\n", encoding="ascii")

    return OomEvidence(proc=proc, cgroups=folder / "cgroups"), kill


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


def test_what_grew_long_ago_or_before_a_birth_says_nothing(counted: Counted) -> None:
    evidence, kill = counted
    kill()
    evidence.look()
    assert evidence.grew(), "a death is told of a moment later"
    kill()
    evidence.look()
    evidence.look()
    assert not evidence.grew()
    kill()
    born = evidence.count()
    assert not evidence.grew(born)
    born = evidence.count()
    kill()
    evidence.look()
    assert evidence.grew(born)
    assert not evidence.grew(born)


def test_it_is_looked_at_from_time_to_time(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.engines.evidence.LOOK_SECONDS", 0.01)
    evidence, kill = counted
    kill()

    async def main() -> None:
        twice = asyncio.Event()
        looked: list[None] = []
        look = evidence.look

        def noted() -> None:
            look()
            looked.append(None)
            if len(looked) == 2:
                twice.set()

        monkeypatch.setattr(OomEvidence, "look", lambda _: noted())
        evidence.watch()
        await asyncio.wait_for(twice.wait(), 10)
        evidence.close()

    asyncio.run(main())
    assert not evidence.grew()


def test_without_a_group_there_is_no_evidence(tmp_path: Path) -> None:
    assert not OomEvidence(proc=tmp_path, cgroups=tmp_path).grew()
