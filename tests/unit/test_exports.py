"""What an export writes, an import takes back: every trade as it was, in every form."""

from __future__ import annotations

import csv
import json
import tracemalloc

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.import_files import MemoryPool
from tests.trade_builders import NOW_US, add_command, fill_command, fill_fields, new_trade, update_command
from tests.trade_histories import histories
from tradepool.archive.columns import Stored
from tradepool.exporters import ExportFormat, choose_format, write_export
from tradepool.exporters.lines import json_lines
from tradepool.importers.freqtrade import read_freqtrade
from tradepool.importers.json_text import decode
from tradepool.importers.load import add_command as import_command
from tradepool.importers.pool_files import BOOKKEEPING, read_pool_file
from tradepool.importers.rows import Defaults, TradeRow
from tradepool.model import changes, codec
from tradepool.model.trade import Trade

NO_DEFAULTS = Defaults()


def stored(trades):
    return [Stored(trade, codec.encode_trade(trade)) for trade in trades]


def exported(folder, trades, file_format="jsonl"):
    path = folder / f"all.{file_format}"
    assert write_export(path, stored(trades), ExportFormat(file_format), force=True) == len(trades)
    return path


def rows_of(path):
    if path.suffix == ".freqtrade":
        return list(read_freqtrade(decode(path.read_text()), NO_DEFAULTS))
    return list(read_pool_file(path, NO_DEFAULTS))


def facts(trade):
    """All of a trade but what belongs to the pool that it is in."""
    return {name: getattr(trade, name) for name in Trade.__struct_fields__ if name not in BOOKKEEPING}


def brought_in(row):
    return changes.add(import_command(row, now_us=0), trade_id=row.trade["trade_id"], existing=None).trade


made_trades = st.lists(histories(), min_size=1, max_size=4)
in_one_folder = [HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("file_format", list(ExportFormat))
@settings(max_examples=4, deadline=None, suppress_health_check=in_one_folder)
@given(made=made_trades)
def test_what_was_exported_is_imported_as_it_was(tmp_path, file_format, made):
    check_round_trip(tmp_path, file_format, made)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", list(ExportFormat))
@settings(max_examples=200, deadline=None, suppress_health_check=in_one_folder)
@given(made=made_trades)
def test_many_more_trades_are_imported_as_they_were(tmp_path, file_format, made):
    check_round_trip(tmp_path, file_format, made)


def check_round_trip(folder, file_format, made):
    trades = [renamed(msgspec.structs.replace(trade, trade_id=f"t{n}")) for n, trade in enumerate(made)]
    rows = rows_of(exported(folder, trades, file_format))
    assert len(rows) == len(trades)
    if file_format is ExportFormat.PARQUET:
        # It is read in any order.
        rows.sort(key=lambda row: int(row.position.removeprefix("row ")))
    for trade, row in zip(trades, rows, strict=True):
        assert is_the_same(trade, row)


def renamed(trade):
    """Fills that intake named carry the id of their trade."""
    fills = tuple(
        msgspec.structs.replace(fill, fill_id=fill.fill_id.replace("t1:", f"{trade.trade_id}:"))
        for fill in trade.fills
    )
    return msgspec.structs.replace(trade, fills=fills)


def is_the_same(trade, row):
    again = brought_in(row)
    return facts(again) == facts(trade) and again.updated_at == trade.updated_at


@settings(max_examples=15, deadline=None)
@given(histories())
def test_a_line_of_json_is_the_trades_dictionary(trade):
    (line,) = json_lines(stored([trade]))
    assert line == msgspec.json.encode(trade.to_dict()) + b"\n"
    assert Trade.from_dict(json.loads(line)) == trade


def test_a_very_small_number_is_written_in_full(tmp_path):
    trade = new_trade(amount="0.00000001", price="0.000000000000000001", extra={"note": "E-"})
    for file_format in ("jsonl", "csv"):
        text = exported(tmp_path, [trade], file_format).read_text()
        assert "0.00000001" in text
        assert "0.000000000000000001" in text


def test_csv_tells_no_value_from_an_empty_list_and_a_word_from_a_number(tmp_path):
    trade = new_trade(strategy="null", close_reason="1e5", signals={}, extra={"a,b": 'say "x"\u2028\n'})
    path = exported(tmp_path, [trade], "csv")
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["idempotency_key"], row["signals"], row["fills"]) == ("", "{}", "[]")
    (entry,) = rows_of(path)
    again = brought_in(entry)
    assert (again.strategy, again.close_reason, again.extra) == ("null", "1e5", trade.extra)


def test_the_same_export_again_changes_nothing(tmp_path):
    trade = new_trade(exit_price=2100)
    pool = MemoryPool()
    first, second = (
        pool.apply([import_command(*rows_of(exported(tmp_path, [trade])), now_us=0)]) for _ in "ab"
    )
    assert [receipt.outcome for receipt in (*first, *second)] == ["applied", "duplicate"]


def test_what_the_commands_left_behind_is_exported_too(tmp_path):
    """A further order that is not filled yet, and one that was taken back."""
    trade = changes.add(add_command(), trade_id="t1", existing=None).trade
    for command in (
        fill_command("f", fill_fields("a", "entry", 2, 2000, at=NOW_US)),
        update_command("more", NOW_US + 1, amount="5", stop_loss="1500"),
        fill_command("g", fill_fields("b", "entry", 1, 1900, at=NOW_US + 2), NOW_US + 2),
    ):
        trade = changes.change(trade, command).trade
    waiting = trade
    taken_back = changes.change(trade, update_command("back", NOW_US + 3, status="cancelled")).trade
    assert (waiting.amount, waiting.filled, taken_back.amount) == (5, 3, 3)
    for left in (waiting, taken_back):
        (row,) = rows_of(exported(tmp_path, [left]))
        assert isinstance(row, TradeRow), row
        assert facts(brought_in(row)) == facts(left)


def test_a_trade_of_the_first_years_keeps_its_times(tmp_path):
    """Few µs, which a caller would have meant for milliseconds."""
    trade = new_trade(timestamp=794916.035, exit_price=2100, signals={"at": 5})
    (row,) = rows_of(exported(tmp_path, [trade]))
    assert isinstance(row, TradeRow), row
    assert facts(brought_in(row)) == facts(trade)


def test_freqtrades_tools_find_what_they_look_for(tmp_path):
    """Of a short half closed at a loss, a trade that waits for its fill, and one of a strategy."""
    fills = [
        fill_fields("a", "entry", "1", "2000", at=NOW_US, fee="2"),
        fill_fields("b", "exit", "0.5", "2100", at=NOW_US + 90_000_000),
    ]
    short = new_trade(
        "t1", side="sell", amount="1", market="margin", leverage="2", fills=fills, stop_loss="2200"
    )
    waiting, named = (
        new_trade("t2"),
        new_trade("t3", exit_price=2100, strategy='a "b"', signals={"enter_tag": "dip"}),
    )
    document = json.loads(exported(tmp_path, [short, waiting, named], "freqtrade").read_text())
    assert {name: len(found["trades"]) for name, found in document["strategy"].items()} == {
        "tradepool": 1,
        'a "b"': 1,
    }
    assert [record["trade_id"] for record in document["tradepool"]["trades"]] == ["t1", "t2", "t3"]
    (shape,), (closed,) = (found["trades"] for found in document["strategy"].values())
    expected = {
        "pair": "ETH/USDT",
        "is_short": True,
        "is_open": True,
        "leverage": 2.0,
        "stake_amount": 1000.0,
        "amount": 0.5,
        "open_rate": 2000.0,
        "close_rate": 2100.0,
        "close_date": None,
        "profit_abs": -51.0,
        "fee_open": 0.001,
        "stop_loss_abs": 2200.0,
        "open_date": "2025-06-15 15:06:40+00:00",
        "open_timestamp": NOW_US // 1000,
        "enter_tag": None,
    }
    assert {name: shape[name] for name in expected} == expected
    sides = [(order["ft_order_side"], order["ft_is_entry"], order["cost"]) for order in shape["orders"]]
    assert sides == [("sell", True, 2000.0), ("buy", False, 1050.0)]
    assert (closed["is_open"], closed["trade_duration"], closed["enter_tag"]) == (False, 0, "dip")


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "freqtrade"])
def test_memory_does_not_grow_with_the_trades(tmp_path, file_format):
    trade = new_trade(exit_price=2100, signals={"text": "x" * 14_000})
    peaks = {}
    for count in (5, 100):
        stream = (Stored(trade, codec.encode_trade(trade)) for _ in range(count))
        tracemalloc.start()
        write_export(tmp_path / "a", stream, ExportFormat(file_format), force=True)
        if file_format != "freqtrade":
            assert (
                sum(isinstance(row, TradeRow) for row in read_pool_file(tmp_path / "a", NO_DEFAULTS)) == count
            )
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size > 1_400_000
    assert peaks[100] < peaks[5] + 200_000


def test_a_format_is_chosen_by_suffix_or_by_name(tmp_path):
    assert choose_format(tmp_path / "a.CSV") is ExportFormat.CSV
    assert choose_format(tmp_path / "a.json", "freqtrade") is ExportFormat.FREQTRADE
