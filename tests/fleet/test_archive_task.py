"""The files worker archives what closed long ago; whoever shares its folder reads it as before."""

from __future__ import annotations

import pytest

from tests.archived_trades import applied_at
from tests.fleet.conftest import Fleet
from tests.fleet.trades import new_trade
from tests.trade_builders import fill_fields
from tests.waiting import eventually
from tradepool import commanding, errors
from tradepool.clock import now_us
from tradepool.model import codec

MONTH_US = 30 * 86_400 * 1_000_000


def kind_of(fleet: Fleet, trade_id: str) -> str | None:
    store = fleet.pool.store
    shard = store.shard_of_trade(trade_id)
    value = None if shard is None else store.read([(shard, trade_id)])[0]
    return None if value is None else codec.read_header(value).kind


@pytest.mark.usefixtures("server_binary")
def test_the_files_worker_archives_what_closed_long_ago(fleet: Fleet):
    at = now_us() - MONTH_US
    fills = [fill_fields(name, role, "2", "100", at=at) for name, role in (("a", "entry"), ("b", "exit"))]
    given = new_trade(created_at=at, fills=fills)
    young = new_trade()
    applied_at(fleet.pool, commanding.add_trade(given), at)
    fleet.call("trades.add_trades", [young])
    eventually(lambda: kind_of(fleet, given["trade_id"]) == kind_of(fleet, young["trade_id"]) == "t")
    before = fleet.pool.get_trade(given["trade_id"])

    fleet.call("files.archive_closed_trades")

    eventually(lambda: kind_of(fleet, given["trade_id"]) == "a")
    assert kind_of(fleet, young["trade_id"]) == "t"
    assert fleet.pool.get_trade(given["trade_id"]) == before
    assert fleet.pool.add_trade(given).outcome == "duplicate"
    with pytest.raises(errors.Misconfigured, match="archive_closed_trades"):
        fleet.pool.archive_closed_trades()
