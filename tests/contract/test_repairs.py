"""Every fault that a repair takes away: planted, told, repaired, gone; the journal brings back the same."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest

from tests.audit_plants import LATER_US, PLANTS, Scene, hold, opened
from tests.faults.simulator.store_contents import actual_contents
from tests.loose_trades import buy
from tests.repairing import NOT_WRITTEN, REPAIRED, audit, keys_of, recovered_contents, slow
from tradepool import TradePool
from tradepool.audit.report import RepairState
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.registry import Repair
from tradepool.cli import main
from tradepool.clock import now_us
from tradepool.errors import Quarantined
from tradepool.files.reading import read_lines
from tradepool.model import codec
from tradepool.model.ids import mint_id
from tradepool.model.ledger import Balance, ledger_id
from tradepool.server.embedded import EmbeddedServer

OF_THE_POOL = (
    "book",
    "bucket_sums",
    "digest",
    "key_value",
    "recent_missing",
    "snapshot_damaged",
    "snapshot_different",
)
QUICK = ("corrupt_record", "digest", "snapshot_damaged")
OF_USERS = sorted(set(REPAIRED) - set(OF_THE_POOL))
QUARANTINED = sorted(name for name in PLANTS if RULES[name].repair is Repair.QUARANTINE)


def steps_of(report):
    return [(step.action, step.subject) for step in report.repairs]


def states_of(report):
    return {step.state for step in report.repairs}


def told(scene):
    lines = (scene.pool.settings.data_dir / "audits" / "repairs.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def check_is_repaired(scene, name):
    before = keys_of(scene.redis)
    found = audit(scene)
    assert set(found.counts) == {name}
    assert states_of(found) == {RepairState.PLANNED}
    assert keys_of(scene.redis) == before, "a plan writes nothing"

    repaired = audit(scene, repair=True)
    assert states_of(repaired) == {RepairState.DONE}
    assert steps_of(found) == steps_of(repaired)[: len(found.repairs)]

    after = audit(scene)
    assert (after.findings, after.undecided, after.repairs) == ((), (), ())
    assert [line["state"] for line in told(scene)] == ["planned", "done"] * len(repaired.repairs)
    kept = actual_contents(scene.redis)
    assert recovered_contents(scene.pool, scene.journal) == kept


@pytest.mark.parametrize("name", [*QUICK, *slow(sorted(set(REPAIRED) - set(QUICK)))])
def test_a_planted_fault_is_told_repaired_and_gone(scene, name):
    PLANTS[name](scene)
    check_is_repaired(scene, name)


def test_faults_of_many_users_are_repaired_at_once(server_binary, tmp_path):
    with EmbeddedServer(tmp_path / "server") as server, opened(server, tmp_path / "pool") as (pool, journal):
        for name in OF_USERS:
            PLANTS[name](Scene(pool, journal, None, name))
        assert set(pool.check_all_trades(deep=True).counts) == set(OF_USERS)

        assert states_of(pool.check_all_trades(deep=True, repair=True)) == {RepairState.DONE}

        after = pool.check_all_trades(deep=True)
        assert (after.findings, after.undecided) == ((), ())
        kept = actual_contents(pool.redis)
        assert recovered_contents(pool, journal) == kept


@pytest.mark.parametrize("name", ["summary_fold", *slow(["index_missing", "missing_in_redis"])])
def test_the_repair_of_a_user_leaves_others_alone(scene, name):
    for user in ("ann", "bob"):
        PLANTS[name](scene if user == "ann" else Scene(scene.pool, scene.journal, None, user))

    assert states_of(scene.pool.check_trades("ann", repair=True)) == {RepairState.DONE}

    assert scene.pool.check_trades("ann").ok
    assert set(scene.pool.check_trades("bob").counts) == {name}


@pytest.mark.parametrize("name", ["missing_in_journal", *slow(QUARANTINED)])
def test_a_trade_that_nothing_repairs_is_put_in_quarantine(scene, name):
    check_is_quarantined(scene, name)


def check_is_quarantined(scene, name):
    PLANTS[name](scene)
    found = audit(scene)
    subjects = {finding.subject for finding in found.findings}

    audit(scene, repair=True)

    assert {trade.trade_id for trade in scene.pool.get_quarantined()} == subjects
    for trade_id in subjects:
        assert scene.pool.get_trade(trade_id).quarantine.startswith(f"{name}: ")
        with pytest.raises(Quarantined, match=name):
            scene.pool.update_trade(trade_id, strategy="other")
    after = audit(scene)
    assert set(after.counts) <= {name}
    assert after.repairs == (), "what is in quarantine is put there once"
    if name in ("duplicate_key", "duplicate_fill"):
        # What no pool commits: recovery refuses it.
        return
    kept = actual_contents(scene.redis)
    assert recovered_contents(scene.pool, scene.journal) == kept


def test_what_a_person_has_released_is_not_put_in_quarantine_again_for_the_same(scene):
    PLANTS["quantities"](scene)
    audit(scene, repair=True)
    scene.pool.release_quarantine(scene.open_id)

    assert audit(scene, repair=True).repairs == ()
    assert scene.pool.get_quarantined() == []


@pytest.mark.slow
def test_an_audit_may_put_in_quarantine_without_repairing(scene):
    PLANTS["quantities"](scene)
    PLANTS["index_missing"](scene)
    repairs = scene.pool._services.repairs

    steps = repairs.quarantine(audit(scene).findings)

    assert [(step.action, step.subject) for step in steps] == [(Repair.QUARANTINE, scene.open_id)]
    assert set(audit(scene).counts) == {"quantities", "index_missing"}


def test_a_clean_pool_has_nothing_to_repair(scene):
    scene.archived()
    scene.pool.write_snapshot()
    report = audit(scene, repair=True)
    assert (report.findings, report.repairs) == ((), ())
    assert not (scene.pool.settings.data_dir / "audits" / "repairs.log").exists()


def test_the_journal_and_the_history_tell_of_a_repaired_record(scene):
    before = scene.pool.get_trade(scene.closed_id)
    PLANTS["different_in_redis"](scene)

    audit(scene, repair=True)

    after = scene.pool.get_trade(scene.closed_id)
    assert after == msgspec.structs.replace(before, version=before.version + 1, applied=after.applied)
    assert [trade.version for trade in scene.pool.get_trade_history(scene.closed_id)] == [1, 2, 3, 4]
    lines = [line for line in read_lines(scene.journal.journal.path) if line.record_id == scene.closed_id]
    assert lines[-1].command_id.startswith("repair:")
    assert '"strategy":"forged"' in told(scene)[0]["overwrites"]
    # It goes on as any trade does.
    assert scene.pool.update_trade(scene.closed_id, strategy="mine").version == before.version + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [b"", b"0000000", b"\xff" * 40, codec.pack(1, b'{"user_id":"x"}', "z", "-")],
    ids=["empty", "torn", "no text", "unknown kind"],
)
def test_whatever_stands_in_a_records_place_the_journals_takes_it(scene, value):
    scene.put(scene.closed_id, value)
    scene.put(ledger_id("ann"), value)

    assert len(audit(scene, repair=True).repairs) == 2
    assert audit(scene).findings == ()


@pytest.mark.slow
def test_what_is_left_of_an_archived_trade_comes_back_as_it_was(scene):
    trade_id = scene.archived()
    kept = scene.value(trade_id)
    scene.redis.hdel(scene.records(trade_id), trade_id)

    assert states_of(audit(scene, repair=True)) == {RepairState.DONE}

    assert scene.value(trade_id) == kept
    assert audit(scene).findings == ()


@pytest.mark.slow
def test_counters_of_archived_trades_are_counted_from_the_journal(scene):
    scene.archived()
    scene.redis.hincrby(scene.keys.archived_counters(scene.shard, "ann"), "real|USDT|pnl", 5)
    kept = scene.pool.get_user_summary("ann")

    assert states_of(audit(scene, repair=True)) == {RepairState.DONE}

    assert audit(scene).findings == ()
    assert scene.pool.get_user_summary("ann") == kept


def test_what_was_never_journaled_and_cannot_be_read_is_left_to_a_person(scene):
    scene.put("torn", b"0000000")

    assert states_of(audit(scene)) == {RepairState.REFUSED}
    refused = audit(scene, repair=True)

    assert states_of(refused) == {RepairState.REFUSED}
    assert "a person has to decide" in refused.repairs[0].detail
    assert scene.value("torn") == b"0000000"


@pytest.mark.slow
def test_a_record_that_a_damaged_journal_has_is_left_to_a_person(scene):
    PLANTS["corrupt_record"](scene)
    PLANTS["journal_damaged"](scene)
    report = audit(scene, repair=True)
    assert RepairState.DONE not in states_of(report)


def test_a_record_of_a_newer_schema_is_not_written_anew(scene):
    PLANTS["trade_schema"](scene)
    PLANTS["quantities"](Scene(scene.pool, scene.journal, None, "bob"))
    value = scene.value(scene.open_id)
    audit(scene, repair=True)
    assert scene.value(scene.open_id) == value


FAMILIES = ["r", "digest", "c", "ca", "i", "f", "route", "u", "s", "open", "recent", "expiry", "users", "n"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_key_of_any_family_that_was_overwritten_is_rebuilt(scene, family):
    scene.filled(trade_id="7")
    scene.archived()
    scene.filled()
    names = [
        name
        for name in scene.redis.scan_iter("tp:{*")
        if name.partition(b"}:")[2].split(b":")[0] == family.encode()
    ]
    kept = actual_contents(scene.redis)
    for name in names:
        scene.redis.delete(name)
        scene.redis.rpush(name, "nothing of ours")
    assert set(audit(scene).counts) == {"key_type"}

    for _ in range(2):
        audit(scene, repair=True)

    after = audit(scene)
    assert (after.findings, after.undecided) == ((), ())
    assert actual_contents(scene.redis).keys() == kept.keys()
    mended = actual_contents(scene.redis)
    assert recovered_contents(scene.pool, scene.journal) == mended


@pytest.mark.slow
def test_an_outbox_that_was_overwritten_is_left_to_a_person(scene):
    name = scene.keys.outbox(scene.shard)
    scene.redis.delete(name)
    scene.redis.set(name, "7")
    assert states_of(audit(scene, repair=True)) == {RepairState.REFUSED}
    assert scene.redis.get(name) == b"7"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["seven", "1-1"])
def test_a_position_that_cannot_be_is_that_of_the_last_commit(scene, text):
    sums = scene.keys.digest(scene.shard)
    right = scene.redis.hget(sums, "position")
    scene.redis.hset(sums, "position", text)

    audit(scene, repair=True)

    assert scene.redis.hget(sums, "position") == right
    assert audit(scene).findings == ()


def test_what_the_journal_has_published_is_published_anew(scene):
    field = scene.keys.journal_field(scene.shard)
    right = scene.redis.hget(scene.keys.journal, field)
    scene.redis.hset(scene.keys.journal, field, "seven")

    audit(scene, repair=True)

    assert scene.redis.hget(scene.keys.journal, field) == right
    assert audit(scene).findings == ()


@pytest.mark.slow
def test_what_the_pool_says_of_itself_is_left_to_a_person(scene):
    scene.redis.hset(scene.keys.meta, "journal", "another")
    report = audit(scene, repair=True)
    assert states_of(report) == {RepairState.REFUSED}
    assert scene.redis.hget(scene.keys.meta, "journal") == b"another"


@pytest.mark.slow
def test_a_reservation_of_a_key_of_the_callers_own_is_no_orphan(scene):
    old = hold(reserved_at=now_us() - LATER_US)
    orphan = mint_id("ann", at_us=now_us(), random_bits=7)
    scene.forge_ledger(
        assets={"USDT": Balance(free=Decimal(3), reserved=Decimal(2))},
        reservations={orphan: old, "my own": old},
    )
    audit(scene, repair=True)
    assert [one.key for one in scene.pool.get_reservations("ann", account_id="other")] == ["my own"]


@pytest.mark.slow
def test_a_snapshot_is_written_by_the_journals_owner_only(scene):
    PLANTS["snapshot_damaged"](scene)
    scene.pool._services.journal = None
    report = audit(scene, repair=True)
    assert states_of(report) == {RepairState.REFUSED}
    assert "write_snapshot" in report.repairs[0].detail


def test_every_repair_of_the_register_is_tried_here():
    assert {RULES[name].repair for name in REPAIRED} | NOT_WRITTEN == set(Repair)


@pytest.mark.slow
def test_the_command_shows_what_it_would_write_then_writes_it(server_binary, tmp_path, capsys):
    place = ["check-all-trades", "--level", "deep", "--embedded", str(tmp_path / "pool")]
    with TradePool.embedded(tmp_path / "pool") as pool:
        trade_id = pool.add_trade(buy(user_id="ann")).trade_id
        shard = pool.store.keys.shard_of_user("ann")
        pool.redis.zrem(pool.store.keys.user_index(shard, "ann"), trade_id)

    assert (main(place), "planned" in capsys.readouterr().out) == (1, True)
    assert (main([*place, "--repair"]), "done" in capsys.readouterr().out) == (1, True)
    assert (main(place), "repairs" in capsys.readouterr().out) == (0, False)
