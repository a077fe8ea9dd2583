"""`verify_log`: whatever was changed, cut or taken away, in any segment, is found and named."""

from __future__ import annotations

import re
import shutil
from functools import cache
from itertools import count, islice
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.journal_entries import SHARDS, entry, write_segments
from tradepool.errors import ChecksumMismatch, SequenceGap
from tradepool.files import verification
from tradepool.files.checkpoint import checkpoint_of
from tradepool.files.header import encode_header
from tradepool.files.journal import Journal
from tradepool.files.lines import SUFFIX_BYTES, framed
from tradepool.files.reading import read_lines
from tradepool.files.segments import active_header, compressed_path, finished_segments, sealed_path
from tradepool.files.verification import verify_log

GROUPS = 14
NAME = "trade_pool.log"


@cache
def written(*, compressed: bool) -> dict[str, bytes]:
    """The files of a journal of several segments."""
    folder = Path(mkdtemp())
    write_segments(folder / NAME, GROUPS, compressed=compressed)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    return files


@pytest.fixture(params=[True, False], ids=["compressed", "plain"])
def log(request, tmp_path: Path) -> Path:
    return laid_out(tmp_path, written(compressed=request.param))


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / NAME


def test_a_whole_journal_is_counted(log):
    seen: list[tuple[int, int]] = []
    report = verify_log(log, lambda done, total: seen.append((done, total)))
    assert report.segments == active_header(log)[0].segment > 3
    assert (report.lines, report.commits, report.torn_bytes) == (2 * GROUPS, GROUPS, 0)
    assert seen[-1] == (report.bytes, report.bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_torn_tail_is_no_damage(log):
    with log.open("ab") as file:
        file.write(b'{"q":99,"s"')
    assert verify_log(log).torn_bytes == 11


@settings(max_examples=150, deadline=None)
@given(
    compressed=st.booleans(), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data()
)
def test_a_flipped_bit_anywhere_is_found_by_every_reader(tmp_path_factory, compressed, where, bit, data):
    files = dict(written(compressed=compressed))
    name = data.draw(st.sampled_from(sorted(name for name in files if ".log" in name)))
    at = int(where * len(files[name]))
    files[name] = flipped(files[name], at, bit)
    folder = tmp_path_factory.mktemp("pool")
    log = laid_out(folder, files)
    if name == NAME and at >= files[name].rindex(b'{"commit"'):
        return  # the last commit line cannot be told from a torn one but by the checkpoint
    for read in (verify_log, lambda log: list(read_lines(log))):
        with pytest.raises((ChecksumMismatch, SequenceGap), match=rf"{re.escape(name)}:\d+: "):
            read(log)


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_a_compressed_files_frame_counts(tmp_path, bit):
    """Those of frame header and trailer as well, of which zstd itself ignores some."""
    files = written(compressed=True)
    name = compressed_path(tmp_path / NAME, 2).name
    log = laid_out(tmp_path, files)
    for at in (*range(20), *range(-20, 0)):
        (tmp_path / name).write_bytes(flipped(files[name], at, bit))
        with pytest.raises((ChecksumMismatch, SequenceGap), match=rf"{re.escape(name)}:\d+: "):
            list(read_lines(log))


def test_damage_in_a_plain_segment_is_placed_to_the_line(tmp_path):
    files = written(compressed=False)
    log = laid_out(tmp_path, files)
    path = sealed_path(log, 2)
    good = files[path.name]
    for at in range(0, len(good), 97):
        path.write_bytes(flipped(good, at, at % 8))
        number = good[:at].count(b"\n") + 1
        with pytest.raises(ChecksumMismatch, match=rf"{re.escape(path.name)}:{number}: .*damaged"):
            verify_log(log)


@pytest.mark.parametrize("cut", [1, 17, 100, 1100, 2000])
def test_a_finished_segment_cut_short_is_a_gap(tmp_path, cut):
    log = laid_out(tmp_path, written(compressed=False))
    path = sealed_path(log, 2)
    path.write_bytes(path.read_bytes()[:-cut])
    for read in (verify_log, lambda log: list(read_lines(log))):
        with pytest.raises(SequenceGap, match=rf"{re.escape(path.name)}:\d+: the file was cut short here"):
            read(log)


def test_a_compressed_segment_cut_anywhere_is_found(tmp_path):
    files = written(compressed=True)
    log = laid_out(tmp_path, files)
    path = compressed_path(log, 2)
    for end in range(0, len(files[path.name]), 7):
        path.write_bytes(files[path.name][:end])
        with pytest.raises((ChecksumMismatch, SequenceGap), match=re.escape(path.name)):
            verify_log(log)


def test_a_missing_segment_is_named(log):
    for path in finished_segments(log)[2]:
        path.unlink()
    with pytest.raises(SequenceGap, match=compressed_path(log, 2).name):
        verify_log(log)


def test_a_log_shorter_than_its_checkpoint_is_a_gap(log):
    log.write_bytes(log.read_bytes()[:-3])
    with pytest.raises(SequenceGap, match="ends before byte"):
        verify_log(log)


def test_a_segment_rewritten_with_right_checksums_is_found_by_its_hash(tmp_path):
    log = laid_out(tmp_path, written(compressed=False))
    last = active_header(log)[0].segment - 1
    path = sealed_path(log, last)
    data, crc = chained([body.replace(b'"command-1"', b'"command-2"') for body in bodies(path)])
    path.write_bytes(data)
    rewrite_header(log, crc=crc)
    with pytest.raises(ChecksumMismatch, match=rf"{path.name}:1-\d+: segment {last} was rewritten"):
        verify_log(log)


def test_a_finished_segment_with_right_checksums_must_end_as_its_successor_says(tmp_path):
    log = laid_out(tmp_path, written(compressed=False))
    path = sealed_path(log, 2)
    lines = bodies(path)
    others = [body.replace(b'"command-1"', b'"command-2"') for body in lines]
    for forged in (others, [*lines, lines[-1]]):
        path.write_bytes(chained(forged)[0])
        with pytest.raises(ChecksumMismatch, match=rf"{path.name}:\d+: damaged \(segment 2\)"):
            list(read_lines(log))


def test_a_header_that_tells_another_state_is_found(log):
    rewrite_header(log, positions={0: "999-0"})
    with pytest.raises(ChecksumMismatch, match=rf"{NAME}:1: the header does not say how segment"):
        verify_log(log)


def test_a_record_that_is_not_what_its_digest_says_is_found(tmp_path):
    log = tmp_path / NAME
    with Journal(log, SHARDS) as journal:
        journal.append([entry("a", 1), entry("b", 1)._replace(digest=b"0" * 16)])
        journal.commit({1: "1-0"})
    with pytest.raises(
        ChecksumMismatch, match=rf"{NAME}:3: record 'b' version 1 is not what its digest says"
    ):
        verify_log(log)


def bodies(path: Path) -> list[bytes]:
    """The lines of a plain segment, without their checksums."""
    return [line[:-SUFFIX_BYTES] for line in path.read_bytes().splitlines(keepends=True)]


def chained(lines: list[bytes]) -> tuple[bytes, int]:
    """The lines with right checksums, and the last of those."""
    crc, written = 0, []
    for body in lines:
        line, crc = framed(body, crc)
        written.append(line)
    return b"".join(written), crc


def rewrite_header(log: Path, **changed: object) -> None:
    """Have the active segment say something else of the one before, with right checksums."""
    header, _ = active_header(log)
    assert header.before is not None
    point = msgspec.structs.replace(header.before.point, **changed)
    before = msgspec.structs.replace(header.before, point=point)
    line, _ = encode_header(msgspec.structs.replace(header, before=before))
    log.write_bytes(chained([line[:-SUFFIX_BYTES], *bodies(log)[1:]])[0])
    checkpoint_of(log).unlink()


def flipped(data: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("from_end", [20, 5, 1])
def test_a_damaged_last_commit_is_no_torn_tail_once_a_checkpoint_knows_it(tmp_path, from_end):
    log = tmp_path / "trade_pool.log"
    with Journal(log, 4) as journal:
        for number in (1, 2):
            journal.append([entry(f"r{number}", 1, position=f"{number}-1")])
            journal.commit({1: f"{number}-1"})
    data = bytearray(log.read_bytes())
    data[-from_end] ^= 1
    log.write_bytes(data)

    with pytest.raises(ChecksumMismatch, match=r"trade_pool\.log:4: damaged"):
        verify_log(log)
    with pytest.raises(ChecksumMismatch, match=r"trade_pool\.log:4: damaged"):
        Journal(log, 4)


def test_a_writer_that_goes_on_and_rotates_under_the_verification_is_no_damage(tmp_path, monkeypatch):
    log = tmp_path / "trade_pool.log"
    numbers = count(1)

    def write(journal, groups):
        for number in islice(numbers, groups):
            journal.append([entry(f"r{number}", 1, position=f"{number}-1")])
            journal.commit({1: f"{number}-1"})

    with Journal(log, 4, segment_bytes=3000) as journal:
        write(journal, 5)
        read = verification.read_groups
        looks = iter((12, 3))

        def then_busy(path, *, since):
            yield from read(path, since=since)
            write(journal, next(looks, 0))

        monkeypatch.setattr(verification, "read_groups", then_busy)
        report = verify_log(log)

    assert report.segments > 1
    assert report.lines in (17, 20)
