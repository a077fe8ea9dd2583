"""Quarantine through the fleet: what bots send meanwhile waits among the dead letters, with the reason."""

from __future__ import annotations

from tests.fleet.conftest import Fleet
from tests.fleet.trades import new_trade
from tests.loose_trades import entry
from tests.waiting import eventually


def test_a_change_of_a_trade_in_quarantine_is_parked_and_goes_through_after_its_release(fleet: Fleet):
    given = new_trade(user_id="kept apart")
    trade_id = fleet.pool.add_trade(given).trade_id
    fleet.pool.quarantine(trade_id, "looks wrong")

    task_id = fleet.call("trades.add_fill", trade_id, entry("f1", given["amount"]))
    eventually(lambda: fleet.letters(task_id))
    (letter,) = fleet.letters(task_id)
    assert letter.reason["error"] == "Quarantined"
    assert "looks wrong" in letter.reason["problem"]
    assert "--release" in letter.reason["cure"]

    fleet.pool.release_quarantine(trade_id)
    fleet.dead.replay()

    eventually(lambda: fleet.pool.get_trade(trade_id).fills)
    assert fleet.letters(task_id) == []
