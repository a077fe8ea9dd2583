"""A single server looks itself, with each commit, whether it is of the generation that the writer knows.

A cluster is asked before each batch: `on_cluster` has nothing of this file.
"""

from __future__ import annotations

import pytest

from tests.loose_trades import buy
from tests.store_changes import change, new_trade
from tradepool.core import TradeCore
from tradepool.errors import Fenced
from tradepool.model.commands import AddTrade
from tradepool.settings import Durability
from tradepool.store.fence import GENERATION_FIELD
from tradepool.store.watermark import Watermark


@pytest.mark.parametrize("found", ["another", None])
def test_a_server_whose_data_is_of_another_generation_writes_nothing(store, redis_client, found):
    shard = store.keys.shard_of_user("ann")
    reached = store.commit(shard, [change(None, new_trade("ann"))])
    generation = store.commit_generation()
    if found is None:
        redis_client.hdel(store.keys.meta, GENERATION_FIELD)
    else:
        redis_client.hset(store.keys.meta, GENERATION_FIELD, found)
    with pytest.raises(Fenced):
        store.commit_all({shard: [change(None, new_trade("ann"))]})
    assert store.last_position(shard) == reached
    assert store.digest(shard).count == redis_client.xlen(store.keys.outbox(shard)) == 1

    redis_client.hset(store.keys.meta, GENERATION_FIELD, generation)
    assert store.commit_all({shard: [change(None, new_trade("ann"))]}).keys() == {shard}


def test_a_commit_asks_nothing_first(store, redis_client, settings):
    settings = settings.model_copy(update={"durability": Durability.REDIS})
    core = TradeCore(store, Watermark(redis_client, store.keys), settings)
    adds = [AddTrade(command_id=f"add {n}", as_of=1_700_000_000_000_000, trade=buy()) for n in range(2)]
    core.apply(adds[:1])
    redis_client.config_resetstat()
    core.apply(adds[1:])
    asked = redis_client.info("commandstats")
    assert asked["cmdstat_evalsha"]["calls"] == 1
    assert not {"cmdstat_script|exists", "cmdstat_exec", "cmdstat_ping"} & asked.keys()
