"""The journal alone, on real files: what counts, what is cut, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.journal_entries import SHARDS, entry, group, reopened, write_groups
from tradepool.errors import (
    ChecksumMismatch,
    Corrupt,
    Misconfigured,
    PoolLocked,
    ResourceUnavailable,
    SequenceGap,
)
from tradepool.files.checkpoint import checkpoint_of, load_checkpoint, save_checkpoint
from tradepool.files.header import encode_header
from tradepool.files.history import read_history
from tradepool.files.journal import Journal
from tradepool.files.lines import Commit, encode_commit, encode_lines
from tradepool.files.reading import read_groups, read_lines
from tradepool.files.segments import active_header
from tradepool.model.codec import split


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "trade_pool.log"


def test_a_new_journal_is_empty_and_says_what_it_is(log):
    with Journal(log, SHARDS) as journal:
        assert (journal.point.seq, journal.point.positions, journal.point.position(3)) == (0, {}, "0-0")
    header, _ = active_header(log)
    assert (header.id, header.shards) == (journal.id, SHARDS)
    assert list(read_lines(log)) == []


def test_committed_entries_come_back_as_they_went_in(log):
    entries = [entry("a", 1), entry('b"\n\u2028ü', 1, shard=2), entry("a", 2)]
    write_groups(log, [entries])
    read = list(read_lines(log))
    assert [line.seq for line in read] == [1, 2, 3]
    assert [r.record_id for r in read] == ["a", 'b"\n\u2028ü', "a"]
    assert [(r.version, r.shard, r.previous.encode()) for r in read] == [
        (e.version, e.shard, e.previous) for e in entries
    ]
    assert [split(r.value)[1] for r in read] == [e.record for e in entries]


def test_every_line_is_plain_json(log):
    write_groups(log, [group(1), group(2)])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["tradepool_journal"] == 1
    assert [sorted(line["commit"]) for line in lines if "commit" in line] == [["1"], ["2"]]


def test_a_value_whose_digest_is_not_its_own_is_corrupt(log):
    write_groups(log, [[entry("a", 1)._replace(digest=b"0" * 16)]])
    (forged,) = read_lines(log)
    with pytest.raises(Corrupt, match="'a' version 1"):
        _ = forged.value


def test_an_uncommitted_group_is_not_there(log):
    with Journal(log, SHARDS) as journal:
        journal.append([entry("a", 1)])
    assert list(read_lines(log)) == []
    with reopened(log) as journal:
        assert journal.point.seq == 0


def test_reopening_continues_positions_digests_and_numbers(log):
    write_groups(log, [group(1), group(2)])
    with reopened(log) as journal:
        assert sorted(journal.point.positions) == [1, 2]
        assert [journal.point.digest(s).count for s in range(SHARDS)] == [0, 2, 2, 0]
        journal.append(group(3))
        journal.commit({3: "7-0"})
    with reopened(log) as journal:
        assert journal.point.position(3) == "7-0"
    assert [line.seq for line in read_lines(log)] == [1, 2, 3, 4, 5, 6]


def test_a_digest_is_the_xor_of_the_newest_versions(log):
    first, second = entry("a", 1), entry("a", 2, position="9-0")
    write_groups(log, [[first], [second, entry("b", 1)]])
    with reopened(log) as journal:
        digest = journal.point.digest(1)
    assert digest.count == 2
    assert digest.text == f"{int(second.digest, 16) ^ int(entry('b', 1).digest, 16):016x}"


def test_a_commit_without_entries_moves_the_position(log):
    with Journal(log, SHARDS) as journal:
        journal.commit({0: "5-0"})
        journal.commit({})
    with reopened(log) as journal:
        assert (journal.point.position(0), journal.point.seq) == ("5-0", 0)


def test_positions_never_move_back(log):
    with Journal(log, SHARDS) as journal:
        journal.commit({0: "10-2"})
        with pytest.raises(AssertionError):
            journal.commit({0: "9-7"})


def test_a_second_opener_is_told_who_holds_the_pool(log):
    with Journal(log, SHARDS), pytest.raises(PoolLocked, match=r"trade_pool\.lock: held by process \d+"):
        Journal(log, SHARDS)
    reopened(log).close()


def test_another_shard_count_is_refused_and_both_are_named(log):
    Journal(log, SHARDS).close()
    with pytest.raises(Misconfigured, match="made with 4 shards, the settings say 64"):
        Journal(log, 64)
    reopened(log).close()


def test_a_file_where_the_folder_should_be_is_a_setting_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceUnavailable, match="set data_dir"):
        Journal(tmp_path / "file" / "trade_pool.log", SHARDS)


def test_a_journal_of_a_newer_release_is_not_read(log):
    Journal(log, SHARDS).close()
    checkpoint_of(log).unlink()
    header, _ = active_header(log)
    newer = msgspec.structs.replace(header, format=2)
    log.write_bytes(encode_header(newer)[0])
    with pytest.raises(Misconfigured, match="upgrade"):
        reopened(log)


def test_a_tail_torn_at_any_byte_is_cut_and_writing_goes_on(log):
    write_groups(log, [group(1)], checkpoint=False)
    whole = log.read_bytes()
    write_groups(log, [group(2)], checkpoint=False)
    both = log.read_bytes()
    for end in range(len(whole), len(both)):
        log.write_bytes(both[:end])
        write_groups(log, [group(3)], checkpoint=False)
        assert log.read_bytes()[: len(whole)] == whole
        assert [(line.seq, line.shard) for line in read_lines(log)] == [(1, 1), (2, 1), (3, 3), (4, 3)], end


def test_a_torn_tail_stays_until_something_is_written(log):
    write_groups(log, [group(1)])
    log.write_bytes(log.read_bytes() + b'{"q":3,"s":')
    reopened(log).close()
    assert log.read_bytes().endswith(b'{"q":3,"s":')
    write_groups(log, [group(2)])
    assert b'{"q":3,"s":{' not in log.read_bytes()


def test_a_flipped_bit_before_the_last_commit_is_found_and_placed(log):
    write_groups(log, [group(1), group(2), group(3)], checkpoint=False)
    good = log.read_bytes()
    last_commit = good.rindex(b'{"commit"')
    for at in range(0, last_commit, 7):
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        log.write_bytes(bad)
        number = good[:at].count(b"\n") + 1
        with pytest.raises(ChecksumMismatch, match=rf"trade_pool\.log:{number}:"):
            reopened(log)
        with pytest.raises(ChecksumMismatch, match=rf"trade_pool\.log:{number}:"):
            list(read_lines(log))


@pytest.mark.parametrize("back", [1, 2, 3, 9, 17, 18])
def test_damage_to_the_end_of_the_last_entry_is_damage_too(log, back):
    write_groups(log, [group(1)], checkpoint=False)
    bad = bytearray(log.read_bytes())
    bad[bad.rindex(b'{"commit"') - back] ^= 0x04
    log.write_bytes(bad)
    with pytest.raises(ChecksumMismatch, match=":3:"):
        reopened(log)


def test_a_missing_line_is_a_gap_even_with_right_checksums(log):
    with Journal(log, SHARDS) as journal:
        crc = journal.point.crc
    checkpoint_of(log).unlink()
    first, crc = encode_lines([entry("a", 1)], 0, crc)
    third, crc = encode_lines([entry("a", 2)], 2, crc)
    commit, _ = encode_commit(Commit(positions={1: "9-0"}, seq=3, at=0), crc)
    log.write_bytes(b"".join((log.read_bytes(), *first, *third, commit)))
    with pytest.raises(SequenceGap, match=r"trade_pool\.log:3: entry 2 is missing"):
        reopened(log)


def test_a_log_shorter_than_its_checkpoint_is_refused(log):
    write_groups(log, [group(1), group(2)])
    log.write_bytes(log.read_bytes()[:-3])
    with pytest.raises(SequenceGap, match="ends before byte"):
        reopened(log)


def test_a_log_that_is_gone_is_not_begun_anew(log):
    write_groups(log, [group(1)])
    log.unlink()
    with pytest.raises(SequenceGap, match="put the log back"):
        reopened(log)


def test_a_log_moved_under_its_writer_stops_it(log):
    with Journal(log, SHARDS) as journal:
        journal.commit({0: "1-0"})
        log.rename(log.with_name("rotated"))
        with pytest.raises(Corrupt, match="moved"):
            journal.commit({0: "2-0"})


def test_opening_reads_only_what_follows_the_checkpoint(log):
    write_groups(log, [group(1), group(2)])
    before = log.read_bytes()
    first_entry = before.index(b'{"q":1,')
    log.write_bytes(before[:first_entry] + b"#" + before[first_entry + 1 :])
    with reopened(log) as journal:
        assert journal.point.seq == 4
    with pytest.raises(ChecksumMismatch):
        list(read_lines(log))


def test_a_damaged_or_foreign_checkpoint_costs_only_a_full_scan(log, tmp_path):
    write_groups(log, [group(1), group(2)])
    with reopened(log) as journal:
        expected = journal.point
    good = checkpoint_of(log).read_bytes()
    other = tmp_path / "other" / "trade_pool.log"
    write_groups(other, [group(1)])
    flipped = good.replace(b'"seq":2', b'"seq":3')
    for content in (b"", b"{}", good[:-4], flipped, checkpoint_of(other).read_bytes(), b"\xff\x00"):
        checkpoint_of(log).write_bytes(content)
        assert load_checkpoint(log, journal.id) is None
        with reopened(log) as again:
            assert again.point == expected


@pytest.mark.parametrize(
    ("journal_id", "changed"),
    [("another", {}), (None, {"crc": 1}), (None, {"offset": 200})],
)
def test_a_checkpoint_is_trusted_only_where_the_log_confirms_it(log, journal_id, changed):
    write_groups(log, [group(1), group(2)])
    with reopened(log) as journal:
        point = journal.point
    wrong = msgspec.structs.replace(point, **changed)
    save_checkpoint(log, journal_id or journal.id, wrong, reached=wrong.offset)
    assert load_checkpoint(log, journal.id) is None
    save_checkpoint(log, journal.id, point, reached=point.offset)
    assert load_checkpoint(log, journal.id) == point


Groups = st.lists(
    st.lists(st.tuples(st.integers(0, SHARDS - 1), st.sampled_from("abcdef")), max_size=6),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(groups=Groups, checkpoint_after=st.integers(0, 7))
def test_the_checkpoint_says_what_a_full_scan_says(tmp_path_factory, groups, checkpoint_after):
    log = tmp_path_factory.mktemp("pool") / "trade_pool.log"
    versions: dict[tuple[int, str], int] = {}
    written = []
    for number, records in enumerate(groups, start=1):
        entries = []
        for shard, name in records:
            version = versions[shard, name] = versions.get((shard, name), 0) + 1
            entries.append(entry(name, version, shard=shard, position=f"{number}-0"))
        written.append(entries)
    write_groups(log, written[: checkpoint_after + 1])
    write_groups(log, written[checkpoint_after + 1 :], checkpoint=False)
    with reopened(log, checkpoint=False) as journal:
        from_checkpoint = journal.point
    checkpoint_of(log).unlink()
    with reopened(log) as journal:
        assert journal.point == from_checkpoint


def test_history_is_every_version_of_one_record(log):
    write_groups(log, [[entry("a", 1), entry("ab", 1)], [entry("a", 2, position="9-0")]])
    assert [(line.record_id, line.version) for line in read_history(log, "a")] == [("a", 1), ("a", 2)]
    assert list(read_history(log, "nobody")) == []


def test_reading_can_begin_after_any_commit_and_nowhere_else(log):
    write_groups(log, [group(1), group(2)])
    after_first = next(read_groups(log)).end
    assert [line.seq for line in read_lines(log, since=after_first)] == [3, 4]
    for changed in ({"offset": after_first.offset + 1}, {"crc": 1}):
        with pytest.raises(ChecksumMismatch, match="line that ended at byte"):
            list(read_lines(log, since=msgspec.structs.replace(after_first, **changed)))


def test_a_reader_sees_whole_groups_while_the_writer_goes_on(log):
    with Journal(log, SHARDS) as journal:
        journal.append(group(1))
        journal.commit({1: "1-0"})
        lines = read_lines(log)
        assert next(lines).seq == 1
        journal.append(group(2))
        journal.commit({2: "1-0"})
        assert [line.seq for line in lines] in ([2], [2, 3, 4])
        assert [line.seq for line in read_lines(log)] == [1, 2, 3, 4]


def test_a_write_cut_back_under_a_reader_is_not_taken_for_damage(log):
    failed = [entry(f"r{i}", 1, size=4000) for i in range(600)]
    written_instead = [entry(f"s{i}", 1, size=5000) for i in range(600)]
    write_groups(log, [group(2), failed], checkpoint=False)
    content = log.read_bytes()
    log.write_bytes(content[:-50])
    lines = read_lines(log)
    assert next(lines).record_id == "2-a"
    log.write_bytes(content[: content.index(b'{"q":3,')])
    write_groups(log, [written_instead], checkpoint=False)
    assert [line.record_id for line in lines] == ["2-b", *(e.record_id.decode() for e in written_instead)]
