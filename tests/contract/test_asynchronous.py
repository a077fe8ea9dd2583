"""The awaitable pool does what the other one does, on threads of its own."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from tests.loose_trades import buy, entry
from tradepool import AsyncPoolClient, AsyncTradePool, PoolClient, TradePool, errors


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize(("wrapper", "wrapped"), [(AsyncTradePool, TradePool), (AsyncPoolClient, PoolClient)])
def test_every_public_method_has_its_awaitable_twin(wrapper, wrapped):
    assert public(wrapped) - public(wrapper) == set()


def test_a_trade_goes_its_way_awaited(tmp_path):
    async def trade():
        async with await AsyncTradePool.embedded(tmp_path, shard_count=2) as pool:
            receipts = await asyncio.gather(*(pool.add_trade(buy(strategy=str(n))) for n in range(30)))
            first = receipts[0].trade_id
            await pool.add_fill(first, entry("f1"))
            await pool.close_trade(first, "110")
            with pytest.raises(errors.UnknownTrade):
                await pool.get_trade("nobody's")
            streamed = [found.trade_id async for found in pool.get_all_trades()]
            assert sorted(streamed) == sorted(receipt.trade_id for receipt in receipts)
            assert (await pool.check_all_trades(deep=True)).ok
            return await pool.get_trade(first)

    assert asyncio.run(trade()).pnl == Decimal(10)


def test_a_cancelled_call_is_done_whole_or_not_at_all(tmp_path):
    async def trade():
        async with await AsyncTradePool.embedded(tmp_path, shard_count=2) as pool:
            calls = [asyncio.create_task(pool.add_trade(buy(trade_id=f"t-{n}"))) for n in range(20)]
            await asyncio.wait(calls, timeout=0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await pool.add_trade(buy(trade_id="last"))
            return await pool.check_all_trades(deep=True)

    assert asyncio.run(trade()).ok


def test_a_client_can_be_awaited(settings):
    async def send():
        async with await AsyncPoolClient.connect(settings) as client:
            trade_id = await client.add_trade(buy(trade_id="t-1"))
            with pytest.raises(errors.InvalidTrade):
                await client.add_trade(buy(amount=0))
            return trade_id, await client.pending(), client.rejections

    assert asyncio.run(send()) == ("t-1", 1, [])
