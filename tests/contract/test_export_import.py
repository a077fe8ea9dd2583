"""From one pool into another through a file of every form, on real servers."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.import_files import SHARED, MemoryPool, with_shared_data
from tests.loose_trades import buy, entry
from tests.trade_builders import fill_fields
from tradepool import TradePool
from tradepool.exporters import ExportFormat
from tradepool.importers import import_file
from tradepool.importers.pool_files import BOOKKEEPING
from tradepool.model.summary import summarise
from tradepool.model.trade import Trade

BACKTEST = SHARED / "freqtrade/backtest-result.json"


@pytest.fixture(scope="module")
def pools(server_binary, tmp_path_factory):
    """A pool with something of everything, and one with nothing."""
    folder = tmp_path_factory.mktemp("pools")
    with ExitStack() as stack:
        full, other = (
            stack.enter_context(TradePool.embedded(folder / name, shard_count=2))
            for name in ("full", "other")
        )
        fill(full)
        yield full, other


def fill(pool):
    if BACKTEST.exists():
        assert import_file(pool, BACKTEST).applied == 179
    long = pool.add_trade(buy(strategy='ü, "x"', extra={"deep": [1, {"a": None}], "n": 0.1}, tag="=1+1"))
    pool.add_fill(long.trade_id, entry("a", "1", fee="0.001", fee_currency="BTC"))
    pool.close_trade(long.trade_id, "110.5", amount="0.4", fee="0.02")
    coins = pool.add_trade(buy(symbol="ETH/USD:ETH", contract_size="10", side="sell", leverage="3"))
    pool.add_fill(coins.trade_id, fill_fields("b", "entry", "0.00000001", "1999.000000000000000001"))
    pool.update_trade(coins.trade_id, status="cancelled")
    pool.add_trade(buy(amount="999999999999999", price="0.000000000001", status="successful", pnl=None))
    pool.add_trade(buy(status="expired", idempotency_key="key"))


def facts_of(pool):
    return {
        trade.trade_id: {
            name: getattr(trade, name) for name in Trade.__struct_fields__ if name not in BOOKKEEPING
        }
        for trade in pool.get_all_trades()
    }


@pytest.mark.parametrize("file_format", list(ExportFormat))
def test_another_pool_gets_every_trade_as_it_was(pools, tmp_path, file_format):
    full, other = pools
    path = tmp_path / "all.data"
    count = full.export(path, file_format=file_format)
    report = import_file(other, path)
    assert (report.refused, report.read) == ((), count)
    assert report.applied == (count if file_format is ExportFormat.JSONL else 0)
    assert facts_of(other) == facts_of(full)
    again = tmp_path / "again.data"
    other.export(again, file_format=file_format)
    assert import_file(other, again).duplicate == count


def test_what_a_pool_exported_it_knows_again(pools, tmp_path):
    full, _ = pools
    before = {trade.trade_id: trade for trade in full.get_all_trades()}
    count = full.export(tmp_path / "all.jsonl")
    report = import_file(full, tmp_path / "all.jsonl")
    assert (report.duplicate, report.refused) == (count, ())
    assert {trade.trade_id: trade for trade in full.get_all_trades()} == before


@with_shared_data
def test_a_pool_tells_what_the_backtest_published(pools):
    full, _ = pools
    published = json.loads(BACKTEST.read_text())["strategy"]["StrategyTestV3"]
    summary = full.get_user_summary("freqtrade")
    series = summary.statistics.reported_series
    assert float(series.cagr) == pytest.approx(published["cagr"], rel=1e-12)
    assert float(series.max_drawdown_relative) == pytest.approx(published["max_drawdown_account"], rel=1e-14)
    assert float(summary.reported.profit_factor) == pytest.approx(published["profit_factor"], rel=1e-14)


@with_shared_data
def test_freqtrades_part_of_its_form_stands_on_its_own(pools, tmp_path):
    """Without the pool's own part it is read as freqtrade's tools read it: floats, with the same results."""
    full, _ = pools
    path = tmp_path / "all.json"
    full.export(path, file_format="freqtrade", user_id="freqtrade")
    document = json.loads(path.read_text())
    shaped = document["strategy"]["StrategyTestV3"]["trades"]
    theirs = json.loads(BACKTEST.read_text())["strategy"]["StrategyTestV3"]["trades"]
    by_time = lambda trade: (trade["open_timestamp"], trade["pair"])  # noqa: E731
    for ours, original in zip(sorted(shaped, key=by_time), sorted(theirs, key=by_time), strict=True):
        for name in original.keys() - {"orders"}:
            expected = original[name]
            assert ours[name] == (expected if isinstance(expected, str) else pytest.approx(expected)), name
    del document["tradepool"]
    path.write_text(json.dumps(document))
    third = MemoryPool()
    assert import_file(third, path).applied == 179
    again, before = summarise(third.trades.values(), user_id="freqtrade"), full.get_user_summary("freqtrade")
    assert (again.wins, again.losses, again.draws) == (48, 9, 122)
    assert float(again.pnl) == pytest.approx(float(before.pnl), rel=1e-9)
    assert float(again.reported.pnl) == pytest.approx(float(before.reported.pnl), rel=1e-12)
