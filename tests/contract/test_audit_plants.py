"""Every audit rule against a fault planted in a real store or file: exactly that finding, and no other."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from tests.audit_plants import LATER_US, PLANTS, Scene, another_snapshot, opened
from tests.loose_trades import buy
from tradepool import errors
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.registry import Level
from tradepool.clock import now_us
from tradepool.files.snapshot import SnapshotFiles
from tradepool.model import codec
from tradepool.model.ledger import ledger_id
from tradepool.server.embedded import EmbeddedServer

OF_THE_POOL = {
    "archive_damaged",
    "archive_different",
    "archive_missing",
    "book",
    "bucket_sums",
    "cash_identity",
    "digest",
    "journal_damaged",
    "key_value",
    "outbox_stuck",
    "outbox_unreadable",
    "recent_missing",
    "snapshot_damaged",
    "snapshot_different",
    "unknown_key",
    "venue_average_price",
    "venue_balance",
    "venue_quantity",
}
"""Planted in what all users share, each in a pool of its own; the others each with a user of their own."""
OF_USERS = sorted(PLANTS.keys() - OF_THE_POOL)
WHERE_SUMS_DIFFER = {
    "cash_identity",
    "corrupt_record",
    "different_in_redis",
    "index_missing",
    "missing_in_journal",
    "missing_in_redis",
    "reported_pnl",
    "stale_in_redis",
    "time_order",
}
"""Planted in what is closed, which the standard level reads only of shards whose sums differ."""


@pytest.fixture
def scene(server, tmp_path, monkeypatch):
    with opened(server, tmp_path / "pool") as (pool, journal):
        yield Scene(pool, journal, monkeypatch)


@pytest.fixture(scope="module")
def crowd(server_binary, tmp_path_factory):
    """A user for each rule, with its plant, in one pool."""
    folder = tmp_path_factory.mktemp("crowd")
    with EmbeddedServer(folder / "server") as server, opened(server, folder / "pool") as (pool, journal):
        scenes = {name: Scene(pool, journal, None, name) for name in OF_USERS}
        for name, scene in scenes.items():
            PLANTS[name](scene)
        yield pool


@pytest.fixture(scope="module")
def crowd_of_one(server_binary, tmp_path_factory):
    """A scene that tests leave as they found it."""
    folder = tmp_path_factory.mktemp("one")
    with EmbeddedServer(folder / "server") as server, opened(server, folder / "pool") as (pool, journal):
        yield Scene(pool, journal, None)


def found_by(report):
    return set(report.counts)


def test_a_sound_pool_has_no_findings_at_any_level(scene):
    scene.pool.write_snapshot(scene.journal.journal)
    scene.archived()
    for level in Level:
        report = scene.pool.check_all_trades(level=level)
        assert (report.findings, report.undecided, report.level) == ((), (), level)
    assert scene.pool.check_trades("ann").ok


def test_every_rule_has_a_plant_and_every_plant_a_rule():
    assert PLANTS.keys() == RULES.keys()


@pytest.mark.parametrize("name", OF_USERS)
def test_a_fault_planted_with_a_user_is_found_by_its_rule_and_by_no_other(crowd, name):
    report = crowd.check_trades(name)

    assert found_by(report) == {name}, report.findings
    assert {finding.severity for finding in report.findings} == {RULES[name].severity}


def test_the_audit_of_all_finds_what_those_of_the_users_find(crowd):
    found = {(f.rule, f.subject) for f in crowd.check_all_trades(deep=True).findings}

    assert {rule for rule, _ in found} == set(OF_USERS)
    assert found == {(f.rule, f.subject) for name in OF_USERS for f in crowd.check_trades(name).findings}


def test_the_standard_level_finds_what_is_wrong_with_what_is_alive(crowd):
    standard = crowd.check_all_trades(level="standard")

    alive = {name for name in OF_USERS if RULES[name].level is Level.STANDARD} - WHERE_SUMS_DIFFER
    assert found_by(standard) == alive
    assert crowd.check_all_trades(level="digest").ok


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1E+999999"])
@pytest.mark.parametrize("field", ["funding", "pnl_net", "deposit"])
def test_a_number_that_nobody_can_add_up_is_found_and_ends_no_audit(crowd_of_one, field, number):
    scene = crowd_of_one
    before = scene.value(scene.closed_id)
    trade = msgspec.structs.replace(scene.pool.get_trade(scene.closed_id), **{field: Decimal(number)})
    scene.put(scene.closed_id, codec.pack_trade(trade))
    try:
        reports = [scene.pool.check_all_trades(deep=True), scene.pool.check_trades("ann")]
    finally:
        scene.put(scene.closed_id, before)

    assert [set(report.counts) for report in reports] == [{"corrupt_record"}] * 2
    assert reports[0].findings == reports[1].findings


@pytest.mark.parametrize("name", sorted(OF_THE_POOL))
def test_a_planted_fault_is_found_by_its_rule_and_by_no_other(scene, name):
    PLANTS[name](scene)

    deep = scene.pool.check_all_trades(deep=True, **scene.given)

    assert found_by(deep) == {name}, deep.findings
    assert {finding.severity for finding in deep.findings} == {RULES[name].severity}
    if RULES[name].level is Level.DIGEST:
        assert found_by(scene.pool.check_all_trades(**scene.given)) == {name}


@pytest.mark.parametrize("name", ["corrupt_record", "recomputed_figures", "reservation_key", "stale_pending"])
def test_of_a_shard_whose_sums_differ_the_standard_level_reads_everything(scene, name):
    PLANTS[name](scene)
    PLANTS["digest"](scene)

    assert found_by(scene.pool.check_all_trades(level="standard")) == {name, "digest"}


def test_a_fault_in_one_place_does_not_hide_those_in_others(scene):
    for name in ("corrupt_record", "lifecycle", "summary_fold", "key_ttl", "expiry_missing", "a value"):
        if name == "a value":
            scene.redis.hset(scene.keys.counters(scene.shard, "bob"), "real|USDT|pnl", "seven")
        else:
            PLANTS[name](scene)
    scene.put("torn", b"0000000")
    scene.put("strange", codec.pack(9, b"{}", "z", codec.NO_STATUS))
    scene.put(ledger_id("ann", "torn"), b"")
    scene.redis.delete(scene.keys.users(1 - scene.shard))
    scene.redis.set(scene.keys.users(1 - scene.shard), "no set")

    report = scene.pool.check_all_trades(deep=True)

    found = found_by(report)
    assert {"corrupt_record", "lifecycle", "key_ttl", "key_type", "expiry_missing"} <= found
    assert {"torn", "strange", "ann/torn"} <= {f.subject for f in report.findings}
    # Whether they are right cannot be told while one of her trades cannot be read.
    assert "summary_fold" not in found
    assert any("ann" in undecided for undecided in report.undecided)


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        (rb"\[\n[^\n]*,\n", b"[\n", "the snapshot does not have it"),
        (rb'"version":3', b'"version":2', "version 2, the journal had 3"),
        (rb'"version":3', b'"version":9', "version 9 is not in the journal"),
    ],
)
def test_a_snapshot_that_lacks_has_too_old_or_invents_something_is_found(scene, old, new, detail):
    another_snapshot(scene, old, new)
    scene.closed()

    found = scene.pool.check_all_trades(deep=True).findings

    assert [(f.rule, f.detail) for f in found] == [("snapshot_different", detail)]


def test_what_changes_behind_the_scan_of_a_snapshot_is_not_held_against_it(scene, monkeypatch):
    write = SnapshotFiles.write
    monkeypatch.setattr(SnapshotFiles, "write", lambda files, value: (scene.closed(), write(files, value)))
    scene.pool.write_snapshot(scene.journal.journal)

    assert scene.pool.check_all_trades(deep=True).ok


def test_a_number_that_is_none_is_named_with_its_key(scene):
    scene.redis.hset(scene.keys.counters(scene.shard, "ann"), "real|USDT|pnl", "seven")
    for report in (scene.pool.check_all_trades(deep=True), scene.pool.check_trades("ann", deep=False)):
        assert [(f.rule, "'seven'" in f.detail) for f in report.findings] == [("key_value", True)]


def test_the_audit_of_a_user_sees_the_ledgers_of_all_accounts(scene):
    scene.pool.update_available_tokens("ann", {"USDT": 5}, account_id="b*[x]")
    scene.pool.update_available_tokens("ann", {"USDT": 5}, account_id="third")
    scene.pool.reserve_tokens("ann", "USDT", 2, "key", 3600, account_id="third")
    scene.pool.update_available_tokens("ann", {"USDT": 1}, account_id="third")
    scene.pool.update_available_tokens("an", {"USDT": 5})

    report = scene.pool.check_trades("ann", deep=False)

    assert [(f.rule, f.subject) for f in report.findings] == [("frozen_asset", "ann/third")]
    assert report.checked == {"records": 5}


def test_a_reservation_of_a_trade_that_has_ended_is_an_orphan_after_a_while(scene):
    scene.pool.reserve_tokens("ann", "USDT", 1, scene.closed_id, 3600)
    assert scene.pool.check_trades("ann").ok

    audits = scene.pool._services.audit
    scene.patch.setattr(audits, "_now_us", lambda: now_us() + LATER_US // 2 + 1_000_000)

    found = scene.pool.check_trades("ann", deep=False).findings
    assert [(f.rule, "completed" in f.detail) for f in found] == [("orphan_reservation", True)]


def test_positions_that_moved_since_a_venue_told_them_are_undecided(scene):
    told = {"at": 7, "positions": [{"user_id": "ann", "exchange": "kraken", "symbol": "X/Y", "amount": 1}]}
    told["balances"] = [{"user_id": "ann", "asset": "USDT", "free": 7}]

    report = scene.pool.check_all_trades(venue=told)

    assert [(f.rule, f.subject) for f in report.findings] == [("venue_quantity", "ann/default/kraken/X/Y")]
    assert set(report.undecided) == {"position ann/default/kraken/BTC/USDT", "balance ann/default/USDT"}


@pytest.mark.parametrize("told", [b"{", {"positions": []}, {"at": 1, "what": 2}, {"at": 1}, 7])
def test_what_a_venue_cannot_have_told_is_refused_in_one_line(scene, told):
    with pytest.raises(errors.InvalidQuery, match="venue"):
        scene.pool.check_all_trades(venue=told)
    with pytest.raises(errors.InvalidQuery, match="standard"):
        scene.pool.check_all_trades(level="deepest")


def test_a_hedge_of_two_trades_is_one_position_at_the_venue(scene):
    scene.pool.add_trade(
        buy(side="sell", amount="3", price="120", status="filled", market="linear", symbol="BTC/USDT")
    )
    place = {"user_id": "ann", "exchange": "kraken", "symbol": "BTC/USDT"}
    told = {"at": now_us(), "positions": [place | {"amount": "-2"}]}
    assert scene.pool.check_all_trades(venue=told).ok
