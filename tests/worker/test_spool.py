"""Outcomes on disk: what is durable, what a crash leaves, and what is forgotten."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.errors import StoreFullError, StoreVersionError
from holdfast.model.outcome import Encoding, OutcomeKind, Payload
from holdfast.worker import spool as room
from holdfast.worker.spool import FileShelf, FileSpool
from tests.core.wording import ended, number_of, token


def loaded(path: Path) -> list[int]:
    return [number_of(each.token) for each in FileSpool(path).load()]


def save(spool: FileSpool, *numbers: int) -> None:
    asyncio.run(spool.save([ended(number) for number in numbers]))


def test_what_is_saved_is_loaded_in_order(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path / "spool")
    assert spool.load() == []
    save(spool, 1, 2)
    save(spool, 3)
    assert FileSpool(tmp_path / "spool").load() == [ended(1), ended(2), ended(3)]


def test_a_later_record_of_a_token_counts(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path / "spool")
    save(spool, 1)
    asyncio.run(spool.save([ended(1, OutcomeKind.ENVIRONMENT)]))
    assert FileSpool(tmp_path / "spool").load() == [ended(1, OutcomeKind.ENVIRONMENT)]


def test_a_tail_torn_anywhere_loses_only_the_torn_record(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = FileSpool(path)
    save(spool, 1)
    whole = len(path.read_bytes())
    save(spool, 2)
    data = path.read_bytes()
    for cut in range(whole, len(data)):
        path.write_bytes(data[:cut])
        torn = FileSpool(path)
        assert [number_of(each.token) for each in torn.load()] == [1]
        save(torn, 3)
        assert loaded(path) == [1, 3]


SIZES = (0, 30, 0, 41, 7)
"""Of the inline results of some records: no two that follow each other are of one length."""


def written(path: Path) -> tuple[bytes, list[int]]:
    """Write a spool of several records; return its bytes, and where each record ends."""
    spool = FileSpool(path)
    ends = []
    for number, size in enumerate(SIZES):
        result = Payload(Encoding.PICKLE, b"\x01\xc4\x10" * size)
        asyncio.run(spool.save([replace(ended(number), result=result if size else None)]))
        ends.append(path.stat().st_size)
    return path.read_bytes(), ends


@pytest.mark.parametrize("bits", [0x01, 0x40, 0xFF])
def test_a_byte_flipped_anywhere_costs_its_own_record_only(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "spool"
    data, ends = written(path)
    for at in range(len(room._MAGIC), len(data)):
        flipped = bytearray(data)
        flipped[at] ^= bits
        path.write_bytes(flipped)
        hit = next(number for number, end in enumerate(ends) if at < end)
        good = [number for number in range(len(SIZES)) if number != hit]
        spool = FileSpool(path)
        assert [number_of(each.token) for each in spool.load()] == good, at
        spool._append(room._record(ended(9)))
        assert loaded(path) == [*good, 9], at


@pytest.mark.parametrize("bits", [0x01, 0x40, 0xFF])
def test_a_flipped_byte_of_the_magic_costs_nothing(
    tmp_path: Path, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool"
    data, ends = written(path)
    for at in range(len(room._MAGIC)):
        flipped = bytearray(data)
        flipped[at] ^= bits
        path.write_bytes(flipped)
        spool = FileSpool(path)
        caplog.clear()
        numbers = [number_of(each.token) for each in spool.load()]
        assert numbers == list(range(len(SIZES))), at
        assert "the head of the spool does not verify" in caplog.text
        spool._append(room._record(ended(9)))
        assert loaded(path) == [*numbers, 9], at
        asyncio.run(spool.forget([token(number) for number in [*numbers, 9]]))
        save(spool, 7)
        assert path.read_bytes().startswith(room._MAGIC)
    # The first record may be hit by the same bad spot.
    path.write_bytes(bytes(ends[0] - 1) + data[ends[0] - 1 :])
    assert loaded(path) == [1, 2, 3, 4]


def test_a_spool_of_another_version_is_left_to_people(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    data, _ = written(path)
    whole = data[len(room._MAGIC) :]
    heads = (b"holdfast spool 2\n", b"holdfast spool 12\n")
    for other in (*(head + whole for head in heads), bytes(100), b"another file altogether"):
        path.write_bytes(other)
        with pytest.raises(StoreVersionError):
            FileSpool(path).load()
        assert path.read_bytes() == other


def test_a_file_cut_anywhere_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    data, ends = written(path)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        whole = [number for number, end in enumerate(ends) if end <= cut]
        spool = FileSpool(path)
        assert [number_of(each.token) for each in spool.load()] == whole, cut
        spool._append(room._record(ended(9)))
        assert loaded(path) == [*whole, 9], cut


@pytest.mark.parametrize("filling", [b"\x00", b"\xff", b"\x01\xc4\x10"])
def test_a_hole_costs_what_it_hit(tmp_path: Path, filling: bytes) -> None:
    path = tmp_path / "spool"
    data, ends = written(path)
    size = ends[2] - ends[0] - 10
    hole = (filling * size)[:size]
    path.write_bytes(data[: ends[0] + 5] + hole + data[ends[0] + 5 + size :])
    assert loaded(path) == [0, 3, 4]


def test_what_is_skipped_and_what_is_cut_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool"
    data, ends = written(path)
    flipped = bytearray(data)
    flipped[ends[1] - 1] ^= 1
    path.write_bytes(bytes(flipped) + b"torn")
    assert loaded(path) == [0, 2, 3, 4]
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    lost = ends[1] - ends[0]
    assert told == [
        ("ERROR", f"{lost} bytes of the spool do not verify: skipped, what they said is lost"),
        ("WARNING", "the spool's last 4 bytes are torn; cut off"),
    ]


def test_a_record_that_is_no_outcome_is_passed_over_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    save(FileSpool(path), 1)
    body = b"\xc1"
    strange = room._HEAD.pack(len(body), room.zlib.crc32(body)) + body
    path.write_bytes(path.read_bytes() + strange)
    spool = FileSpool(path)
    assert [number_of(each.token) for each in spool.load()] == [1]
    save(spool, 2)
    assert loaded(path) == [1, 2]
    assert strange in path.read_bytes()


def test_a_file_cut_within_its_magic_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"holdf")
    spool = FileSpool(path)
    assert spool.load() == []
    save(spool, 1)
    assert loaded(path) == [1]


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"holdfast spool 9\nwhatever")
    with pytest.raises(StoreVersionError):
        FileSpool(path).load()
    assert path.read_bytes() == b"holdfast spool 9\nwhatever"


def test_what_is_answered_is_forgotten_when_all_is(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = FileSpool(path)
    save(spool, 1, 2)
    asyncio.run(spool.forget([token(1)]))
    assert loaded(path) == [1, 2]  # delivered twice at worst
    asyncio.run(spool.forget([token(2), token(9)]))
    assert path.stat().st_size == 0
    asyncio.run(spool.forget([token(2)]))
    save(spool, 3)
    assert loaded(path) == [3]


def test_a_large_file_is_written_anew_without_what_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REWRITE_BYTES", 1000)
    path = tmp_path / "spool"
    spool = FileSpool(path)
    save(spool, *range(100))
    before = path.stat().st_size
    asyncio.run(spool.forget([token(number) for number in range(10)]))
    assert path.stat().st_size == before
    asyncio.run(spool.forget([token(number) for number in range(90)]))
    assert loaded(path) == list(range(90, 100))
    save(spool, 100)
    assert loaded(path) == list(range(90, 101))


def test_a_file_written_anew_is_appended_to_at_its_own_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REWRITE_BYTES", 1000)
    path = tmp_path / "spool"
    spool = FileSpool(path)
    save(spool, *range(100))

    def broken(folder: Path) -> None:
        raise OSError(errno.EIO, "a bad disk")

    with monkeypatch.context() as patch:
        patch.setattr(room, "fsync_directory", broken)
        with pytest.raises(OSError, match="a bad disk"):
            asyncio.run(spool.forget([token(number) for number in range(90)]))
        # What a name that may be lost leads to is not durable either.
        with pytest.raises(OSError, match="a bad disk"):
            save(spool, 100)
    assert loaded(path) == list(range(90, 101))
    save(spool, 101)
    assert loaded(path) == [*range(90, 100), 101]


def test_a_spool_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SPOOL_BYTES_MAX", 300)
    spool = FileSpool(tmp_path / "spool")
    save(spool, 1)
    with pytest.raises(StoreFullError, match="exceed"):
        save(spool, *range(2, 20))
    assert loaded(tmp_path / "spool") == [1]


def test_a_disk_without_room_is_said_so_and_the_next_save_repairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool"
    spool = FileSpool(path)
    save(spool, 1)

    def half(handle: int, data: bytes, *, offset: int) -> None:
        room.os.pwrite(handle, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(room, "_write_all", half)
        with pytest.raises(StoreFullError, match="no room"):
            save(spool, 2)
    assert loaded(path) == [1]
    save(spool, 3)
    assert loaded(path) == [1, 3]


def test_another_failure_of_the_disk_is_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save(FileSpool(tmp_path / "nowhere" / "spool"), 1)


def test_a_large_result_moves_to_the_shelf(tmp_path: Path) -> None:
    shelf = FileShelf(tmp_path / "shelf")
    result = tmp_path / "result"
    result.write_bytes(b"large" * 500_000)
    digest = hashlib.sha256(result.read_bytes()).digest()
    payload = asyncio.run(shelf.keep(str(result), Encoding.PICKLE))
    assert payload == Payload(Encoding.PICKLE, digest=digest, size_bytes=2_500_000)
    assert not result.exists()
    assert Path(shelf.path_of(digest)).stat().st_size == 2_500_000
    assert FileShelf(tmp_path / "shelf").path_of(b"other") == ""


def shelved(shelf: FileShelf, folder: Path, content: bytes) -> Payload:
    (folder / "result").write_bytes(content)
    return asyncio.run(shelf.keep(str(folder / "result"), Encoding.PICKLE))


def test_what_no_outcome_names_leaves_the_shelf_at_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shelf = FileShelf(home / "shelf")
    named, unnamed = shelved(shelf, tmp_path, b"named"), shelved(shelf, tmp_path, b"unnamed")
    asyncio.run(FileSpool(home / "spool", shelf).save([replace(ended(1), result=named)]))
    (home / "shelf" / "result.making").write_bytes(b"half")
    (home / "spool.making").write_bytes(b"half")
    (home / "shelf" / "not ours").mkdir()
    FileSpool(home / "spool", shelf).load()
    left = sorted(file.name for file in (home / "shelf").iterdir())
    assert left == [named.digest.hex(), "not ours"]
    assert shelf.path_of(unnamed.digest) == ""
    assert not (home / "spool.making").exists()


def test_a_shelf_without_a_spool_is_emptied_at_the_start(tmp_path: Path) -> None:
    shelf = FileShelf(tmp_path / "shelf")
    shelved(shelf, tmp_path, b"unnamed")
    assert FileSpool(tmp_path / "spool", shelf).load() == []
    assert list((tmp_path / "shelf").iterdir()) == []


def test_a_spool_of_another_kind_costs_nothing_on_the_shelf(tmp_path: Path) -> None:
    shelf = FileShelf(tmp_path / "shelf")
    result = shelved(shelf, tmp_path, b"perhaps named")
    (tmp_path / "spool").write_bytes(b"holdfast spool 9\nwhatever")
    with pytest.raises(StoreVersionError):
        FileSpool(tmp_path / "spool", shelf).load()
    assert shelf.path_of(result.digest)
