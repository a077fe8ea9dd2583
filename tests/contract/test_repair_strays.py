"""Records in places that are not theirs, and faults without a step: nothing innocent is written for them."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.audit_plants import PLANTS
from tests.faults.simulator.store_contents import actual_contents
from tests.repairing import audit, keys_of, recovered_contents
from tests.store_changes import change
from tradepool.audit.repair.committing import commit_next
from tradepool.audit.repair.cures import PERSON
from tradepool.audit.repair.journaled import newest_records
from tradepool.audit.report import RepairState, Severity
from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.model.ledger import Ledger, ledger_id


def put_beside(scene, field, *, shard=None, bucket=None):
    """The open trade's record under another field, or in another place."""
    there = scene.shard if shard is None else shard
    place = scene.keys.bucket_of(field) if bucket is None else bucket
    scene.redis.hset(scene.keys.records(there, place), field, scene.value(scene.open_id))


def moved(scene, *, shard=None, bucket=None):
    put_beside(scene, scene.open_id, shard=shard, bucket=bucket)
    scene.redis.hdel(scene.records(scene.open_id), scene.open_id)


def next_bucket(scene):
    return (scene.keys.bucket_of(scene.open_id) + 1) % 16


STRAYS = {
    "under another id": lambda s: put_beside(s, "ghost-1"),
    "under another id in another bucket": lambda s: put_beside(s, "ghost-1", bucket=next_bucket(s)),
    "in another bucket": lambda s: put_beside(s, s.open_id, bucket=next_bucket(s)),
    "in another shard": lambda s: put_beside(s, s.open_id, shard=1 - s.shard),
    "moved to another bucket": lambda s: moved(s, bucket=next_bucket(s)),
    "moved to another shard": lambda s: moved(s, shard=1 - s.shard),
    "under another trade's id": lambda s: put_beside(s, s.closed_id),
    "newer under another trade's id": lambda s: s.put(
        s.closed_id, codec.pack_trade(msgspec.structs.replace(s.pool.get_trade(s.open_id), version=9))
    ),
    "with an entry in an index": lambda s: (
        put_beside(s, "ghost-1"),
        s.redis.zadd(s.keys.user_index(s.shard, "ann"), {"ghost-1": 7}),
        s.redis.hset(s.keys.idempotency(s.shard, "ann"), "k9", "ghost-1"),
    ),
}
MOVED = (
    "moved to another bucket",
    "moved to another shard",
    "under another trade's id",
    "newer under another trade's id",
)


@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_record_is_taken_away_and_no_other_is_harmed(scene, name):
    trades = {trade.trade_id: trade for trade in scene.pool.get_all_trades()}
    STRAYS[name](scene)
    before = keys_of(scene.redis)
    found = audit(scene)
    assert "missing_in_journal" not in found.counts
    assert found.counts.keys() <= {"record_header", "missing_in_redis", "index_extra", "claim_extra"}
    assert keys_of(scene.redis) == before
    # Those of beat put nothing in quarantine for it.
    assert scene.pool._services.repairs.quarantine(found.findings) == ()

    repaired = audit(scene, repair=True)

    assert {step.state for step in (*found.repairs, *repaired.repairs)} <= {
        RepairState.PLANNED,
        RepairState.DONE,
    }
    after = audit(scene)
    assert (after.findings, after.undecided) == ((), ())
    if name not in MOVED:
        assert {trade.trade_id: trade for trade in scene.pool.get_all_trades()} == trades
    assert scene.pool.get_quarantined() == []
    kept = actual_contents(scene.redis)
    assert recovered_contents(scene.pool, scene.journal) == kept


def test_the_log_has_the_stray_record_that_was_taken_away(scene):
    put_beside(scene, "ghost-1")
    audit(scene, repair=True)
    log = scene.pool.settings.data_dir / "audits" / "repairs.log"
    planned, done = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    assert (planned["subject"], planned["state"], done["state"]) == ("ghost-1", "planned", "done")
    assert json.loads(planned["overwrites"])["trade_id"] == scene.open_id


def test_a_stray_record_that_is_newer_than_its_own_place_is_left_to_a_person(scene):
    newer = msgspec.structs.replace(scene.pool.get_trade(scene.open_id), version=9)
    scene.put("ghost-1", codec.pack_trade(newer))

    assert audit(scene).repairs[0].state is RepairState.REFUSED
    step = audit(scene, repair=True).repairs[0]

    assert (step.state, "version 9" in step.detail) == (RepairState.REFUSED, True)
    assert scene.value("ghost-1") is not None


def test_no_repair_commits_what_does_not_follow_the_journals_newest_version(scene):
    repaired = scene.pool._services.repairs._pool_now()
    journaled = dict(newest_records(repaired, repaired.keys.shards, lambda _: True))
    before = scene.pool.get_trade(scene.open_id)
    kept = keys_of(scene.redis)

    def refused(change, match, known=journaled):
        with pytest.raises(Corrupt, match=match):
            commit_next(repaired, scene.shard, change, known)

    for version in (1, before.version, before.version + 2):
        after = msgspec.structs.replace(before, version=version)
        refused(change(before, after), "does not follow")
    after = msgspec.structs.replace(before, version=before.version + 1)
    made = change(before, after)
    refused(made, "was not asked", {})
    refused(made, "does not follow", {scene.open_id: None})
    refused(made, "does not follow", {scene.open_id: journaled[scene.closed_id]})
    refused(msgspec.structs.replace(made, record_id="ghost-1"), "its own record")
    with pytest.raises(Corrupt, match="own shard"):
        commit_next(repaired, 1 - scene.shard, made, journaled)
    assert keys_of(scene.redis) == kept
    assert commit_next(repaired, scene.shard, made, journaled) is None


@pytest.mark.parametrize("wrong", ["0000000000000000", "ffffffffffffffff"])
def test_a_wrong_digest_that_the_journal_published_is_published_anew(scene, wrong):
    field = scene.keys.journal_field(scene.shard)
    right = scene.redis.hget(scene.keys.journal, field)
    position, _, count = right.decode().split()
    scene.redis.hset(scene.keys.journal, field, f"{position} {wrong} {count}")
    assert [step.state for step in audit(scene).repairs] == [RepairState.PLANNED]

    audit(scene, repair=True)

    assert scene.redis.hget(scene.keys.journal, field) == right
    assert audit(scene).findings == ()


@pytest.mark.parametrize("name", ["journal_damaged", "unknown_key", "balance_conservation", "trade_schema"])
def test_what_only_a_person_can_cure_is_told_with_its_cure(scene, name):
    PLANTS[name](scene)
    for steps in (audit(scene).repairs, audit(scene, repair=True).repairs):
        cures = [step for step in steps if step.action == PERSON]
        assert [step.state for step in cures] == [RepairState.REFUSED]
        assert cures[0].detail.startswith(f"{name}: ")


def test_a_ledger_that_was_never_journaled_is_not_told_to_be_put_in_quarantine(scene):
    ledger = Ledger(user_id="ann", account_id="forged", version=1, updated_at=1)
    scene.put(ledger_id("ann", "forged"), codec.pack_ledger(ledger))
    report = audit(scene)
    critical = {each.rule for each in report.findings if each.severity is Severity.CRITICAL}
    assert critical == {"missing_in_journal"}
    assert [(step.action, step.state) for step in report.repairs] == [(PERSON, RepairState.REFUSED)]


def test_a_plan_beside_a_key_of_a_wrong_type_tells_only_of_the_key(scene):
    names = (scene.records(scene.open_id), scene.keys.digest(scene.shard))
    for name in names:
        scene.redis.delete(name)
        scene.redis.set(name, "7")
        steps = audit(scene).repairs
        assert RepairState.PLANNED in {step.state for step in steps}
        assert all(step.subject in names or step.state is RepairState.PLANNED for step in steps)
        assert not any("WRONGTYPE" in step.detail or "Command" in step.detail for step in steps)
    for _ in range(2):
        audit(scene, repair=True)
    assert audit(scene).findings == ()
