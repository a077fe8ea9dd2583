"""Importers as parsers: every row of a file ends as a trade, a repeat or a refusal with its place."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import pytest

from tests.import_files import (
    FREQTRADE_TRADE,
    ROW,
    SHARED,
    MemoryPool,
    entries,
    update,
    with_shared_data,
    write_export,
    write_log,
    write_snapshot,
)
from tradepool.errors import IdempotencyConflict, Rejected
from tradepool.importers import RefusedRow, RepeatedRow, TradeRow, import_file
from tradepool.model import intake


def test_an_update_makes_the_last_state_of_its_trade(tmp_path):
    log = write_log(
        tmp_path, ROW, update("trade:1", "1.5", "partially_closed"), update("trade:1", "-2", "completed")
    )
    (row,) = entries(log)
    assert (row.trade["pnl"], row.trade["status"], row.merged) == ("-2", "completed", 2)


def test_states_the_lifecycle_refuses_are_folded_away(tmp_path):
    log = write_log(
        tmp_path,
        ROW | {"status": "failed"},
        update("trade:1", "3", "completed"),
        update("trade:1", "4", "partially_closed"),
    )
    pool = MemoryPool()
    report = import_file(pool, log)
    assert (report.applied, report.merged, report.refused) == (1, 2, ())
    assert pool.trades["trade:1"].pnl_reported == 4
    assert pool.trades["trade:1"].status == "partially_closed"


def test_an_orphan_update_is_refused_with_its_line(tmp_path):
    log = write_log(tmp_path, update("trade:2", "1", "completed"), ROW, update("trade:3", "1", "completed"))
    refused = [entry for entry in entries(log) if isinstance(entry, RefusedRow)]
    assert [row.position for row in refused] == ["trade_pool.log line 1", "trade_pool.log line 3"]
    assert "trade:2" in refused[0].reason


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Update: trade:1 - PNL=nan, status=completed", "pnl: not a number (got nan)"),
        ("Update: trade:1 - PNL=, status=completed", "pnl: not a number"),
        ("Update: trade:1 - PNL=1, status=perhaps", "status: unknown (got perhaps)"),
        ("Update: trade:1 - PNL=44", "not an update (got Update: trade:1 - PNL=44)"),
        ("[1, 2]", "trade: not an object (got [1, 2])"),
        ('{"trade_id": ', "not JSON"),
        ("something else", "not JSON"),
    ],
)
def test_a_bad_line_is_refused_and_the_trade_keeps_its_state(tmp_path, line, problem):
    log = write_log(tmp_path, ROW, update("trade:1", "7", "completed"), line, ROW | {"trade_id": "trade:2"})
    found = entries(log)
    (refused,) = (entry for entry in found if isinstance(entry, RefusedRow))
    assert refused.position == "trade_pool.log line 3"
    assert problem in refused.reason
    assert [entry.trade["pnl"] for entry in found if isinstance(entry, TradeRow)] == ["7", "0"]


def test_a_redelivered_add_line_does_not_bring_the_first_state_back(tmp_path):
    log = write_log(tmp_path, ROW, update("trade:1", "7", "completed"), ROW)
    repeat, row = entries(log)
    assert isinstance(repeat, RepeatedRow)
    assert row.trade["status"] == "completed"


def test_another_trade_under_a_taken_id_is_refused(tmp_path):
    log = write_log(tmp_path, ROW, ROW | {"amount": 5})
    refused, _ = entries(log)
    assert refused.position == "trade_pool.log line 2"
    assert "another trade has this id, at trade_pool.log line 1" in refused.reason


def test_an_empty_user_is_refused_unless_the_caller_names_one(tmp_path):
    snapshot = write_snapshot(
        tmp_path, [ROW | {"user_id": " "}, ROW | {"trade_id": "trade:2", "user_id": None}]
    )
    refused = entries(snapshot)
    assert [row.position for row in refused] == ["trades.json row 1 (line 2)", "trades.json row 2 (line 23)"]
    assert "--user" in refused[0].reason
    assert [row.trade["user_id"] for row in entries(snapshot, user="late")] == ["late", "late"]


def test_the_callers_source_fills_in_only_where_the_row_has_none(tmp_path):
    snapshot = write_snapshot(
        tmp_path, [ROW, {k: v for k, v in ROW.items() if k != "source"} | {"trade_id": "t"}]
    )
    assert [row.trade["source"] for row in entries(snapshot)] == ["real", "import"]
    assert [row.trade["source"] for row in entries(snapshot, source="paper")] == ["real", "paper"]


@pytest.mark.parametrize(
    ("timestamp", "expected_us"),
    [
        ("2025-03-20T00:28:00+00:00", 1742430480000000),
        ("2025-03-20 00:28:00+00:00", 1742430480000000),
        (1742430480, 1742430480000000),
        (1742430480000, 1742430480000000),
        (794916.035, 794916035000),
        (None, None),
    ],
)
def test_every_kind_of_old_timestamp_is_understood(tmp_path, timestamp, expected_us):
    (row,) = entries(write_snapshot(tmp_path, [ROW | {"timestamp": timestamp}]))
    trade = intake.trade_from_dict(row.trade, now_us=77)
    assert row.as_of == expected_us
    assert trade.created_at == (77 if expected_us is None else expected_us)


def test_no_digit_of_a_number_is_lost(tmp_path):
    text = json.dumps([ROW]).replace("0.34108424", "123456789012.123456789012345678")
    path = tmp_path / "trades.json"
    path.write_text(text)
    (row,) = entries(path)
    assert row.trade["amount"] == "123456789012.123456789012345678"


def test_noise_beyond_eighteen_places_is_rounded_half_even(tmp_path):
    text = json.dumps([ROW]).replace('"pnl": 0.0', '"pnl": -1.4210854715202004e-14')
    path = tmp_path / "trades.json"
    path.write_text(text)
    (row,) = entries(path)
    assert row.trade["pnl"] == "-0.000000000000014211"


def test_nan_is_refused_by_name_where_it_stands(tmp_path):
    rows = [ROW | {"pnl": float("nan")}, ROW | {"trade_id": "trade:2", "signals": {"rsi": float("nan")}}]
    report = import_file(MemoryPool(), write_snapshot(tmp_path, rows))
    reasons = dict(report.refused)
    assert reasons["trades.json row 1 (line 2)"].startswith("pnl: not finite (got NaN)")
    assert reasons["trades.json row 2 (line 23)"].startswith("signals.rsi: not a number (got NaN)")


@pytest.mark.parametrize("number", ["1e999", "1e999999999", "1e99999999999999999999", "9" * 5000])
def test_a_number_beyond_all_measure_refuses_its_row_only(tmp_path, number):
    path = write_snapshot(tmp_path, [ROW, ROW | {"trade_id": "trade:2"}])
    path.write_text(path.read_text().replace("0.34108424", number, 1))
    report = import_file(MemoryPool(), path)
    assert (report.applied, len(report.refused)) == (1, 1)


def test_a_torn_array_gives_every_whole_row_and_the_place_of_the_tear(tmp_path):
    path = write_snapshot(tmp_path, [ROW, ROW | {"trade_id": "trade:2"}, ROW | {"trade_id": "trade:3"}])
    path.write_text(path.read_text()[:-60])
    torn, *rows = entries(path)
    assert torn.position == "trades.json row 3 (line 44)"
    assert torn.reason.startswith("torn")
    assert [row.trade["trade_id"] for row in rows] == ["trade:1", "trade:2"]


def test_an_array_torn_between_rows_is_reported_too(tmp_path):
    path = tmp_path / "trades.json"
    path.write_text(json.dumps([ROW])[:-1] + ",")
    torn, row = entries(path)
    assert torn == RefusedRow(
        position="trades.json row 2 (line 1)", reason="torn: the file ends before its last bracket"
    )
    assert isinstance(row, TradeRow)


def test_a_damaged_row_does_not_hide_the_rows_behind_it(tmp_path):
    path = tmp_path / "trades.json"
    damaged = json.dumps(ROW | {"note": "a ] and a }"}).replace("0.34108424", "0.3.4")
    path.write_text(f"[{damaged}, }}, nonsense, {json.dumps(ROW)}] left over")
    found = entries(path)
    assert [type(entry) for entry in found] == [RefusedRow] * 4 + [TradeRow]
    assert found[3].reason == "there is more behind the array"


def test_a_torn_last_line_of_the_log_is_reported(tmp_path):
    log = write_log(tmp_path, ROW, ROW | {"trade_id": "trade:2"})
    log.write_text(log.read_text()[:-20])
    torn, row = entries(log)
    assert torn == RefusedRow(position="trade_pool.log line 2", reason="torn: the file ends inside this row")
    assert row.trade["trade_id"] == "trade:1"


def test_bytes_that_are_no_text_refuse_their_own_row(tmp_path):
    log = write_log(tmp_path, ROW | {"strategy": "MARK"}, ROW | {"trade_id": "trade:2"})
    log.write_bytes(log.read_bytes().replace(b"MARK", b"\xff\xfe"))
    report = import_file(MemoryPool(), log)
    assert report.applied == 1
    assert [refusal.position for refusal in report.refused] == ["trade_pool.log line 1"]
    report.refused[0].reason.encode()


def test_a_trade_without_an_id_gets_the_same_one_every_time(tmp_path):
    nameless = {k: v for k, v in ROW.items() if k != "trade_id"}
    snapshot = write_snapshot(tmp_path, [nameless, nameless])
    first, second = entries(snapshot)
    assert first.trade["trade_id"] != second.trade["trade_id"]
    assert [row.trade for row in entries(snapshot)] == [first.trade, second.trade]


def test_a_relation_to_another_users_trade_is_kept_beside_the_pools_own(tmp_path):
    first = ROW | {"trade_id": "a"}
    rows = [
        first,
        ROW | {"trade_id": "b", "related_trade_id": "a"},
        ROW | {"trade_id": "c", "related_trade_id": "a", "user_id": ""},
        ROW | {"trade_id": "d", "related_trade_id": "e", "user_id": "USER7"},
        ROW | {"trade_id": "e"},
    ]
    pool = MemoryPool()
    report = import_file(pool, write_snapshot(tmp_path, rows), user="USER6")
    assert (report.applied, report.refused) == (5, ())
    kept = {t.trade_id: (t.related_trade_id, t.extra.get("related_trade_id")) for t in pool.trades.values()}
    assert [kept[name] for name in "bcd"] == [("a", None), (None, "a"), (None, "e")]


class TestFolder:
    def test_log_snapshot_and_both_are_the_same_import(self, tmp_path):
        log = write_log(tmp_path, ROW, update("trade:1", "1.25", "completed"))
        snapshot = write_snapshot(tmp_path, [ROW | {"pnl": 1.25, "status": "completed"}])
        (from_log,), (from_snapshot,), (from_both,) = entries(log), entries(snapshot), entries(tmp_path)
        assert from_log.trade == from_snapshot.trade == from_both.trade
        assert from_both.merged == 2

    def test_a_snapshot_older_than_the_log_does_not_win(self, tmp_path):
        write_log(tmp_path, ROW, update("trade:1", "1", "completed"), update("trade:1", "2", "completed"))
        write_snapshot(tmp_path, [ROW | {"pnl": 1, "status": "completed"}])
        (row,) = entries(tmp_path)
        assert row.trade["pnl"] == "2"

    def test_a_state_the_log_never_saw_wins(self, tmp_path):
        write_log(tmp_path, ROW, update("trade:1", "1", "completed"))
        write_snapshot(tmp_path, [ROW | {"pnl": 9, "status": "completed"}])
        (row,) = entries(tmp_path)
        assert row.trade["pnl"] == 9

    def test_each_file_completes_the_other(self, tmp_path):
        write_log(tmp_path, ROW, update("trade:2", "5", "completed"))
        write_snapshot(tmp_path, [ROW | {"trade_id": "trade:2", "pnl": 5, "status": "completed"}])
        found = entries(tmp_path)
        assert [(row.trade["trade_id"], row.merged) for row in found] == [("trade:1", 0), ("trade:2", 1)]


class TestRepeats:
    @pytest.mark.parametrize("last", [("completed", 4.5), ("partially_closed", -1.0)])
    def test_a_file_that_grew_carries_the_trade_on(self, tmp_path, last):
        pool = MemoryPool()
        import_file(pool, write_log(tmp_path, ROW))
        grown = write_log(tmp_path, ROW, update("trade:1", last[1], last[0]))
        assert import_file(pool, grown).applied == 1
        assert (pool.trades["trade:1"].status, pool.trades["trade:1"].pnl) == (last[0], Decimal(str(last[1])))
        again = import_file(pool, grown)
        assert (again.applied, again.duplicate) == (0, 1)
        assert pool.trades["trade:1"].version == 2

    def test_another_trade_in_the_pool_is_never_carried_on(self, tmp_path):
        pool = MemoryPool()
        import_file(pool, write_log(tmp_path, ROW))
        other = write_log(tmp_path, ROW | {"amount": 9, "status": "completed", "pnl": 3})
        (refusal,) = import_file(pool, other).refused
        assert refusal.position == "trade_pool.log line 1"
        assert "another trade was added under this id" in refusal.reason
        assert pool.trades["trade:1"].version == 1

    def test_an_open_trade_that_was_closed_meanwhile_is_carried_on(self, tmp_path):
        pool = MemoryPool()
        still_open = FREQTRADE_TRADE | {"is_open": True, "stop_loss_abs": 0.04}
        import_file(pool, write_export(tmp_path, still_open))
        closed = write_export(tmp_path, FREQTRADE_TRADE | {"stop_loss_abs": 0.045})
        assert import_file(pool, closed).applied == 1
        (trade,) = pool.trades.values()
        assert (trade.status, trade.stop_loss, trade.close_reason) == ("completed", Decimal("0.045"), "roi")
        assert (trade.pnl_reported, trade.pnl) == (Decimal("0.02"), Decimal("0.01963"))
        assert import_file(pool, closed).applied == 0
        assert import_file(pool, write_export(tmp_path, still_open)).duplicate == 1
        assert pool.trades == {trade.trade_id: trade}

    def test_a_conflict_without_a_stored_trade_stays_a_refusal(self, tmp_path):
        class Refusing(MemoryPool):
            def apply(self, commands):
                return [IdempotencyConflict("booked elsewhere", field="fill_id", value="f") for _ in commands]

        completed = ROW | {"status": "completed", "pnl": 3}
        assert len(import_file(Refusing(), write_log(tmp_path, completed)).refused) == 1


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.json", None, "No such file"),
        ("empty.json", b"", "the file is empty"),
        ("photo.json", b"\xff\xd8\xff\xe0", "unknown format"),
        ("torn.json", b'{"strategy": {"S": ', "not JSON"),
        ("trade_pool.log", b'{"tradepool_journal": 1, "shards": 64}\n', "a pool's own file"),
        ("trades.json", b'[\n{"trade_id":"t","payload":"00","applied":"00"}\n]\n', "a pool's own file"),
        ("broken.zip", b"PK\x03\x04 and then nothing", "unknown format"),
    ],
)
def test_a_file_that_is_no_import_file_is_one_clear_error(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Rejected, match=problem) as caught:
        entries(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_object_that_is_no_export_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('{\n"name": 1}')
    with pytest.raises(Rejected, match="no freqtrade export"):
        entries(tmp_path / "other.json")


def test_a_folder_without_the_two_files_is_refused(tmp_path):
    with pytest.raises(Rejected, match="nothing to import in this folder"):
        entries(tmp_path)


@with_shared_data
class TestSharedData:
    @pytest.mark.parametrize(
        ("name", "counts"),
        [
            (".", {"TradeRow": 586, "RefusedRow": 15, "RepeatedRow": 2}),
            ("trades.json", {"TradeRow": 586, "RefusedRow": 14, "RepeatedRow": 1}),
            ("trade_pool.log", {"TradeRow": 586, "RefusedRow": 15, "RepeatedRow": 1}),
            ("trades-torn.json", {"TradeRow": 35, "RefusedRow": 2}),
            ("trade_pool-torn.log", {"TradeRow": 40, "RefusedRow": 2}),
            ("trades-bad-rows.json", {"TradeRow": 5}),
        ],
    )
    def test_every_row_of_the_old_files_is_accounted_for(self, name, counts):
        assert Counter(type(entry).__name__ for entry in entries(SHARED / "legacy" / name)) == counts

    def test_counts_and_sums_agree_with_the_old_files_and_a_second_run_changes_nothing(self):
        pool = MemoryPool()
        first = import_file(pool, SHARED / "legacy", user="nobody")
        source = {row["trade_id"]: row for row in json.loads((SHARED / "legacy/trades.json").read_text())}
        reported = sum(trade.pnl_reported or 0 for trade in pool.trades.values())
        assert reported == sum(Decimal(repr(row["pnl"])) for row in source.values())
        assert (first.applied, len(first.refused)) == (600, 1)
        assert first.read == first.applied + first.merged + first.duplicate + 1
        for name in (".", "trades.json", "trade_pool.log"):
            again = import_file(pool, SHARED / "legacy" / name, user="nobody")
            assert (again.applied, again.duplicate) == (0, 602 if name == "." else 601)
