"""Whoever counts other shards than the store has is refused, before reading or writing in the wrong ones."""

from __future__ import annotations

import pytest
from celery.exceptions import Reject

from tasks.app import PoolApp
from tasks.pool_task import WriteTask
from tests.loose_trades import buy
from tests.pool_at_work import at_work
from tradepool import TradePool
from tradepool.client.confirmation import Confirmation
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry
from tradepool.errors import Misconfigured, StoreUnavailable
from tradepool.fleet.health import read_health
from tradepool.fleet.state import Watcher
from tradepool.settings import Settings
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore

REFUSED = r"made with 4 shards, the settings say 8; set TRADEPOOL_SHARD_COUNT=4"


@pytest.fixture
def other(settings) -> Settings:
    """What somebody has set who counts eight."""
    return settings.model_copy(update={"shard_count": 8, "journal_wait_s": 0.1})


def app_with(settings: Settings) -> PoolApp:
    app = PoolApp("worker", set_as_current=False)
    app.settings = settings
    return app


def test_a_server_that_is_away_is_told_at_once(tmp_path):
    with pytest.raises(StoreUnavailable):
        TradePool.connect(Settings(redis_url=f"unix://{tmp_path}/nobody.sock"))


def test_connecting_with_another_count_is_refused(pool, other, settings):
    with pytest.raises(Misconfigured, match=REFUSED):
        TradePool.connect(other)
    TradePool.connect(settings).close()


def test_a_look_with_another_count_tells_no_figures(pool, other, settings):
    with Watcher(other) as watcher:
        for _ in range(2):
            with pytest.raises(Misconfigured, match=REFUSED):
                read_health(watcher)
    with Watcher(settings) as watcher:
        assert read_health(watcher).records == 0


def test_a_worker_with_another_count_gives_its_messages_back(pool, other):
    app = app_with(other)

    @app.task(base=WriteTask)
    def touch() -> None:
        app.trade_pool.add_trade(buy())

    with pytest.raises(Reject, match=REFUSED) as given_back:
        touch()
    assert given_back.value.requeue
    assert not list(pool.client.scan_iter("tp:*:r*")), "no record is written"


def test_who_came_before_the_store_was_made_is_refused_with_the_first_write(redis_client, other, settings):
    with TradePool.connect(other) as early, at_work(redis_client, settings):
        with pytest.raises(Misconfigured, match=REFUSED):
            early.add_trade(buy())
        with pytest.raises(Misconfigured, match=REFUSED):
            early.add_trade(buy())


def test_a_bot_with_another_count_confirms_nothing(pool, other):
    bot = Confirmation(pool.client, RedisStore(pool.client, Keys(other.shard_count), other))
    with pytest.raises(Misconfigured, match=REFUSED):
        bot.is_journaled([pool.add("ann").trade_id])
    with pytest.raises(Misconfigured, match=REFUSED):
        bot.check({"trades": [Message(1, [SpoolEntry(1, "c", "trades", "t", "ann")])]})
