"""What a repair must not do: believe an old journal, a server's former life, a finding, or half a pool."""

from __future__ import annotations

import errno
import os
import shutil

import msgspec
import pytest

from tests.audit_plants import PLANTS, Scene
from tests.repairing import audit, keys_of, slow
from tradepool.audit.repair import repairs
from tradepool.audit.repair.journaled import newest_records
from tradepool.audit.report import Finding, RepairState, Severity
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.registry import Repair
from tradepool.errors import Fenced, JournalUnavailable
from tradepool.files import durable
from tradepool.model import codec
from tradepool.store import fence
from tradepool.store.keys import BUCKETS

CRITICAL_OF_TRADES = sorted(name for name, rule in RULES.items() if rule.repair is Repair.QUARANTINE)
CUT_SHORT = '{"at":1,"sta'


def states_of(steps):
    return {step.state for step in steps}


def finding(rule, subject, detail="x"):
    return Finding(rule=rule, severity=Severity.CRITICAL, subject=subject, detail=detail)


def tools_with(scene, patch, **fields):
    of_pool = scene.pool._services.repairs
    patch.setattr(of_pool, "_pool", of_pool._pool._replace(**fields))
    return of_pool


@pytest.mark.parametrize("rule", ["missing_in_journal", *slow(["stale_in_redis"])])
def test_an_old_copy_of_the_journal_is_not_believed(scene, tmp_path, monkeypatch, rule):
    folder = tmp_path / "copy"
    shutil.copytree(scene.pool.settings.data_dir, folder)
    scene.pool.update_trade(scene.open_id, strategy="newer than the copy")
    of_pool = tools_with(scene, monkeypatch, journal=folder / "trade_pool.log")
    before = keys_of(scene.redis)

    steps = of_pool.carry_out([finding(rule, scene.open_id)])

    assert states_of(steps) == {RepairState.REFUSED}
    assert "old copy" in steps[0].detail
    assert keys_of(scene.redis) == before


@pytest.mark.slow
def test_the_journal_is_waited_for_up_to_the_outbox_whatever_the_sums_say(scene, monkeypatch):
    scene.journal.close()
    before = scene.pool.get_trade(scene.open_id)
    scene.forge(scene.open_id, strategy="in the outbox")
    scene.redis.hdel(scene.keys.digest(scene.shard), "position")
    monkeypatch.setattr("tradepool.audit.repair.journaled.JOURNAL_WAIT_S", 0.01)

    with pytest.raises(JournalUnavailable):
        newest_records(scene.pool._services.repairs._pool_now(), scene.keys.shards, lambda _: True)

    assert before.version + 1 == scene.pool.get_trade(scene.open_id).version


def test_what_was_seen_before_a_recovery_is_not_written_after_it(scene):
    PLANTS["summary_fold"](scene)
    of_pool = scene.pool._services.repairs
    (fix,) = of_pool._fixes(of_pool._pool_now(), audit(scene).findings, None)
    fence.open_fence(scene.redis)
    before = keys_of(scene.redis)

    with pytest.raises(Fenced, match="recovered"):
        fix.act()

    assert keys_of(scene.redis) == before


def test_a_torn_record_that_may_be_newer_than_the_journals_is_left_to_a_person(scene):
    newer = msgspec.structs.replace(scene.pool.get_trade(scene.closed_id), version=9)
    value = codec.pack_trade(newer)[:-4] + b"0000"
    scene.put(scene.closed_id, value)

    steps = audit(scene, repair=True).repairs

    assert states_of(steps) == {RepairState.REFUSED}
    assert scene.value(scene.closed_id) == value


def test_nothing_is_taken_away_for_want_of_a_record_that_the_journal_has(scene):
    scene.redis.hdel(scene.records(scene.open_id), scene.open_id)
    # Of what was worked out of the user nothing is lost.
    changed = scene.keys.changed(scene.shard, "ann").encode()
    before = keys_of(scene.redis)

    steps = scene.pool.check_trades("ann", deep=False, repair=True).repairs

    assert [step.subject for step in steps if step.state is RepairState.DONE] == [changed.decode()]
    assert keys_of(scene.redis) | {changed: b""} == before | {changed: b""}
    audit(scene, repair=True)
    assert audit(scene).findings == ()


def test_no_finding_alone_puts_a_trade_in_quarantine(scene):
    other = scene.filled(related_trade_id=scene.closed_id)
    details = {
        "duplicate_key": f"idempotency key 'k1' as {scene.open_id}",
        "duplicate_fill": f"fill a/b is booked by {scene.open_id} as well",
    }
    found = [finding(rule, other, details.get(rule, "x")) for rule in CRITICAL_OF_TRADES]

    for each in found:
        assert scene.pool._services.repairs.quarantine([each]) == (), each.rule

    assert scene.pool.get_quarantined() == []


@pytest.mark.slow
def test_a_fault_that_is_over_when_the_quarantine_is_written_is_none(scene):
    PLANTS["lifecycle"](scene)
    of_pool = scene.pool._services.repairs
    (fix,) = of_pool._fixes(of_pool._pool_now(), audit(scene).findings, None)
    scene.forge(scene.open_id, status=scene.pool.get_trade_history(scene.open_id)[-2].status)

    assert "changed meanwhile" in fix.act()

    assert scene.pool.get_quarantined() == []


@pytest.mark.slow
def test_a_release_from_one_fault_is_none_from_another(scene):
    PLANTS["lifecycle"](scene)
    audit(scene, repair=True)
    scene.pool.release_quarantine(scene.open_id)
    assert audit(scene, repair=True).repairs == ()

    PLANTS["quantities"](scene)
    audit(scene, repair=True)

    assert scene.pool.get_trade(scene.open_id).quarantine.startswith("quantities: ")


def test_audits_put_none_in_quarantine_by_themselves_where_it_would_be_many(scene, monkeypatch):
    monkeypatch.setattr(repairs, "QUARANTINED_MAX", 2)
    PLANTS["quantities"](scene)
    PLANTS["quantities"](Scene(scene.pool, scene.journal, None, "bob"))
    scene.pool.quarantine(scene.closed_id, "by hand")
    found = audit(scene).findings

    (step,) = scene.pool._services.repairs.quarantine(found)

    assert (step.state, "a person has to decide" in step.detail) == (RepairState.REFUSED, True)
    assert len(scene.pool.get_quarantined()) == 1
    monkeypatch.setattr(repairs, "QUARANTINED_MAX", 3)
    assert len(scene.pool._services.repairs.quarantine(found)) == 2


@pytest.mark.slow
def test_a_repair_ends_after_so_many_steps_and_the_next_goes_on(scene, monkeypatch):
    monkeypatch.setattr(repairs, "STEPS_MAX", 1)
    monkeypatch.setattr("tradepool.audit.repair.records.RECORDS_MAX", 1)
    for trade_id in (scene.open_id, scene.closed_id):
        scene.redis.hdel(scene.records(trade_id), trade_id)

    for _ in range(5):
        steps = audit(scene, repair=True).repairs
        assert len(steps) <= 2

    assert audit(scene).findings == ()


def test_a_server_that_an_older_release_opened_is_repaired_once_its_owner_has_restarted(scene):
    PLANTS["index_missing"](scene)
    PLANTS["digest"](scene)
    commit = fence._commit_script(scene.pool.store.generation())
    scene.redis.script_flush()
    scene.redis.script_load(commit)

    refused = audit(scene, repair=True).repairs

    assert states_of(refused) == {RepairState.REFUSED}
    assert all("restart the files worker" in step.detail for step in refused)
    scene.journal.recover()
    assert states_of(audit(scene, repair=True).repairs) == {RepairState.DONE}
    assert audit(scene).findings == ()


def test_an_audit_is_told_though_its_repairs_could_not_be_logged_and_a_torn_line_spoils_no_other(
    scene, monkeypatch
):
    PLANTS["index_missing"](scene)
    before = keys_of(scene.redis)
    monkeypatch.setattr(durable.os, "write", lambda _, data: len(data) // 2)

    report = audit(scene, repair=True)

    assert set(report.counts) == {"index_missing"}
    assert os.strerror(errno.ENOSPC) in report.repairs[-1].detail
    assert keys_of(scene.redis) == before

    monkeypatch.undo()
    log = scene.pool.settings.data_dir / "audits" / "repairs.log"
    log.write_text(CUT_SHORT, encoding="utf-8")
    audit(scene, repair=True)
    torn, *lines = log.read_text(encoding="utf-8").splitlines()
    assert torn == CUT_SHORT
    assert [msgspec.json.decode(line)["state"] for line in lines] == ["planned", "done"]


def test_what_the_journal_lost_of_a_pools_own_commit_is_counted_once(scene):
    PLANTS["missing_in_journal"](scene)
    of_pool = scene.pool._services.repairs
    of_pool._pool_now().mender.recount(scene.shard, range(BUCKETS))

    of_pool.quarantine(audit(scene).findings)

    assert audit(scene).counts.keys().isdisjoint({"digest", "bucket_sums", "missing_in_journal"})
