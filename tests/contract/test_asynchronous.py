"""The awaitable pool does what the other one does, on threads of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from decimal import Decimal

import pytest

from tests.loose_trades import buy, entry
from tradepool import AsyncPoolClient, AsyncTradePool, PoolClient, TradePool, asynchronous, errors
from tradepool.core import WINDOW
from tradepool.files.journal import JOURNAL_NAME

WAIT_S = 20.0


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize(("wrapper", "wrapped"), [(AsyncTradePool, TradePool), (AsyncPoolClient, PoolClient)])
def test_every_public_method_has_its_awaitable_twin(wrapper, wrapped):
    assert public(wrapped) - public(wrapper) == set()


@pytest.mark.parametrize(("wrapper", "wrapped"), [(AsyncTradePool, TradePool), (AsyncPoolClient, PoolClient)])
def test_what_streams_is_iterated_and_all_else_is_awaited(wrapper, wrapped):
    for name, method in inspect.getmembers(wrapped, inspect.isfunction):
        if not name.startswith("_"):
            twin = getattr(wrapper, name)
            is_stream = str(method.__annotations__["return"]).startswith("Iterator")
            assert inspect.isasyncgenfunction(twin) == is_stream, name
            assert inspect.iscoroutinefunction(twin) != is_stream, name


def test_a_trade_goes_its_way_awaited(tmp_path):
    async def trade():
        async with AsyncTradePool.embedded(tmp_path, shard_count=2) as pool:
            assert pool.settings.shard_count == 2
            assert pool.redis.ping()
            receipts = await asyncio.gather(*(pool.add_trade(buy(strategy=str(n))) for n in range(30)))
            first = receipts[0].trade_id
            await pool.add_fill(first, entry("f1"))
            await pool.close_trade(first, "110")
            with pytest.raises(errors.UnknownTrade):
                await pool.get_trade("nobody's")
            streamed = [found.trade_id async for found in pool.get_all_trades()]
            assert sorted(streamed) == sorted(receipt.trade_id for receipt in receipts)
            assert (await pool.check_all_trades(deep=True)).ok
            return pool, await pool.get_trade(first)

    pool, closed = asyncio.run(trade())
    assert closed.pnl == Decimal(10)
    with pytest.raises(errors.StoreUnavailable, match="closed"):
        asyncio.run(pool.get_trade(closed.trade_id))


def test_a_cancelled_batch_goes_in_whole_before_the_pool_closes(tmp_path):
    count = WINDOW + 10
    is_under_way, is_cancelled = threading.Event(), threading.Event()

    def trades(*, pausing=False):
        for number in range(count):
            if pausing and number == WINDOW:
                is_under_way.set()
                assert is_cancelled.wait(WAIT_S)
            yield buy(trade_id=f"t-{number}")

    async def add_and_cancel():
        async with await AsyncTradePool.embedded(tmp_path, shard_count=2) as pool:
            adding = asyncio.create_task(pool.add_trades(trades(pausing=True)))
            assert await asyncio.to_thread(is_under_way.wait, WAIT_S)
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding
            end_threads = pool._threads.shutdown
            pool._threads.shutdown = lambda: (is_cancelled.set(), end_threads())

    asyncio.run(add_and_cancel())
    with TradePool.embedded(tmp_path, shard_count=2) as pool:
        assert {receipt.outcome for receipt in pool.add_trades(trades())} == {"duplicate"}
        assert pool.check_all_trades(deep=True).ok


def test_cancelled_reservations_hold_what_they_say_or_nothing(tmp_path):
    def requests(pool):
        return [pool.reserve_tokens("ann", "USDT", 1, f"key-{number}", 60) for number in range(40)]

    async def reserve():
        async with await AsyncTradePool.embedded(tmp_path, shard_count=2) as pool:
            await pool.update_available_tokens("ann", {"USDT": 40})
            calls = [asyncio.create_task(request) for request in requests(pool)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for call in calls:
                call.cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert any(isinstance(result, asyncio.CancelledError) for result in done)
            again = await asyncio.gather(*requests(pool))
            assert {reservation.status for reservation in again} == {"open"}
            assert len(await pool.get_reservations("ann")) == 40
            with pytest.raises(errors.InsufficientTokens):
                await pool.reserve_tokens("ann", "USDT", 1, "one more", 60)
            return await pool.check_all_trades(deep=True)

    assert asyncio.run(reserve()).ok


def test_a_pool_whose_opening_was_cancelled_is_closed_again(tmp_path, monkeypatch):
    is_opening, is_cancelled = threading.Event(), threading.Event()
    embedded = TradePool.embedded

    def opened_slowly(path):
        is_opening.set()
        assert is_cancelled.wait(WAIT_S)
        return embedded(path, shard_count=2)

    async def open_and_cancel():
        opening = asyncio.create_task(AsyncTradePool.embedded(tmp_path))
        assert await asyncio.to_thread(is_opening.wait, WAIT_S)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        is_cancelled.set()

    monkeypatch.setattr(TradePool, "embedded", opened_slowly)
    asyncio.run(open_and_cancel())
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("tradepool-open")]
    for thread in threads:
        thread.join(WAIT_S)
    assert (tmp_path / JOURNAL_NAME).exists()
    embedded(tmp_path, shard_count=2).close()


def test_a_client_can_be_awaited(settings):
    async def send():
        async with await AsyncPoolClient.connect(settings) as client:
            trade_id = await client.add_trade(buy(trade_id="t-1"))
            with pytest.raises(errors.InvalidTrade):
                await client.add_trade(buy(amount=0))
            return trade_id, await client.pending(), client.rejections

    assert asyncio.run(send()) == ("t-1", 1, [])


def test_whoever_waits_for_a_client_waits_no_longer_than_it_is_open(settings, tmp_path):
    async def wait_and_close():
        client = await AsyncPoolClient.connect(nowhere(settings), spool=tmp_path / "spool")
        added = [asyncio.create_task(client.add_trade(buy(trade_id=f"t-{n}"))) for n in range(20)]
        await added[0]
        waits = [client.flush(600), client.confirm(["t-0"], 600)]
        waiting = [asyncio.create_task(wait) for wait in waits]
        await asyncio.wait(waiting, timeout=0)
        await client.close(timeout=0)
        return await asyncio.gather(*added), await asyncio.gather(*waiting)

    added, waited = asyncio.run(wait_and_close())
    assert added == [f"t-{n}" for n in range(20)]
    assert waited == [False, {"t-0": False}]


def test_waits_that_were_cancelled_hold_up_no_other(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(asynchronous, "WAITS", 2)

    async def cancel_and_wait():
        async with AsyncPoolClient.connect(nowhere(settings), spool=tmp_path / "spool") as client:
            await client.add_trade(buy(trade_id="t-1"))
            waits = [client.flush(600), client.confirm(["t-1"], 600), client.flush(600)]
            waiting = [asyncio.create_task(wait) for wait in waits]
            await asyncio.wait(waiting, timeout=0.05)
            for wait in waiting:
                wait.cancel()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(end) for end in ended] == [asyncio.CancelledError] * 3
            assert await asyncio.wait_for(client.flush(0.01), WAIT_S) is False
            assert (await client.lag()).commands == 1
            await client.close(timeout=0)

    asyncio.run(cancel_and_wait())


def test_a_client_that_is_closed_while_it_publishes_blocks_no_loop_and_loses_nothing(settings, tmp_path):
    is_sending, goes_on = threading.Event(), threading.Event()

    def send_slowly(*_: object) -> str:
        is_sending.set()
        assert goes_on.wait(WAIT_S)
        raise errors.StoreUnavailable("cut off")

    async def close_meanwhile():
        client = await AsyncPoolClient.connect(settings, spool=tmp_path / "spool")
        client._wrapped._delivery._sender.send_each = send_slowly
        await client.add_trade(buy(trade_id="t-1"))
        assert await asyncio.to_thread(is_sending.wait, WAIT_S)
        closing = asyncio.create_task(client.close(timeout=0))
        # The loop goes on meanwhile, and whoever comes now is told.
        await asyncio.wait([closing], timeout=0)
        with pytest.raises(errors.StoreUnavailable, match="closed"):
            await client.add_trade(buy(trade_id="t-2"))
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        goes_on.set()
        await client.close(timeout=0)

    asyncio.run(close_meanwhile())
    again = PoolClient.connect(settings, spool=tmp_path / "spool")
    try:
        assert again.pending() == 1
    finally:
        again.close(timeout=0)


def nowhere(settings):
    return settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
