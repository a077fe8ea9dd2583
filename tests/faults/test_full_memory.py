"""A server whose memory is full: commits are refused whole, reads go on, and later everything does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from tests.loose_trades import buy, entry
from tradepool import TradePool, errors

ROOM_BYTES = 256 << 10
BATCH = 100
BATCHES_MAX = 100
WRITERS = 3


@pytest.fixture
def pool(tmp_path):
    settings = {"shard_count": 4, "journal_wait_s": 1.0, "durability": "journal"}
    with TradePool.embedded(tmp_path / "pool", **settings) as opened:
        opened.redis.config_set("maxmemory-policy", "noeviction")
        yield opened
        opened.redis.config_set("maxmemory", 0)


def leave_room(pool: TradePool, room_bytes: int) -> None:
    used = int(pool.redis.info("memory")["used_memory"])
    pool.redis.config_set("maxmemory", used + room_bytes)


def batches(user: str):
    """Endless batches of trades with ids, keys and a fill each."""
    for number in count():
        yield [
            buy(
                user_id=user,
                trade_id=f"{user}:{number}:{place}",
                idempotency_key=f"{user}-{number}-{place}",
                fills=[entry(f"{user}-{number}-{place}")],
            )
            for place in range(BATCH)
        ]


def add_until_full(pool: TradePool, user: str) -> tuple[list[dict], list[dict]]:
    """What was acknowledged, and what was refused or left in doubt."""
    acknowledged: list[dict] = []
    for batch, _ in zip(batches(user), range(BATCHES_MAX), strict=False):
        try:
            receipts = pool.add_trades(batch)
        except errors.Unavailable:
            return acknowledged, batch
        assert all(receipt.durable for receipt in receipts)
        acknowledged += batch
    raise AssertionError("the server was never full")


def digests_agree(pool: TradePool) -> bool:
    shards = range(pool.settings.shard_count)
    ours = [(found.digest, found.count) for found in map(pool.store.digest, shards)]
    return ours == [(found.digest, found.count) for found in pool.store.journaled_shards()]


def test_a_full_server_refuses_whole_batches_and_answers_questions(pool):
    source = batches("ann")
    acknowledged, refused = next(source), next(source)
    pool.add_trades(acknowledged)
    pool.update_available_tokens("ann", {"USDT": 5})
    pool.redis.config_set("maxmemory", 1)
    with pytest.raises(errors.StoreUnavailable):
        pool.add_trades(refused)
    with pytest.raises(errors.StoreUnavailable):
        pool.close_trade(acknowledged[0]["trade_id"], "110")
    with pytest.raises(errors.StoreUnavailable):
        pool.update_available_tokens("ann", {"USDT": 6})

    ids = {each["trade_id"] for each in acknowledged}
    assert {trade.trade_id for trade in pool.get_all_trades()} == ids, "not one trade of the refused batch"
    assert {trade.trade_id for trade in pool.get_open_trades("ann")} == ids
    assert {trade.trade_id for trade in pool.get_trades_by_user("ann").trades} == ids
    assert {pool.get_trade(trade_id).version for trade_id in ids} == {1}
    assert pool.get_user_summary("ann").trade_count == len(ids)
    assert pool.get_available_tokens("ann") == {"USDT": 5}
    assert digests_agree(pool)


def test_once_there_is_memory_again_everything_goes_on_and_nothing_is_half_written(pool):
    leave_room(pool, ROOM_BYTES)
    acknowledged, doubtful = add_until_full(pool, "ann")
    pool.redis.config_set("maxmemory", 0)

    receipts = pool.add_trades(doubtful)
    assert {receipt.version for receipt in receipts} == {1}
    pool.add_trades(acknowledged)
    expected = {each["trade_id"]: 1 for each in acknowledged + doubtful}
    assert {trade.trade_id: trade.version for trade in pool.get_all_trades()} == expected
    assert digests_agree(pool)
    assert pool.check_all_trades(deep=True).findings == ()


def test_many_writers_meet_a_full_server_again_and_again(pool):
    given: dict[str, list[dict]] = {f"user-{number}": [] for number in range(WRITERS)}
    sources = {user: batches(user) for user in given}

    def write(user: str) -> None:
        """Until the server is full; what is in doubt is sent again in the next round."""
        for _ in range(BATCHES_MAX):
            given[user].append(batch := next(sources[user]))
            try:
                pool.add_trades(batch)
            except errors.Unavailable:
                return

    for _ in range(3):
        leave_room(pool, ROOM_BYTES)
        with ThreadPoolExecutor(WRITERS) as threads:
            list(threads.map(write, given))
        pool.redis.config_set("maxmemory", 0)
        for sent in given.values():
            pool.add_trades(sent[-1])

    expected = {each["trade_id"]: 1 for sent in given.values() for batch in sent for each in batch}
    assert {trade.trade_id: trade.version for trade in pool.get_all_trades()} == expected
    assert digests_agree(pool)
    assert pool.check_all_trades(deep=True).findings == ()
