"""Sifting: which rows of journal and snapshot an audit keeps, and what it does not take for rows."""

from __future__ import annotations

import pytest

from tests.journal_entries import entry, write_groups
from tradepool.audit.parts import bounds
from tradepool.audit.parts.journal_sift import JournalSift, rows_since
from tradepool.audit.parts.part import Answer, Kind, Part, SnapshotPin, WorkFile
from tradepool.audit.parts.rows import Row, RowFiles, When, read_rows
from tradepool.audit.parts.snapshot_comparison import SnapshotComparison
from tradepool.audit.parts.stages import groups_of
from tradepool.audit.rules.key_rules import key_ttl, unknown_key
from tradepool.errors import ResourceUnavailable
from tradepool.files.reading import Latest, read_groups, read_lines
from tradepool.files.snapshot import bodies_between

GROUPS = ((0, 1), (2, 3))


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "trade_pool.log"
    versions = [
        [
            entry("a", 1, position="1-0"),
            entry("b", 1, position="1-0"),
            entry("c", 1, shard=2, position="1-0"),
        ],
        [entry("a", 2, position="2-0")],
        [entry("a", 3, position="3-0"), entry("a", 4, position="3-0")],
        [entry("a", 5, position="4-0"), entry("a", 6, position="5-0"), entry("b", 2, position="5-0")],
    ]
    write_groups(path, versions)
    return path


def sifted(log, folder, shards=(0, 1, 2, 3), snapshot=None):
    """(record, version, when) of each row, by group; and the place up to which was read."""
    files = RowFiles(folder, GROUPS)
    end = JournalSift(log, shards, snapshot).sift(1, files)
    kept = files.end()
    rows = {group: list(read_rows(folder, group, of)) for group, of in kept.items()}
    return {group: {(row.record_id, row.version, row.when) for row in of} for group, of in rows.items()}, end


def test_of_each_record_the_newest_version_of_a_segment_is_kept(log, tmp_path):
    found, end = sifted(log, tmp_path / "rows")

    assert found == {0: {("a", 6, When.BEFORE), ("b", 2, When.BEFORE)}, 1: {("c", 1, When.BEFORE)}}
    assert list(read_lines(log, since=end)) == []


def test_shards_that_nobody_asks_for_are_left_out(log, tmp_path):
    assert set(sifted(log, tmp_path / "rows", shards=[2])[0]) == {1}
    first = next(read_groups(log)).end
    found = [(row.record_id, row.version) for row, _ in rows_since(log, first, [1])]
    assert found == [("a", 2), ("a", 3), ("a", 4), ("a", 5), ("a", 6), ("b", 2)]
    assert list(rows_since(log, first, [2])) == []


def test_of_the_time_of_a_snapshot_every_version_is_kept(log, tmp_path):
    begins_at = list(read_groups(log))[1].end.seq
    pin = SnapshotPin(begins_at=begins_at, covers={1: "4-0"}, folder="", files={})

    found, _ = sifted(log, tmp_path / "rows", snapshot=pin)

    before = {("a", 2, When.BEFORE), ("b", 1, When.BEFORE)}
    within = {("a", 3, When.WITHIN), ("a", 4, When.WITHIN), ("a", 5, When.WITHIN)}
    assert found == {
        0: before | within | {("a", 6, When.AFTER), ("b", 2, When.AFTER)},
        1: {("c", 1, When.BEFORE)},
    }


def test_a_snapshot_has_what_was_newest_at_its_scan_or_journaled_before_its_end():
    kept = {"same": (2, "2"), "later": (4, "4"), "old": (1, "1"), "other": (2, "x"), "ghost": (1, "1")}
    comparison = SnapshotComparison(Row(name, 1, *version) for name, version in kept.items())
    journal = [
        *(Row(name, 1, 2, "2", When.BEFORE) for name in ("same", "old", "other", "left out", "later")),
        *(Row("later", 1, version, f"{version}", When.WITHIN) for version in (3, 4, 5)),
        Row("ghost", 1, 1, "1", When.AFTER),
    ]
    newest: dict[int, dict[str, Latest]] = {1: {}}
    for row in journal:
        comparison.look(row, newest)
        newest[1][row.record_id] = Latest(row.version, row.digest, "")

    found = {finding.subject: finding.detail for finding in comparison.findings(newest)}

    assert found == {
        "old": "version 1, the journal had 2",
        "other": "version 2 is another one in the journal",
        "left out": "the snapshot does not have it",
        "ghost": "version 1 is not in the journal",
    }


def test_rows_that_are_not_what_was_written_are_refused(tmp_path):
    folder = tmp_path / "rows"
    files = RowFiles(folder, GROUPS)
    for number in range(50):
        files.replace(Row(f"id {number % 40}", 0, number, "d"))
    kept = files.end()[0]
    assert [row.version for row in read_rows(folder, 0, kept)] == [*range(40, 50), *range(10, 40)]

    whole = (folder / "000.rows").read_bytes()
    for broken in (whole[:-20], whole.replace(b"id 7", b"id 8"), b"\0" * len(whole), b""):
        (folder / "000.rows").write_bytes(broken)
        with pytest.raises(ResourceUnavailable, match="work file"):
            list(read_rows(folder, 0, kept))
    with pytest.raises(ResourceUnavailable, match="share one data_dir"):
        list(read_rows(tmp_path, 0, kept))
    with pytest.raises(ResourceUnavailable, match="room there"):
        RowFiles(folder, GROUPS)


def test_rows_stay_in_order_when_there_are_more_than_memory_should_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("tradepool.audit.parts.rows._ROWS_MAX", 7)
    files = RowFiles(tmp_path / "rows", GROUPS)
    for number in range(100):
        files.replace(Row(f"{number % 5}", number % 5 % 4, number, "d"))
    kept = files.end()
    newest = {
        row.record_id: row.version
        for group in kept
        for row in read_rows(tmp_path / "rows", group, kept[group])
    }
    assert newest == {f"{number}": 95 + number for number in range(5)}
    assert all(isinstance(of, WorkFile) for of in kept.values())


@pytest.mark.parametrize("piece", [1, 7, 40, 1000])
def test_pieces_of_a_file_have_every_line_once(tmp_path, piece):
    path = tmp_path / "trades.json"
    bodies = [b'{"n":%d}' % number * (1 + number % 3) for number in range(30)]
    path.write_bytes(b"[\n" + b",\n".join(bodies) + b"\n]\n")
    size = path.stat().st_size
    found = [body for begin in range(0, size, piece) for body in bodies_between(path, begin, begin + piece)]
    assert found == bodies


@pytest.mark.parametrize(
    ("shards", "records", "groups"), [(64, 0, 1), (64, 60_000, 6), (4, 10**9, 4), (1, 9, 1)]
)
def test_groups_have_every_shard_once_and_are_of_one_size(shards, records, groups):
    found = groups_of(range(shards), records)
    assert [shard for group in found for shard in group] == list(range(shards))
    assert len(found) == groups
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_part_lists_its_worst_findings_and_tells_how_many_more_there_are():
    few, many = bounds.FINDINGS_MAX - 1, bounds.FINDINGS_MAX + 7
    bad = [unknown_key.finding(f"key {number}", "found") for number in range(many)]
    worst = [key_ttl.finding(f"key {number}", "found") for number in range(few)]
    undecided = [f"user {number}" for number in range(bounds.UNDECIDED_MAX + 3)]
    part = Part(kind=Kind.KEYS)

    told = bounds.bounded(part, Answer(findings=(*bad, *bad, *worst), undecided=tuple(undecided)))

    assert set(worst) < set(told.findings) < {*bad, *worst}
    assert len(told.findings) == bounds.FINDINGS_MAX
    assert told.undecided[:2] == (
        f"{many - 1} more findings 'unknown_key' of part keys-00000000",
        "3 more of part keys-00000000",
    )
    assert told.undecided[2:] == tuple(undecided[:-3])
    assert bounds.bounded(part, Answer(findings=tuple(worst))).findings == tuple(worst)


def test_an_attempt_that_the_disk_ends_leaves_nothing_on_it(tmp_path):
    files = RowFiles(tmp_path / "rows", GROUPS)
    files.add(Row("a", 0, 1, "d"))
    files.flush()
    (tmp_path / "rows" / "001.rows").mkdir()
    files.add(Row("b", 2, 1, "d"))
    with pytest.raises(ResourceUnavailable, match="needs room"):
        files.end()
    assert not (tmp_path / "rows").exists()
