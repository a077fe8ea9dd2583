"""Following a journal that grows: each group once, in order, and an error where that cannot be promised."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import pytest

from tests.journal_entries import (
    SEGMENT_BYTES,
    SHARDS,
    commit_numbered,
    finished_files,
    group,
    write_groups,
    write_segments,
)
from tests.waiting import eventually
from tradepool.errors import ChecksumMismatch
from tradepool.files import tailing
from tradepool.files.journal import Journal
from tradepool.files.reading import holds_place, read_lines
from tradepool.files.tailing import PlaceError, Tail


@pytest.fixture
def log(tmp_path):
    return tmp_path / "pool" / "trade_pool.log"


@pytest.fixture
def journal(log):
    with Journal(log, SHARDS, segment_bytes=SEGMENT_BYTES) as opened:
        yield opened


class Reader:
    """A tail, and the numbers of the entries that it has given."""

    def __init__(self, log):
        self.tail = Tail.at_end(log)
        self.seen: list[int] = []

    def read(self) -> bool:
        return self.tail.read(self.take)

    def take(self, groups):
        self.seen += [entry.seq for each in groups for entry in each.entries()]


def test_what_is_committed_is_read_once_and_in_order(journal, log):
    commit_numbered(journal, 1)
    reader = Reader(log)
    assert not reader.read()
    commit_numbered(journal, 2)
    commit_numbered(journal, 3)
    assert reader.read()
    assert not reader.read()
    commit_numbered(journal, 4)
    assert reader.read()
    assert reader.seen == [3, 4, 5, 6, 7, 8]
    assert reader.tail.positions == journal.point.positions


def test_it_goes_on_through_segments_that_are_finished_and_compressed_meanwhile(journal, log):
    commit_numbered(journal, 1)
    reader, slow = Reader(log), Reader(log)
    for number in range(2, 30):
        commit_numbered(journal, number)
        assert reader.read()
    eventually(lambda: all(path.suffix == ".zst" for path in finished_files(log)))
    assert len(finished_files(log)) > 2
    assert slow.read()
    assert reader.seen == slow.seen == list(range(3, 59))
    assert reader.tail.place.offset == slow.tail.place.offset == journal.point.offset


def test_a_file_is_opened_only_where_the_log_has_changed(journal, log, monkeypatch):
    commit_numbered(journal, 1)
    reader = Reader(log)
    reader.read()
    opened = []
    monkeypatch.setattr("tradepool.files.tailing._opened", opened.append)
    assert not reader.read()
    assert opened == []


def test_within_the_active_segment_reading_goes_on_without_looking_for_it(journal, log, monkeypatch):
    reader = Reader(log)
    numbers = count(1)
    while not finished_files(log):
        commit_numbered(journal, next(numbers))
        reader.read()
    commit_numbered(journal, last := next(numbers))
    looked = []
    monkeypatch.setattr("tradepool.files.tailing.read_groups", lambda *_, **__: looked.append(1) or [])
    assert reader.read()
    assert looked == []
    assert reader.seen == list(range(1, 2 * last + 1))


def test_a_torn_tail_is_not_read_until_it_is_written_whole(journal, log):
    commit_numbered(journal, 1)
    reader = Reader(log)
    kept = log.read_bytes()
    commit_numbered(journal, 2)
    whole = log.read_bytes()

    for cut in (len(kept) + 1, len(kept) + 100, len(whole) - 1):
        log.write_bytes(whole[:cut])
        assert not reader.read()
    log.write_bytes(whole)
    assert reader.read()
    assert reader.seen == [3, 4]


@pytest.mark.parametrize("rewritten", [b"", b"another group of the same length"])
def test_a_group_that_was_cut_off_again_is_noticed(journal, log, rewritten):
    commit_numbered(journal, 1)
    confirmed = log.read_bytes()
    reader = Reader(log)
    commit_numbered(journal, 2)
    reader.read()
    unconfirmed = len(log.read_bytes()) - len(confirmed)
    log.write_bytes(confirmed + rewritten.ljust(unconfirmed, b".") if rewritten else confirmed)
    with pytest.raises(PlaceError, match="not there any more"):
        reader.read()


def test_a_group_that_is_cut_off_between_two_looks_is_no_damage(journal, log, monkeypatch):
    commit_numbered(journal, 1)
    confirmed = log.read_bytes()
    commit_numbered(journal, 2)
    reader = Reader(log)

    def cut_off_since(path, place):
        found = holds_place(path, place)
        log.write_bytes(confirmed)
        return found

    monkeypatch.setattr(tailing, "holds_place", cut_off_since)
    with pytest.raises(PlaceError, match="not there any more"):
        reader.read()


@pytest.mark.parametrize("same_file", [False, True])
def test_another_journal_under_the_same_name_is_noticed(log, tmp_path, same_file):
    write_groups(log, [group(1)])
    reader = Reader(log)
    reader.read()
    other = tmp_path / "other" / "trade_pool.log"
    write_groups(other, [group(1), group(2), group(3)])
    if same_file:
        log.write_bytes(other.read_bytes())
    else:
        Path(shutil.copy(other, tmp_path / "copy")).replace(log)
    with pytest.raises(PlaceError, match="is journal"):
        reader.read()


def test_a_log_that_is_gone_is_noticed(log):
    write_groups(log, [group(1)])
    reader = Reader(log)
    reader.read()
    log.unlink()
    with pytest.raises(PlaceError, match="is gone"):
        reader.read()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_segment_that_was_moved_away_unread_is_noticed(log, which):
    first = write_segments(log, 30)[0]
    tail = Tail(log, Tail.at_end(log).journal_id, first, {})
    finished_files(log)[which].unlink()
    with pytest.raises(PlaceError, match="missing"):
        tail.read(lambda _: None)


def test_segments_before_the_place_may_be_moved_away(log):
    places = write_segments(log, 30)
    tail = Tail(log, Tail.at_end(log).journal_id, places[-2], {})
    for file in finished_files(log):
        file.unlink()
    assert tail.read(lambda _: None)


@pytest.mark.parametrize("is_known", [False, True])
def test_damage_is_an_error_each_time_and_nothing_is_skipped(log, is_known):
    write_groups(log, [group(1)])
    reader = Reader(log)
    if is_known:
        write_groups(log, [group(2)])
        reader.read()
    before = log.stat().st_size
    write_groups(log, [group(3), group(0)])
    damaged = bytearray(log.read_bytes())
    damaged[before + 20] ^= 1
    log.write_bytes(damaged)
    seen = list(reader.seen)
    for _ in range(2):
        with pytest.raises(ChecksumMismatch, match="damaged"):
            reader.read()
    assert reader.seen == seen


def test_a_batch_that_could_not_be_taken_is_given_again(journal, log, monkeypatch):
    monkeypatch.setattr("tradepool.files.tailing._BATCH_LINES", 4)
    commit_numbered(journal, 1)
    reader = Reader(log)
    for number in range(2, 8):
        commit_numbered(journal, number)
    taken = []

    def take(groups):
        if taken and len(taken) < 2:
            taken.append("refused")
            raise OSError
        taken.append([entry.seq for each in groups for entry in each.entries()])

    with pytest.raises(OSError):  # noqa: PT011 - the very one raised above
        reader.tail.read(take)
    assert reader.tail.read(take)
    assert taken == [[3, 4, 5, 6], "refused", [7, 8, 9, 10], [11, 12, 13, 14]]


def test_reading_begins_behind_the_last_commit_also_without_a_checkpoint(log):
    write_segments(log, 30)
    log.with_name("journal.checkpoint").unlink()
    tail = Tail.at_end(log)
    assert tail.place.seq == max(entry.seq for entry in read_lines(log))
    assert not tail.behind({shard: f"{30 - (30 - shard) % SHARDS}-0" for shard in range(SHARDS)})
    assert tail.behind({0: "99-0"}) == [0]
