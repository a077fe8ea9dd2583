"""Quarantine on real pools: kept by everything that carries trades, shown and ended by operators."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.audit_plants import opened
from tests.faults.simulator.store_contents import actual_contents
from tests.loose_trades import buy, entry
from tests.repairing import slow
from tradepool import AsyncTradePool, TradePool
from tradepool.cli import main
from tradepool.errors import InvalidTrade, Quarantined, UnknownTrade
from tradepool.exporters import ExportFormat
from tradepool.importers import import_file

REASON = "looks wrong"


@pytest.fixture
def pool(server, tmp_path):
    with opened(server, tmp_path / "pool") as (made, _):
        yield made


def kept_trade(pool, **fields):
    trade_id = pool.add_trade(buy(**fields)).trade_id
    pool.add_fill(trade_id, entry(f"f-{trade_id}"))
    pool.quarantine(trade_id, REASON)
    return trade_id


def test_it_is_listed_read_and_marked_but_not_changed_until_it_is_released(pool):
    trade_id = kept_trade(pool)
    assert [trade.trade_id for trade in pool.get_quarantined()] == [trade_id]
    assert trade_id in pool.mark_to_market({"BTC/USDT": "110"}, rows=True).rows
    with pytest.raises(Quarantined):
        pool.close_trade(trade_id, "110")

    assert pool.release_quarantine(trade_id).outcome == "applied"

    assert pool.get_quarantined() == []
    assert pool.close_trade(trade_id, "110").outcome == "applied"
    assert pool.check_all_trades(deep=True).ok


def test_who_is_not_there_cannot_be_put_in_quarantine(pool):
    with pytest.raises(UnknownTrade):
        pool.quarantine("nobody", REASON)
    with pytest.raises(InvalidTrade, match="reason"):
        pool.quarantine("nobody", None)


def test_a_restart_and_a_recovery_from_snapshot_and_journal_keep_it(server_binary, tmp_path):
    folder = tmp_path / "pool"
    with TradePool.embedded(folder, shard_count=2) as pool:
        first = kept_trade(pool, trade_id="mine")
        pool.write_snapshot()
        second = kept_trade(pool)
        kept = actual_contents(pool.redis)
        pool.redis.flushall()
    (folder / "server").rename(folder / "server-lost")
    with TradePool.embedded(folder, shard_count=2) as pool:
        assert actual_contents(pool.redis) == kept
        assert {trade.trade_id for trade in pool.get_quarantined()} == {first, second}
        assert pool.get_trade_history(first)[-1].quarantine == REASON


@pytest.mark.parametrize("file_format", [ExportFormat.PARQUET, *slow([ExportFormat.JSONL, ExportFormat.CSV])])
def test_an_export_brings_it_to_another_pool(pool, tmp_path, file_format):
    trade_id = kept_trade(pool, user_id=f"of {file_format}")
    path = tmp_path / f"trades.{file_format}"
    pool.export(path, file_format=file_format, user_id=f"of {file_format}")
    with TradePool.embedded(tmp_path / "other", shard_count=2) as other:
        import_file(other, path)
        assert [trade.trade_id for trade in other.get_quarantined()] == [trade_id]
        with pytest.raises(Quarantined):
            other.close_trade(trade_id, "110")


@pytest.mark.slow
def test_an_archive_waits_for_its_release(tmp_path, server_binary):
    with TradePool.embedded(tmp_path / "pool", shard_count=2, retention_s=0) as pool:
        trade_id = pool.add_trade(buy(status="completed", pnl="5")).trade_id
        pool.quarantine(trade_id, REASON)
        assert pool.archive_closed_trades().archived == 0
        pool.release_quarantine(trade_id)
        assert pool.archive_closed_trades().archived == 1
        assert pool.get_trade(trade_id).notes[-1].endswith(REASON)
        assert pool.check_all_trades(deep=True).ok


def test_the_same_methods_are_awaited(pool):
    async def through() -> None:
        async with AsyncTradePool.connect(pool.settings) as awaited:
            trade_id = (await awaited.add_trade(buy())).trade_id
            await awaited.quarantine(trade_id, REASON)
            assert [trade.trade_id for trade in await awaited.get_quarantined()] == [trade_id]
            await awaited.release_quarantine(trade_id)
            assert await awaited.get_quarantined() == []

    asyncio.run(through())


def test_the_command_puts_in_lists_and_releases(pool, capsys, monkeypatch):
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", pool.settings.redis_url)
    monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(pool.settings.data_dir))
    monkeypatch.setenv("TRADEPOOL_SHARD_COUNT", "2")
    trade_id = pool.add_trade(buy(user_id="[red]me")).trade_id
    assert main(["quarantine", trade_id, "--reason", REASON]) == 0
    shown = capsys.readouterr().out
    assert "1 trade in quarantine" in shown
    assert "[red]me" in shown
    assert main(["quarantine", "--json"]) == 0
    assert [one["quarantine"] for one in json.loads(capsys.readouterr().out)] == [REASON]
    assert main(["quarantine", trade_id, "--release"]) == 0
    assert "0 trades in quarantine" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--release"], ["a"], ["a", "--release", "--reason", "b"], ["--reason", "b"]]
)
def test_a_command_that_says_too_little_or_too_much_is_bad_usage(tmp_path, words, capsys):
    assert main(["quarantine", *words, "--embedded", str(tmp_path)]) == 2
    assert "TRADE" in capsys.readouterr().err
