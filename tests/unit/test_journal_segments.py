"""A journal of many segments reads as one, whatever of it is finished, compressed or moved away."""

from __future__ import annotations

import json
import re
import tracemalloc
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import zstandard

from tests.journal_entries import (
    SEGMENT_BYTES,
    SHARDS,
    commit_numbered,
    entry,
    finished_files,
    write_segments,
)
from tests.waiting import eventually
from tradepool.errors import ChecksumMismatch, Corrupt, SequenceGap
from tradepool.files import sealing
from tradepool.files.checkpoint import checkpoint_of, load_checkpoint
from tradepool.files.history import read_history
from tradepool.files.journal import Journal
from tradepool.files.reading import points_back, read_groups, read_lines, read_segment, segment_start
from tradepool.files.segments import active_header, compressed_path, finished_segments, sealed_path

GROUPS = 20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "trade_pool.log"


@pytest.fixture(params=[True, False], ids=["compressed", "plain"])
def places(request, log):
    """A written journal; the place after each of its groups."""
    return write_segments(log, GROUPS, compressed=request.param)


def opened(log: Path) -> Journal:
    return Journal(log, SHARDS, segment_bytes=SEGMENT_BYTES)


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if path.suffix == ".zst" else data


def test_finished_segments_are_numbered_and_read_as_one(log, places):
    header, _ = active_header(log)
    assert sorted(finished_segments(log)) == list(range(1, header.segment))
    assert header.segment > 3
    assert [line.seq for line in read_lines(log)] == list(range(1, 2 * GROUPS + 1))
    assert [group.end.offset for group in read_groups(log)] == [place.offset for place in places]


def test_each_header_names_the_hash_and_the_state_of_the_segment_before(log, places):
    files = [*finished_files(log), log]
    for before, after in pairwise(files):
        header = json.loads(content(after).splitlines()[0])
        assert header["before"]["sha256"] == sha256(content(before)).hexdigest()
        assert header["before"]["point"]["offset"] == len(content(before))
        assert header["segment"] == header["before"]["point"]["segment"] + 1


def test_reading_can_begin_after_every_group(log, places):
    for number, place in enumerate(places, start=1):
        assert [line.seq for line in read_lines(log, since=place)] == list(
            range(2 * number + 1, 2 * GROUPS + 1)
        )


def test_reading_can_begin_at_every_segment(log, places):
    points = list(points_back(log))
    assert [point.segment for point in points[1:]] == list(range(active_header(log)[0].segment, 1, -1))
    for point in points:
        assert [line.seq for line in read_lines(log, since=point)] == list(
            range(point.seq + 1, 2 * GROUPS + 1)
        )
        assert sum(point.digest(shard).count for shard in range(SHARDS)) == point.seq


def test_a_place_that_no_line_ends_at_is_refused_in_every_segment(log, places):
    for place in places:
        with pytest.raises(ChecksumMismatch, match="line that ended at byte"):
            list(read_lines(log, since=msgspec.structs.replace(place, offset=place.offset - 1)))


def test_reading_crosses_segments_and_one_can_be_read_alone(log):
    with opened(log) as journal:
        for version in range(1, 13):
            journal.append([entry("a", version, size=500, position=f"{version}-0"), entry(f"b{version}", 1)])
            journal.commit({1: f"{version}-0"})
    assert active_header(log)[0].segment > 2
    assert [line.version for line in read_history(log, "a")] == list(range(1, 13))
    groups = list(read_groups(log))
    starts = [segment_start(log, number) for number in range(1, active_header(log)[0].segment + 1)]
    assert [group for start in starts for group in read_segment(log, start)] == groups
    assert list(read_lines(log, since=groups[-1].end)) == []


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_opening_again_goes_on_in_the_last_segment(log, places, with_checkpoint):
    if not with_checkpoint:
        checkpoint_of(log).unlink()
    with opened(log) as journal:
        assert journal.point == places[-1]
        commit_numbered(journal, GROUPS + 1)
    assert [line.seq for line in read_lines(log)] == list(range(1, 2 * GROUPS + 3))


def test_opening_needs_only_the_active_segment(log, places):
    for path in finished_files(log):
        path.rename(log.parent.parent / path.name)
    checkpoint_of(log).unlink()
    with opened(log) as journal:
        assert journal.point == places[-1]
        commit_numbered(journal, GROUPS + 1)


def test_a_checkpoint_from_a_finished_segment_gives_way_to_the_header(log, places):
    old = next(place for place in places if place.segment == 2)
    journal = opened(log)
    journal.close()
    stale = checkpoint_of(log).read_bytes()
    assert load_checkpoint(log, journal.id) is not None
    with opened(log) as journal:
        while journal.point.segment == places[-1].segment:
            commit_numbered(journal, 100 + journal.point.seq)
        reached = journal.point
    checkpoint_of(log).write_bytes(stale)
    assert load_checkpoint(log, journal.id) is None
    assert old.segment < reached.segment
    with opened(log) as journal:
        assert journal.point == reached


def test_old_segments_that_were_moved_away_fail_only_those_who_need_them(log, places):
    gone = [path for number in (1, 2) for path in finished_segments(log)[number]]
    for path in gone:
        path.rename(log.parent.parent / path.name)
    names = re.escape(f"{compressed_path(log, 1).name} to {compressed_path(log, 2).name} (2 files) missing")
    for read in (read_lines, lambda log: list(read_history(log, "1-a"))):
        with pytest.raises(SequenceGap, match=names):
            list(read(log))
    end_of_second = max((p for p in places if p.segment == 2), key=lambda place: place.offset)
    for place in (place for place in places if place.segment > 2 or place == end_of_second):
        assert next(read_lines(log, since=place), None) is None or place != places[-1]
    with pytest.raises(SequenceGap, match=compressed_path(log, 2).name):
        list(read_lines(log, since=next(place for place in places if place.segment == 2)))
    opened(log).close()


def test_a_missing_segment_is_named_before_anything_is_read(log, places):
    for path in finished_segments(log)[3]:
        path.unlink()
    for since in (None, places[0]):
        with pytest.raises(SequenceGap, match=f"{compressed_path(log, 3).name} missing"):
            next(read_lines(log, since=since))


def test_reading_a_compressed_segment_takes_little_memory(log):
    segment_bytes = 8 << 20
    with Journal(log, SHARDS, segment_bytes=segment_bytes) as journal:
        while journal.point.segment == 1:
            position = f"{journal.point.seq + 1}-0"
            journal.append([entry(f"{position}-{i}", 1, size=9000, position=position) for i in range(50)])
            journal.commit({1: position})
        eventually(lambda: finished_files(log) == [compressed_path(log, 1)])
    tracemalloc.start()
    count = sum(1 for _ in read_lines(log))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == journal.point.seq > segment_bytes // 10_000
    assert peak < segment_bytes // 2


def test_a_log_older_than_its_finished_segments_is_refused(log, places):
    checkpoint_of(log).unlink()
    newest = content(finished_files(log)[-1])
    for older in (newest[:-600], content(finished_files(log)[0])):
        log.write_bytes(older)
        with pytest.raises(SequenceGap, match="the newest log is missing"):
            opened(log)


def test_a_log_of_an_earlier_segment_than_its_checkpoint_is_refused(log, places):
    newest = finished_files(log)[-1]
    log.write_bytes(content(newest))
    newest.unlink()
    with pytest.raises(SequenceGap, match=f"ends before byte .* of segment {places[-1].segment}"):
        opened(log)


def test_a_copy_made_during_a_rotation_is_told_from_a_lost_log(log):
    write_segments(log, GROUPS, compressed=False)
    sealed_path(log, active_header(log)[0].segment).write_bytes(log.read_bytes())
    with pytest.raises(Corrupt, match="if it is a copy of that file, remove it"):
        opened(log)


def test_a_log_that_is_gone_is_not_begun_anew_beside_finished_segments(log, places):
    checkpoint_of(log).unlink()
    log.unlink()
    with pytest.raises(SequenceGap, match="put the log back"):
        opened(log)


def test_a_segment_of_another_journal_is_refused(log, places, tmp_path):
    other = tmp_path / "other" / log.name
    write_segments(other, GROUPS)
    for path in finished_segments(log)[2]:
        path.unlink()
    compressed_path(log, 2).write_bytes(compressed_path(other, 2).read_bytes())
    with pytest.raises(ChecksumMismatch, match=f"{compressed_path(log, 2).name}:1: is segment 2 of journal"):
        list(read_lines(log))


def test_segments_left_uncompressed_are_compressed_by_the_next_owner(log):
    write_segments(log, GROUPS, compressed=False)
    plain = [path.read_bytes() for path in finished_files(log)]
    with opened(log):
        eventually(lambda: all(path.suffix == ".zst" for path in finished_files(log)))
    assert [content(path) for path in finished_files(log)] == plain


def test_what_a_crash_left_beside_its_compressed_form_is_compressed_again(log):
    write_segments(log, GROUPS, compressed=False)
    sealed = sealed_path(log, 2)
    compressed_path(log, 2).write_bytes(b"cut short")
    with opened(log):
        eventually(lambda: not sealed.exists())
    assert [line.seq for line in read_lines(log)] == list(range(1, 2 * GROUPS + 1))


def test_a_damaged_segment_is_kept_as_it_is(log):
    write_segments(log, GROUPS, compressed=False)
    damaged = sealed_path(log, 2)
    data = bytearray(damaged.read_bytes())
    data[700] ^= 1
    damaged.write_bytes(data)
    with opened(log):
        eventually(lambda: len([path for path in finished_files(log) if path.suffix == ".log"]) == 1)
        eventually(lambda: not compressed_path(log, 2).exists())
    assert damaged.read_bytes() == data
    assert not compressed_path(log, 2).exists()


def test_the_hash_is_taken_while_the_segment_grows(log, monkeypatch):
    monkeypatch.setattr(sealing, "HASH_EVERY_BYTES", 700)
    with opened(log) as journal:
        while journal.point.offset < SEGMENT_BYTES - 800:
            commit_numbered(journal, journal.point.seq + 1)
        eventually(lambda: journal._sealer._hash._done >= 700)
        assert journal.point.segment == 1
        while journal.point.segment < 3:
            commit_numbered(journal, journal.point.seq + 1)
        eventually(lambda: finished_files(log) == [compressed_path(log, 1), compressed_path(log, 2)])
    assert len(list(read_lines(log))) == journal.point.seq
