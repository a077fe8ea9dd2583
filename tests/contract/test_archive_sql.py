"""`sql` and `export`: live and archived trades as one, exact, and nothing else within a query's reach."""

from __future__ import annotations

import csv
import json
import os
from datetime import datetime
from decimal import Decimal

import pytest

from tests.archived_trades import DAY_US, closed_trade, some_of_each
from tests.loose_trades import buy
from tradepool import Trade, TradePool, errors
from tradepool.archive.database import connected
from tradepool.cli import main
from tradepool.clock import now_us


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory):
    """A pool with archived and live trades, which these tests only read."""
    with TradePool.embedded(tmp_path_factory.mktemp("sql") / "pool", shard_count=2) as opened:
        some_of_each(opened)
        closed_trade(opened, "zoë", symbol="ADA/USDT", strategy='a,b "c"', amount="0.00000001", price="1e-8")
        opened.archive_closed_trades()
        opened.add_trade(buy(user_id="zoë", extra={"nested": [1, {"ä": None}]}))
        yield opened


def test_a_query_sees_live_and_archived_trades_as_one_table(pool):
    found = pool.sql("SELECT archived, count(*) AS number FROM trades GROUP BY archived ORDER BY archived")
    assert (found.columns, found.rows, found.is_cut) == (
        ("archived", "number"),
        [(False, 5), (True, 13)],
        False,
    )


def test_amounts_are_exact_decimals_and_times_are_timestamps(pool):
    (row,) = pool.sql(
        "SELECT amount, price, entry_cost, created_at, inexact FROM trades WHERE user_id = 'zoë' AND archived"
    ).rows
    trade = pool.get_trades_by_symbol("ADA/USDT").trades[0]
    assert row[:2] == (trade.amount, trade.price) == (Decimal("1e-8"), Decimal("1e-8"))
    assert row[2] == trade.entry_cost
    assert isinstance(row[3], datetime)
    assert row[4] == []


def test_what_has_no_column_is_asked_of_the_record(pool):
    query = "SELECT record->>'$.fills[0].fill_id' FROM trades WHERE symbol = 'ADA/USDT'"
    (row,) = pool.sql(query).rows
    assert row[0].startswith("f-")


def test_a_query_gets_as_many_rows_as_it_asked_for_and_is_told_of_more(pool):
    found = pool.sql("FROM trades", limit=3)
    assert (len(found.rows), found.is_cut) == (3, True)
    assert not pool.sql("FROM trades LIMIT 3", limit=3).is_cut


@pytest.mark.parametrize(
    "query",
    [
        "COPY trades TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY trades TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('{folder}/pool/trade_pool.log')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('http://127.0.0.1:1/x.parquet')",
        "SELECT * FROM query('COPY trades TO ''{folder}/out.csv''')",
        "SELECT getenv('HOME')",
        "ATTACH '{folder}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_paths = ['/']",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CREATE TABLE x AS FROM trades",
        "CREATE OR REPLACE VIEW trades AS SELECT 1",
        "DROP VIEW trades",
        "SELECT 1; COPY trades TO '{folder}/out.csv'",
        "SELECT nothing FROM trades",
        "SELEC 1",
        "",
        ";",
        "\x00",
    ],
)
def test_a_query_can_only_read_trades(pool, tmp_path, query):
    folder = pool.settings.data_dir / "archive"
    parts = {part: part.read_bytes() for part in folder.glob("day=*/*")}
    before = sorted(os.listdir(pool.settings.data_dir.parent))  # noqa: PTH208 - names are enough
    with pytest.raises(errors.InvalidQuery) as refused:
        pool.sql(query.format(folder=pool.settings.data_dir.parent, part=next(iter(parts))))
    assert "\n" not in str(refused.value)
    assert {part: part.read_bytes() for part in folder.glob("day=*/*")} == parts
    assert sorted(os.listdir(pool.settings.data_dir.parent)) == before  # noqa: PTH208


def test_even_what_passes_for_a_select_cannot_write_to_the_archives_files(pool, monkeypatch):
    """The second lock: DuckDB itself refuses everything but the files of the view."""
    monkeypatch.setattr("tradepool.archive.querying._check", str)
    for query in (
        "COPY trades TO '/tmp/tradepool-out.csv'",
        "ATTACH '/tmp/tradepool-out.db'",
        "INSTALL httpfs",
    ):
        with pytest.raises(errors.InvalidQuery):
            pool.sql(query)


def test_a_query_that_needs_too_much_memory_says_so(pool, monkeypatch):
    monkeypatch.setattr("tradepool.archive.database.MEMORY_MAX", "40MB")
    with pytest.raises((errors.ResourceUnavailable, errors.InvalidQuery)):
        pool.sql("SELECT list(repeat('x', 1000) || a.range) FROM range(1000000) AS a, trades")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_export_holds_every_trade_whole(pool, tmp_path, suffix):
    file = tmp_path / f"all.{suffix}"
    count = pool.export(file)
    trades = {trade.trade_id: trade for trade in pool.get_all_trades()}
    assert count == len(trades) == 18
    assert read_back(file) == trades
    assert list(tmp_path.iterdir()) == [file]


def read_back(file):
    match file.suffix:
        case ".jsonl":
            dicts = [json.loads(line) for line in file.read_text().splitlines()]
        case ".csv":
            with file.open(newline="") as lines:
                dicts = [from_cells(row) for row in csv.DictReader(lines)]
        case _:
            with connected() as database:
                rows = database.execute("SELECT record FROM read_parquet(?)", [str(file)]).fetchall()
            dicts = [json.loads(row[0]) | {"schema_version": 1} for row in rows]
    trades = [Trade.from_dict(fields) for fields in dicts]
    return {trade.trade_id: trade for trade in trades}


def from_cells(row):
    """A row of the CSV as the dictionary it was made of."""
    made_of_json = ("fills", "fees", "signals", "signal_metrics", "market_conditions", "extra", "notes")
    fields = {name: value for name, value in row.items() if value != ""}
    for name in (*made_of_json, "field_times", "fee_unpriced"):
        fields[name] = json.loads(fields[name])
    for name in (
        "version",
        "schema_version",
        "pnl_as_of",
        "created_at",
        "opened_at",
        "closed_at",
        "updated_at",
    ):
        if name in fields:
            fields[name] = int(fields[name])
    return {"payload": "", "applied": ""} | fields


def test_an_export_narrows_by_user_and_time_of_creation(pool, tmp_path):
    since, until = now_us() - 29 * DAY_US, now_us() - 10 * DAY_US
    expected = {
        t.trade_id for t in pool.get_all_trades() if t.user_id == "ann" and since <= t.created_at < until
    }
    count = pool.export(tmp_path / "a.jsonl", user_id="ann", since=since, until=until)
    assert count == len(expected) > 0
    assert read_back(tmp_path / "a.jsonl").keys() == expected


def test_an_export_replaces_a_file_only_by_force(pool, tmp_path):
    file = tmp_path / "all.csv"
    file.write_text("mine")
    with pytest.raises(errors.InvalidTrade, match="exists"):
        pool.export(file)
    assert file.read_text() == "mine"
    assert pool.export(file, force=True) == 18


def test_an_export_that_fails_leaves_the_old_file(pool, tmp_path, monkeypatch):
    file = tmp_path / "all.jsonl"
    file.write_text("mine")

    def fail(_fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("tradepool.files.durable.os.fsync", fail)
        with pytest.raises(errors.ResourceUnavailable, match="No space left"):
            pool.export(file, force=True)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_an_empty_pool_exports_an_empty_file_and_has_an_empty_table(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=2) as empty:
        assert empty.sql("FROM trades").rows == []
        assert [empty.export(tmp_path / f"a.{suffix}") for suffix in ("jsonl", "csv", "parquet")] == [0, 0, 0]
    assert (tmp_path / "a.jsonl").read_bytes() == b""
    assert (tmp_path / "a.csv").read_text().startswith("trade_id,")


@pytest.fixture(scope="module")
def folder(server_binary, tmp_path_factory):
    """The folder of a closed pool with one archived trade and one open."""
    where = tmp_path_factory.mktemp("cli") / "pool"
    with TradePool.embedded(where) as opened:
        closed_trade(opened)
        opened.archive_closed_trades()
        opened.add_trade(buy())
    return where


def test_the_command_sql_prints_exact_text_and_a_bad_query_is_one_line(folder, capsys):
    where = ["--embedded", str(folder)]
    query = "SELECT status, sum(pnl) AS pnl, max(amount) / 3 AS third FROM trades GROUP BY status ORDER BY 1"
    assert main(["sql", query, "--json", *where]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["status"], row["pnl"]) for row in rows] == [("completed", "10"), ("pending", "0")]
    assert main(["sql", query, *where]) == 0
    assert "completed" in capsys.readouterr().out
    assert main(["sql", "COPY trades TO '/tmp/x'", *where]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert main(["sql", "FROM trades", "--limit", "1", *where]) == 0
    assert "raise --limit" in capsys.readouterr().err


def test_the_command_export_writes_by_suffix_and_refuses_what_it_does_not_know(folder, tmp_path, capsys):
    where = ["--embedded", str(folder)]
    file = tmp_path / "all.data"
    assert main(["export", str(file), "--format", "jsonl", "--user", "ann", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["trades"] == 2
    assert len(file.read_text().splitlines()) == 2
    assert main(["export", str(file), "--format", "csv", *where]) == 2
    assert main(["export", str(file), *where]) == 2
    assert main(["export", str(file), "--format", "csv", "--force", *where]) == 0
    assert main(["export", str(tmp_path / "no" / "where.csv"), *where]) == 2
    open_ones = ["--format", "freqtrade", "--status", "pending", "--symbol", "BTC/USDT", "--force"]
    assert main(["export", str(file), *open_ones, *where]) == 0
    assert [trade["status"] for trade in json.loads(file.read_text())["tradepool"]["trades"]] == ["pending"]
