"""Repairs of a pool whose shards are on several nodes."""

from __future__ import annotations

from tests.audit_plants import PLANTS, Scene
from tests.repairing import REPAIRED
from tradepool import TradePool
from tradepool.audit.report import RepairState

PLANTED = sorted(
    set(REPAIRED) - {"book", "bucket_sums", "digest", "key_value", "snapshot_damaged", "snapshot_different"}
)


def test_the_faults_of_many_users_are_repaired_at_once(cluster_pool: TradePool):
    for name in PLANTED:
        PLANTS[name](Scene(cluster_pool, None, None, name))
    assert set(cluster_pool.check_all_trades(deep=True).counts) == set(PLANTED)

    repaired = cluster_pool.check_all_trades(deep=True, repair=True)
    assert {step.state for step in repaired.repairs} == {RepairState.DONE}

    after = cluster_pool.check_all_trades(deep=True)
    assert (after.findings, after.undecided) == ((), ())


def test_sums_and_a_trade_in_quarantine_on_a_cluster(cluster_pool: TradePool):
    scene = Scene(cluster_pool, None, None)
    PLANTS["digest"](scene)
    PLANTS["missing_in_journal"](scene)

    cluster_pool.check_all_trades(deep=True, repair=True)

    assert cluster_pool.check_all_trades(deep=True).findings == ()
    assert [trade.trade_id for trade in cluster_pool.get_quarantined()] == ["ghost-ann"]
