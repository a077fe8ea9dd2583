"""How audits look: they write nothing, go on where sums differ, and are not taken in by files in motion."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from tests.archived_trades import closed_trade
from tests.audit_plants import Scene, opened
from tests.varied_trades import varied_trades
from tradepool import TradePool
from tradepool.audit.parts import snapshot_sift
from tradepool.audit.rules.registry import Level
from tradepool.files.durable import fresh_path
from tradepool.files.snapshot_info import SNAPSHOT_NAME, load_snapshot
from tradepool.store.keys import Keys

COUNTED_AS_WRITES = "write"


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory):
    with TradePool.embedded(tmp_path_factory.mktemp("looks") / "pool", shard_count=2) as opened:
        opened.add_trades(list(varied_trades(60, 4)))
        closed_trade(opened, "user 1", days_ago=20, trade_id="old")
        opened.archive_closed_trades()
        opened.update_available_tokens("user 1", {"USDT": 50})
        opened.reserve_tokens("user 1", "USDT", 1, "key", 3600)
        opened.write_snapshot()
        yield opened


@pytest.fixture
def restored(pool):
    """What a test does to the server is taken back."""
    before = {key: pool.redis.dump(key) for key in pool.redis.scan_iter("tp:{*") if b"outbox" not in key}
    yield pool
    for key, dump in before.items():
        pool.redis.restore(key, 0, dump, replace=True)
    assert pool.check_all_trades(deep=True).ok


def writers_among(client, names):
    flags = client.execute_command("COMMAND", "INFO", *names)
    rows = flags.values() if isinstance(flags, dict) else flags
    return {row["name"] for row in rows if COUNTED_AS_WRITES in row["flags"]}


def commands_during(pool, call):
    """The commands, with their keys, that reach the server while `call` runs."""
    end = "the end of what is watched"
    seen = []
    with pool.redis.monitor() as monitor:
        call()
        pool.redis.echo(end)
        for told in monitor.listen():
            if end in told["command"]:
                return seen
            seen.append(told["command"].split(" "))
    return seen


@pytest.mark.parametrize("level", list(Level))
def test_an_audit_writes_nothing_to_the_server_but_its_report(pool, level):
    def audit():
        pool.check_all_trades(level=level)
        pool.check_trades("user 1")
        pool.check_trades("user 1", deep=False)

    seen = commands_during(pool, audit)

    names = sorted({name.lower() for name, *_ in seen})
    assert "hgetall" in names
    writes = [
        (name.lower(), *keys) for name, *keys in seen if name.lower() in writers_among(pool.redis, names)
    ]
    # The journal's own thread says every few seconds how long it takes.
    assert {key for _, key, *_ in writes} - {Keys.latencies} == {Keys.audits}
    assert not {"eval", "evalsha", "fcall"} & set(names)


def files_of(pool):
    folder = pool.settings.data_dir
    patterns = ("trade_pool*", "*.json", "*.new", "archive/**/*")
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {path: path.read_bytes() for path in paths}


def test_an_audit_writes_no_file(pool):
    before = files_of(pool)
    pool.check_all_trades(deep=True)
    pool.check_trades("user 1")
    assert files_of(pool) == before


def test_the_watch_names_the_record_where_the_sums_of_a_shard_differ(restored):
    pool = restored
    assert pool._services.audit.watch().level == "digest"
    keys = pool.store.keys
    shard = keys.shard_of_user("user 1")
    record = keys.records(shard, keys.bucket_of("old"))
    pool.redis.hdel(record, "old")
    pool.redis.hset(keys.digest(shard), f"{keys.bucket_of('old'):x}", "0" * 16 + ":0")

    report = pool._services.audit.watch()

    assert report.level == "standard"
    assert ("missing_in_redis", "old") in {(found.rule, found.subject) for found in report.findings}
    assert pool.get_last_audit()["level"] == "standard"


@pytest.mark.parametrize("place", ["1-1", "9999999999999-1", "nowhere"])
@pytest.mark.parametrize("is_the_journals", [True, False])
def test_a_position_that_never_was_is_found_and_not_waited_for(restored, place, is_the_journals):
    pool, keys = restored, restored.store.keys
    if is_the_journals:
        _, rest = pool.redis.hget(keys.journal, "00").split(b" ", 1)
        pool.redis.hset(keys.journal, "00", place.encode() + b" " + rest)
    else:
        pool.redis.hset(keys.digest(0), "position", place)

    reports = [pool.check_all_trades(level=level) for level in Level]

    assert [set(report.counts) for report in reports] == [{"key_value"}] * 3
    assert not any(report.undecided for report in reports)


@pytest.mark.parametrize("place", ["1-1", "9999999999999-1"])
def test_sums_at_another_place_than_the_last_commit_that_waits_are_found(server, tmp_path, place):
    """Commits wait, so the journal's position says nothing: what ends the outbox does."""
    with opened(server, tmp_path / "pool") as (pool, journal):
        scene = Scene(pool, journal, None)
        journal.close()
        scene.forge(scene.open_id)
        name = scene.keys.digest(scene.shard)
        pool.redis.hset(name, "position", place)

        (found,) = pool.check_all_trades().findings

    assert (found.rule, found.subject) == ("key_value", name)
    assert "its outbox ends at" in found.detail


def test_a_snapshot_in_the_middle_of_replacing_another_is_undecided(pool, monkeypatch):
    monkeypatch.setattr(snapshot_sift, "_CHANGING_S", 0)
    folder = pool.settings.data_dir
    vouching, fresh = folder / SNAPSHOT_NAME, fresh_path(folder / SNAPSHOT_NAME)
    old = vouching.read_bytes()
    pool.add_trades(list(varied_trades(3, 4, seed=7)))
    pool.write_snapshot()
    shutil.copy(vouching, fresh)
    vouching.write_bytes(old)

    report = pool.check_all_trades(deep=True)

    assert (report.findings, len(report.undecided)) == ((), 1)
    fresh.replace(vouching)
    assert pool.check_all_trades(deep=True).undecided == ()


def test_a_snapshot_that_is_replaced_while_it_is_looked_at_is_looked_at_again(pool, monkeypatch):
    link, linked = snapshot_sift._link, []

    def replaced_before_the_first(file, name):
        if not linked:
            pool.add_trades(list(varied_trades(3, 4, seed=8)))
            pool.write_snapshot()
        linked.append(file)
        link(file, name)

    monkeypatch.setattr(snapshot_sift, "_link", replaced_before_the_first)

    report = pool.check_all_trades(deep=True)

    assert (report.findings, report.undecided) == ((), ())
    assert len(linked) > len(set(linked))


@pytest.mark.parametrize("text", [b"{", b'{"tradepool_snapshot":1}'])
def test_a_snapshot_whose_description_cannot_be_read_is_found(pool, text):
    vouching = pool.settings.data_dir / SNAPSHOT_NAME
    before = vouching.read_bytes()
    vouching.write_bytes(text)
    try:
        found = pool.check_all_trades(deep=True).findings
    finally:
        vouching.write_bytes(before)
    assert [(each.rule, each.subject) for each in found] == [("snapshot_damaged", SNAPSHOT_NAME)]


def test_a_snapshot_that_vouches_for_another_count_is_found(pool):
    vouching = pool.settings.data_dir / SNAPSHOT_NAME
    before = vouching.read_bytes()
    info = load_snapshot(vouching.parent)
    more = msgspec.structs.replace(info.trades, count=info.trades.count + 1)
    vouching.write_bytes(msgspec.structs.replace(info, trades=more).sealed().text())
    try:
        found = pool.check_all_trades(deep=True).findings
    finally:
        vouching.write_bytes(before)
    assert [(each.rule, each.subject) for each in found] == [("snapshot_damaged", "trades.json")]


def test_what_an_older_release_says_of_a_snapshot_without_a_checksum_is_undecided(pool):
    vouching = pool.settings.data_dir / SNAPSHOT_NAME
    before = vouching.read_bytes()
    info = load_snapshot(vouching.parent)
    vouching.write_bytes(msgspec.structs.replace(info, checksum="").text())
    try:
        report = pool.check_all_trades(deep=True)
    finally:
        vouching.write_bytes(before)
    assert (report.findings, report.undecided) == ((), ("snapshot.json, which has no checksum yet",))
