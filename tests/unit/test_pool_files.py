"""Exports of a pool that were damaged, cut or edited: what is whole goes in, the rest is refused."""

from __future__ import annotations

import csv
import json

import pytest

from tests.trade_builders import fill_fields, new_trade
from tradepool.archive.columns import Stored
from tradepool.archive.database import connected
from tradepool.errors import Rejected
from tradepool.exporters import ExportFormat, write_export
from tradepool.importers import Defaults, Format, open_import
from tradepool.importers.rows import RefusedRow, TradeRow
from tradepool.model import codec
from tradepool.model.trade import Trade

TRADES = [
    new_trade("t1", exit_price=2100, fee="0.5"),
    new_trade("t2", fills=[fill_fields("a", "entry", 1, "1999.5")], note="ü"),
    new_trade("t3", status="expired"),
]


@pytest.fixture
def exported(tmp_path):
    def export(suffix, trades=TRADES):
        path = tmp_path / f"all.{suffix}"
        stored = [Stored(trade, codec.encode_trade(trade)) for trade in trades]
        write_export(path, stored, ExportFormat(suffix), force=True)
        return path

    return export


def entries(path):
    opened = open_import(path, defaults=Defaults(user="nobody", source=None))
    assert opened.format is Format.TRADEPOOL
    return list(opened.entries)


def refusals(path):
    return [(row.position, row.reason) for row in entries(path) if isinstance(row, RefusedRow)]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_file_is_known_by_its_content_and_names_its_own_users(exported, suffix):
    path = exported(suffix)
    rows = entries(path.rename(path.with_suffix(".data")))
    assert {row.trade["trade_id"]: row.trade["user_id"] for row in rows} == {
        "t1": "ann",
        "t2": "ann",
        "t3": "ann",
    }


def test_a_figure_that_does_not_follow_from_its_fills_is_refused(exported):
    path = exported("jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["pnl_net"] = "1000000"
    lines[1]["fills"][0]["amount"] = "2"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (first, told), (second, also_told) = refusals(path)
    assert (first, second) == ("line 1", "line 2")
    assert told.startswith("pnl_net: booked again it is 199.5")
    assert "filled: booked again it is 2" in also_told


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b'{"trade_id": "t9"', "not JSON"),
        (b"[1]", "not a trade's record"),
        (b"{}", "not a trade's record"),
        (b'{"trade_id": "t9", "schema_version": 1}', "not a trade's record"),
        (b'{"schema_version": "\xff\xfe"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_damaged_line_is_refused_and_the_others_read(exported, damage, reason):
    path = exported("jsonl")
    first, *others = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, damage, b"", *others]) + b"\n")
    assert [(position, reason in told) for position, told in refusals(path)] == [("line 2", True)]
    assert sum(isinstance(row, TradeRow) for row in entries(path)) == 3


def test_a_torn_last_line_is_refused(exported):
    path = exported("jsonl")
    path.write_bytes(path.read_bytes()[:-100])
    assert [position for position, _ in refusals(path)] == ["line 3"]


def test_a_csv_is_refused_where_it_is_damaged(exported):
    path = exported("csv")
    header, first, second, third = path.read_text().splitlines(keepends=True)
    short, wrong = ",".join(second.split(",")[:5]) + "\r\n", third.replace(",false,", ",perhaps,")
    path.write_text(header + first + short + wrong + second)
    assert [(position, told.split(":")[0]) for position, told in refusals(path)] == [
        ("line 3", f"5 cells under {len(header.split(','))} columns"),
        ("line 4", "fee_unpriced"),
    ]
    path.write_text(header + first + '"t9')
    assert refusals(path) == [("line 3", "torn, nothing behind it was read: unexpected end of data")]


def test_a_csv_without_our_columns_is_no_export(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("trade_id,user_id,amount\r\n1,ann,2\r\n")
    with pytest.raises(Rejected, match="schema_version"):
        list(open_import(path, file_format=Format.TRADEPOOL, defaults=Defaults()).entries)


def test_a_record_that_is_not_what_was_written_is_refused(exported, tmp_path):
    path, edited = exported("parquet"), tmp_path / "edited.parquet"
    change = "replace(record, '\"t2\"', '\"t9\"') AS record"
    with connected() as database:
        database.execute(
            f"COPY (SELECT * REPLACE ({change}) FROM read_parquet('{path}')) TO '{edited}' (FORMAT parquet)"
        )
    assert [told for _, told in refusals(edited)] == ["the record does not match its digest; export it again"]


def test_a_parquet_file_of_others_is_no_export(tmp_path):
    path = tmp_path / "a.parquet"
    with connected() as database:
        database.execute(f"COPY (SELECT 1 AS a) TO '{path}' (FORMAT parquet)")
    cut = tmp_path / "b.parquet"
    cut.write_bytes(path.read_bytes()[:20])
    for file in (path, cut):
        with pytest.raises(Rejected, match="a Parquet file that a pool wrote"):
            entries(file)


def test_a_trade_of_many_fills_fits_into_a_cell(exported):
    fills = [fill_fields(f"fill {n}", "entry", 1, 2000, order_id="o" * 60) for n in range(1500)]
    trade = new_trade("t1", amount=1500, fills=fills)
    (row,) = entries(exported("csv", [trade]))
    assert isinstance(row, TradeRow)
    assert Trade.from_dict(row.trade) == trade


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_no_rubbish_in_any_field_stops_the_others(exported, suffix):
    path = exported(suffix)
    rubbish = (None, True, "", "x", 5, -1, 1e300, 2**70, [], [5], {}, {"a": [None]}, "\ud800", "9" * 5000)
    if suffix == "jsonl":
        first, *_ = lines = path.read_text().splitlines()
        whole = json.loads(first)
        lines += [json.dumps(whole | {name: value}) for name in whole for value in rubbish]
        path.write_text("\n".join([*lines, first]) + "\n")
    else:
        header, first, *_ = rows = list(csv.reader(path.read_text().splitlines()))
        cells = [json.dumps(value) for value in rubbish]
        rows += [[*first[:n], cell, *first[n + 1 :]] for n in range(len(header)) for cell in cells]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([*rows, first])
    found = entries(path)
    assert len(found) > 500
    assert [isinstance(row, TradeRow) for row in (found[0], found[-1])] == [True, True]
    assert sum(isinstance(row, RefusedRow) for row in found) > 300
