"""The history of one record: whole and proven, and read from as little of the journal as will do."""

from __future__ import annotations

import random
import re

import msgspec
import pytest

from tests.journal_entries import SEGMENT_BYTES, SHARDS, entry, finished_files
from tests.waiting import eventually
from tradepool.errors import ChecksumMismatch, SequenceGap
from tradepool.files import history
from tradepool.files.history import read_history
from tradepool.files.journal import Journal
from tradepool.files.segments import active_header, compressed_path, finished_segments, open_segment
from tradepool.model.codec import digest_of

RECORDS = 12
GROUPS = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A journal of many segments, and how many versions each record has by its end."""
    log = tmp_path_factory.mktemp("journal") / "trade_pool.log"
    draw, versions = random.Random(3), dict.fromkeys((f"r{n}" for n in range(RECORDS)), 0)
    with Journal(log, SHARDS, segment_bytes=SEGMENT_BYTES) as journal:
        for number in range(1, GROUPS + 1):
            # The last two records change in the first and in the last groups only.
            changing = [f"r{n}" for n in range(RECORDS - 2) if draw.random() < 0.3]
            if number < 4 or number > GROUPS - 2:
                changing += ["r10", "r11"]
            for record_id in changing:
                versions[record_id] += 1
            lines = [entry(i, versions[i], position=f"{number}-0", size=200) for i in changing]
            journal.append(lines or [entry(f"only-{number}", 1, position=f"{number}-0")])
            journal.commit({1: f"{number}-0"})
        eventually(lambda: all(path.suffix == ".zst" for path in finished_files(log)))
    assert active_header(log)[0].segment > 8
    return log, versions


@pytest.fixture
def opened_segments(monkeypatch):
    """The numbers of the segments in which lines are looked for, as they are opened."""
    numbers = []
    look = history._lines_in

    def noted(segment, record_id):
        numbers.append(segment.header.segment)
        return look(segment, record_id)

    monkeypatch.setattr(history, "_lines_in", noted)
    return numbers


def forbid_scanning(monkeypatch):
    """Make it fail to read the journal from its beginning."""
    monkeypatch.setattr(history, "_scanned", lambda *_: pytest.fail("the whole journal was read"))


def begun_at(log, number):
    with open_segment(log, number) as segment:
        return segment.header.created


def versions_of(lines):
    return [line.version for line in lines]


def test_whatever_the_hints_say_the_history_is_the_same(written):
    log, versions = written
    draw, end = random.Random(5), active_header(log)[0].created
    for record_id, count in versions.items():
        whole = read_history(log, record_id)
        assert versions_of(whole) == list(range(1, count + 1))
        for newest in (count, count + 1):
            times = [draw.randrange(2 * end) for _ in range(draw.randrange(3))]
            assert read_history(log, record_id, newest=newest, times=times) == whole


def test_a_record_whose_times_are_known_is_read_from_their_segments_alone(
    written, monkeypatch, opened_segments
):
    log, versions = written
    forbid_scanning(monkeypatch)
    last = active_header(log)[0].segment
    first_seen = begun_at(log, 1)
    found = read_history(log, "r10", newest=versions["r10"], times=[first_seen, begun_at(log, last)])
    assert versions_of(found) == list(range(1, versions["r10"] + 1))
    assert set(opened_segments) <= {1, 2, last - 1, last}
    assert len(opened_segments) < last / 2


def test_without_a_time_it_is_looked_for_from_the_end(written, monkeypatch, opened_segments):
    log, versions = written
    forbid_scanning(monkeypatch)
    last = active_header(log)[0].segment
    assert len(read_history(log, "r0", newest=versions["r0"])) == versions["r0"]
    assert opened_segments == list(range(last, last - len(opened_segments), -1))


def test_segments_that_were_moved_away_are_missed_only_where_they_are_needed(written, tmp_path):
    log, versions = written
    copy = tmp_path / log.name
    for path in log.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    compressed_path(copy, 5).unlink()
    times = [begun_at(log, 1), begun_at(log, active_header(log)[0].segment)]
    assert len(read_history(copy, "r11", newest=versions["r11"], times=times)) == versions["r11"]
    with pytest.raises(SequenceGap, match=re.escape(compressed_path(copy, 5).name)):
        read_history(copy, "nobody", newest=1)


def test_what_a_caller_wrote_is_not_taken_for_a_line(tmp_path):
    log = tmp_path / "trade_pool.log"
    body = msgspec.json.encode({"extra": {"id": "a", "e": 1}})
    other = entry("b", 1)
    other = other._replace(record=body, digest=digest_of(body).encode())
    with Journal(log, SHARDS) as journal:
        journal.append([entry("a", 1), other, entry("ab", 1)])
        journal.commit({1: "1-1"})
    assert b'"id":"a","e":1' in log.read_bytes()
    assert [line.record_id for line in read_history(log, "a", newest=1)] == ["a"]


def test_an_id_is_found_as_it_is_spelled_in_json(tmp_path, monkeypatch):
    log, name = tmp_path / "trade_pool.log", 'ä"\\\n'
    with Journal(log, SHARDS) as journal:
        journal.append([entry(name, 1)])
        journal.commit({1: "1-1"})
    forbid_scanning(monkeypatch)
    assert [line.record_id for line in read_history(log, name, newest=1)] == [name]


def two_versions(log):
    """A journal of two commits, with a version of one record in each; its bytes."""
    with Journal(log, SHARDS) as journal:
        for version in (1, 2):
            journal.append([entry("a", version, position=f"{version}-0"), entry(f"b{version}", 1)])
            journal.commit({1: f"{version}-0"})
    return log.read_bytes()


def test_what_no_commit_follows_does_not_count(tmp_path):
    log = tmp_path / "trade_pool.log"
    whole = two_versions(log)
    for cut in (*range(whole.rindex(b'{"q":3,'), len(whole), 9), len(whole) - 1):
        log.write_bytes(whole[:cut])
        assert versions_of(read_history(log, "a", newest=1)) == [1]


@pytest.mark.parametrize("change", [b'"v":2', b'"pad":""', b'"d":"[0-9a-f]', b'"e":"c'])
def test_a_damaged_line_is_never_taken(tmp_path, change):
    log = tmp_path / "trade_pool.log"
    whole = two_versions(log)
    at = re.compile(change).search(whole, whole.index(b'"id":"a"')).end() - 1
    changed = bytearray(whole)
    changed[at] ^= 1
    log.write_bytes(changed)
    for newest in (1, 2, 3):
        with pytest.raises(ChecksumMismatch, match=re.escape(log.name)):
            read_history(log, "a", newest=newest, times=[0])


def test_a_damaged_compressed_segment_is_told(written, tmp_path):
    log, versions = written
    for path in log.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copy = tmp_path / log.name
    damaged = finished_segments(copy)[1][0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    with pytest.raises(ChecksumMismatch, match=re.escape(damaged.name)):
        read_history(copy, "r10", newest=versions["r10"], times=[begun_at(log, 1)])


def test_a_small_block_finds_the_same(written, monkeypatch):
    log, versions = written
    monkeypatch.setattr(history, "_BLOCK_BYTES", 97)
    forbid_scanning(monkeypatch)
    for record_id in ("r0", "r7", "r11"):
        found = read_history(log, record_id, newest=versions[record_id])
        assert versions_of(found) == list(range(1, versions[record_id] + 1))
