"""The command line on real embedded pools: what it prints, and what its exit codes promise."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from decimal import Decimal

import pytest

from tests.import_files import (
    FREQTRADE_TRADE,
    ROW,
    SHARED,
    update,
    with_shared_data,
    write_export,
    write_log,
    write_snapshot,
)
from tests.loose_trades import buy
from tradepool import errors
from tradepool.audit.report import AuditReport, Finding, Severity
from tradepool.cli import main
from tradepool.cli.exits import report_failure
from tradepool.pool import TradePool

COMMANDS = [
    "demo",
    "up",
    "status",
    "trades",
    "summary",
    "tokens",
    "reserve",
    "settle",
    "release",
    "stress",
    "import",
    "export",
    "sql",
    "check-trades",
    "check-all-trades",
    "snapshot",
    "recover",
    "verify-log",
    "quarantine",
]
NO_SERVER = "redis://127.0.0.1:1/0"


needs_server = pytest.mark.usefixtures("server_binary")


@pytest.fixture(scope="module")
def pool_dir(server_binary, tmp_path_factory):
    """A pool with one freqtrade trade of `[red]me` and two old trades of USER5, closed again."""
    folder = tmp_path_factory.mktemp("cli")
    export = write_export(folder, FREQTRADE_TRADE)
    log = write_log(
        folder,
        ROW,
        update("trade:1", "2.5", "completed"),
        ROW | {"trade_id": "trade:2", "timestamp": 1742433000},
    )
    where = ["--embedded", str(folder / "pool")]
    assert main(["import", str(export), "--user", "[red]me", *where]) == 0
    assert main(["import", str(log), *where]) == 0
    return folder / "pool"


class Ran:
    """What a command line did."""

    def __init__(self, code, captured):
        self.code = code
        self.out = captured.out
        self.err = captured.err

    @property
    def json(self):
        return json.loads(self.out)

    def assert_one_line(self, code):
        assert self.code == code
        assert self.out == ""
        assert self.err.startswith("tradepool: ")
        assert self.err.count("\n") == 1, self.err


@pytest.fixture
def run(capsys):
    def run(*words):
        capsys.readouterr()
        return Ran(main([str(word) for word in words]), capsys.readouterr())

    return run


@pytest.fixture
def on_pool(run, pool_dir):
    return lambda *words: run(*words, "--embedded", pool_dir)


@pytest.fixture
def at_pool(monkeypatch):
    """Opens an embedded pool in a folder; meanwhile commands reach it by the environment."""

    @contextmanager
    def opened(folder):
        with TradePool.embedded(folder) as pool:
            monkeypatch.setenv("TRADEPOOL_REDIS_URL", pool.settings.redis_url)
            monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(folder))
            yield pool

    return opened


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(run, command):
    shown = run(command, "--help")
    assert shown.code == 0
    assert f"Example: tradepool {command}" in shown.out
    assert "--embedded" in shown.out


def test_the_bare_program_shows_its_commands(run):
    shown = run()
    assert shown.code == 0
    assert [name for name in COMMANDS if name not in shown.out] == []


def test_the_installed_program_passes_its_exit_code_on():
    script = "import sys; from tradepool.cli import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", script, "nonsense"], capture_output=True, check=False)
    assert ended.returncode == 2


@needs_server
class TestImport:
    def test_twice_is_once(self, run, tmp_path):
        write_log(tmp_path, ROW, update("trade:1", "2.5", "completed"))
        write_snapshot(tmp_path, [ROW | {"pnl": 2.5, "status": "completed"}])
        words = ("import", tmp_path, "--json", "--embedded", tmp_path / "pool")
        first, again = run(*words), run(*words)
        assert (first.code, again.code) == (0, 0)
        assert first.json == {
            "format": "legacy",
            "read": 3,
            "applied": 1,
            "merged": 2,
            "duplicate": 0,
            "refused": [],
            "idle": [],
            "ok": True,
        }
        assert again.json == first.json | {"applied": 0, "duplicate": 1}

    def test_bad_rows_are_named_good_rows_are_in_and_the_exit_code_tells(self, run, tmp_path):
        rows = [ROW | {"pnl": float("nan")}, ROW | {"trade_id": "b", "user_id": ""}, ROW | {"trade_id": "c"}]
        where = ("--embedded", tmp_path / "pool")
        ended = run("import", write_snapshot(tmp_path, rows), *where)
        assert ended.code == 1
        assert ended.err.splitlines()[0].startswith("refused trades.json row 2 (line 23): user_id: empty")
        assert ended.err.splitlines()[1].startswith(
            "refused trades.json row 1 (line 2): pnl: not finite (got NaN)"
        )
        assert [trade["trade_id"] for trade in run("trades", "--json", *where).json] == ["c"]

    def test_a_missing_file_makes_no_pool(self, run, tmp_path):
        ended = run("import", tmp_path / "nothing.json", "--embedded", tmp_path / "pool")
        ended.assert_one_line(2)
        assert "nothing.json" in ended.err
        assert not (tmp_path / "pool").exists()

    def test_a_file_of_another_format_is_refused(self, run, tmp_path):
        (tmp_path / "file.csv").write_text("a,b\n1,2\n")
        run("import", tmp_path / "file.csv", "--embedded", tmp_path / "pool").assert_one_line(2)

    def test_the_callers_source_holds_for_an_export_that_names_none(self, run, tmp_path):
        where = ("--embedded", tmp_path / "pool")
        run("import", write_export(tmp_path, FREQTRADE_TRADE), "--source", "paper", *where)
        assert [t["source"] for t in run("trades", "--json", *where).json] == ["paper"]

    @with_shared_data
    def test_a_real_export_reproduces_its_own_figures(self, run, tmp_path):
        where = ("--embedded", tmp_path / "pool")
        assert run("import", SHARED / "freqtrade/backtest-result.json", *where).code == 0
        summary = run("summary", "freqtrade", "--json", *where).json
        assert (summary["wins"], summary["losses"], summary["draws"]) == (48, 9, 122)
        reported = summary["reported"]
        assert (reported["wins"], reported["losses"], reported["draws"]) == (48, 9, 122)
        assert float(reported["pnl"]) == pytest.approx(0.0010419029856968845, rel=1e-15)
        assert float(reported["profit_factor"]) == pytest.approx(2.4223288739520954, rel=1e-15)

    @with_shared_data
    def test_the_old_bots_folder_goes_in_and_audits_clean(self, run, tmp_path):
        where = ("--embedded", tmp_path / "pool")
        ended = run("import", SHARED / "legacy", "--json", *where)
        assert (ended.code, ended.json["applied"], len(ended.json["refused"])) == (1, 586, 15)
        assert run("check-all-trades", "--deep", *where).code == 0


@needs_server
class TestReading:
    def test_trades_are_listed_newest_first(self, on_pool):
        listed = on_pool("trades", "--json").json
        assert [trade["trade_id"][:7] for trade in listed][:2] == ["trade:2", "trade:1"]
        assert len(listed) == 3

    @pytest.mark.parametrize(
        ("options", "count"),
        [
            (["--user", "USER5"], 2),
            (["--user", "USER5", "--limit", "1"], 1),
            (["--user", "USER5", "--status", "completed"], 1),
            (["--user", "USER5", "--symbol", "ETH/BTC"], 0),
            (["--symbol", "SOL/USDT"], 2),
            (["--source", "backtest"], 1),
            (["--since", "2025-03-20T01:00:00Z"], 1),
            (["--user", "USER5", "--until", "2025-03-20 01:00"], 1),
            (["--open"], 1),
            (["--open", "--user", "[red]me"], 0),
        ],
    )
    def test_options_narrow_the_list(self, on_pool, options, count):
        assert len(on_pool("trades", "--json", *options).json) == count

    def test_a_table_takes_names_literally_and_cuts_nothing(self, on_pool):
        shown = on_pool("trades", "--user", "[red]me").out
        assert "[red]me" in shown
        assert "2018-01-10 07:15:00" in shown
        assert "0.01963" in shown

    def test_a_summary_shows_our_figures_and_the_reported_ones(self, on_pool):
        shown = on_pool("summary", "[red]me").out
        assert shown.startswith("[red]me, backtest, BTC\n")
        assert "0.01963" in shown
        assert "as the source reported it" in shown

    def test_every_command_that_prints_data_prints_json_of_an_embedded_pool_as_well(self, on_pool, pool_dir):
        samples = on_pool("metrics", "--once", "--json").json
        assert {"name": "tradepool_up", "labels": {}, "value": 1.0} in samples
        assert on_pool("replay-dead", "--json").json == {"sent": 0, "kept": 0}
        assert on_pool("audit-report", "--json").json == {"file": str(pool_dir / "audits" / "index.html")}

    def test_dead_letters_are_discarded_by_choice_and_seen_by_health(self, run, at_pool, tmp_path):
        with at_pool(tmp_path) as pool:
            for name in ("t", "u"):
                letter = {"task": "tasks.trades.add_trade", "task_id": name, "payload": {"op": "add_trade"}}
                body = base64.b64encode(json.dumps(letter).encode()).decode()
                pool.redis.lpush("dead", json.dumps({"body": body}))
            run("replay-dead", "--discard").assert_one_line(2)
            missed = run("replay-dead", "--task", "foo", "--json")
            assert missed.json == {"sent": 0, "kept": 0}
            assert missed.err == "no dead letter fits; parked are some of tasks.trades.add_trade\n"
            assert run("replay-dead", "--discard", "--id", "t", "--json").json == {"discarded": 1}
            assert json.loads((tmp_path / "dead_discarded.jsonl").read_text())["task_id"] == "t"
        told = run("health", "--embedded", tmp_path)
        assert (told.code, told.out[:27]) == (1, "1 dead letters are parked; ")

    def test_an_unknown_user_has_nothing(self, on_pool):
        assert on_pool("summary", "nobody", "--json").json["trade_count"] == 0
        assert on_pool("tokens", "nobody", "--json").json == {}

    def test_tokens_are_listed_set_aside_and_booked(self, run, tmp_path, monkeypatch):
        with TradePool.embedded(tmp_path / "pool") as pool:
            monkeypatch.setenv("TRADEPOOL_REDIS_URL", pool.settings.redis_url)
            pool.update_available_tokens("me", {"BTC": "0.00000001", "ETH": "0", "USDT": 100})
            assert run("tokens", "me", "--json").json == {"BTC": "0.00000001", "USDT": "100"}
            assert "0.00000001" in run("tokens", "me").out
            made = run("reserve", "me", "USDT", "60", "--key", "[red]k", "--ttl", "30", "--json")
            assert (made.code, made.json["status"], made.json["amount"]) == (0, "open", "60")
            name = made.json["reservation_id"]
            listed = run("tokens", "me", "--reservations", "--json").json
            assert [(one["reservation_id"], one["asset"]) for one in listed] == [(name, "USDT")]
            assert name in run("tokens", "me", "--reservations").out
            settled = run("settle", name, "59.5", "--received", "ETH=0.001")
            assert settled.code == 0
            assert "0.001 ETH" in settled.out
            assert pool.get_available_tokens("me")["USDT"] == Decimal("40.5")
            again = run("reserve", "me", "USDT", "60", "--key", "[red]k")
            assert again.code == 1
            assert "settled" in again.out
            run("release", name).assert_one_line(2)
            run("settle", name, "1", "--received", "BTC").assert_one_line(2)

    def test_status_tells_where_the_pool_stands(self, on_pool):
        status = on_pool("status", "--json")
        assert status.code == 0
        assert (status.json["records"], status.json["journal_lag"], status.json["is_fenced"]) == (3, 0, False)
        assert "takes writes" in on_pool("status").out

    def test_status_tells_how_old_the_marks_are_and_which_prices_they_lack(self, run, at_pool, tmp_path):
        with at_pool(tmp_path) as pool:
            for symbol in ("NEW/USDT", "OLD/USDT"):
                pool.add_trade(buy(symbol=symbol, status="filled"))
            pool.set_prices({"OLD/USDT": "1"}, at="2026-01-01")
            pool.mark_to_market()
            status, shown = run("status", "--json").json, run("status").out
        assert 0 <= status["marks_age_s"] < 600
        assert status["last_marks"]["missing"] == ["NEW/USDT"]
        assert status["last_marks"]["stale"].keys() == {"OLD/USDT"}
        assert "s ago, 1 symbol without a price, 1 symbol at an old price" in shown


class TestChecking:
    def test_a_whole_pool_is_exit_0(self, on_pool):
        assert on_pool("check-all-trades", "--deep").code == 0
        assert on_pool("check-trades", "USER5", "--json").json["ok"] is True

    def test_findings_are_exit_1_and_listed(self, on_pool, monkeypatch):
        finding = Finding(
            rule="quantities", severity=Severity.CRITICAL, subject="trade:1", detail="closed > filled"
        )
        report = AuditReport(
            level="digest", started_at=1, duration_s=0.1, checked={"records": 3}, findings=(finding,)
        )
        monkeypatch.setattr(TradePool, "check_all_trades", lambda *_, **__: report)
        shown = on_pool("check-all-trades")
        assert shown.code == 1
        assert "closed > filled" in shown.out
        as_json = on_pool("check-all-trades", "--json")
        assert (as_json.code, as_json.json["counts"]) == (1, {"quantities": 1})


class TestFiles:
    def test_a_snapshot_is_plain_json(self, on_pool, pool_dir):
        written = on_pool("snapshot", "--json").json
        assert written["trades"] == len(json.loads((pool_dir / "trades.json").read_text())) == 3
        assert written["file"] == str(pool_dir / "trades.json")

    def test_recovery_tells_what_it_did(self, on_pool):
        assert on_pool("recover", "--json").json["opened"] is True
        assert "changes replayed" in on_pool("recover").out


@needs_server
class TestErrors:
    @pytest.mark.parametrize(
        "words",
        [
            ["status"],
            ["trades"],
            ["summary", "me"],
            ["tokens", "me"],
            ["check-trades", "me"],
            ["check-all-trades"],
            ["snapshot"],
            ["up"],
        ],
    )
    def test_no_server_is_exit_3_and_one_line(self, run, monkeypatch, words):
        monkeypatch.setenv("TRADEPOOL_REDIS_URL", NO_SERVER)
        ended = run(*words)
        ended.assert_one_line(3)
        assert "TRADEPOOL_REDIS_URL" in ended.err

    @pytest.mark.parametrize(
        "words", [["trades"], ["status"], ["snapshot"], ["recover"], ["verify-log"], ["check-all-trades"]]
    )
    def test_a_folder_without_a_pool_is_not_made_one(self, run, tmp_path, words):
        ended = run(*words, "--embedded", tmp_path / "typo")
        ended.assert_one_line(2)
        assert "there is no pool in" in ended.err
        assert not (tmp_path / "typo").exists()

    def test_a_pool_that_is_open_elsewhere_is_exit_3(self, run, tmp_path):
        with TradePool.embedded(tmp_path / "pool"):
            ended = run("trades", "--embedded", tmp_path / "pool")
        ended.assert_one_line(3)
        assert "another process" in ended.err

    def test_a_busy_port_of_flower_is_exit_3(self, run, monkeypatch, tmp_path):
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            port = busy.getsockname()[1]
            monkeypatch.setenv("TRADEPOOL_FLOWER_PORT", str(port))
            ended = run("up", "--embedded", tmp_path / "pool")
        ended.assert_one_line(3)
        assert f"port {port} cannot be used" in ended.err
        assert "set TRADEPOOL_FLOWER_PORT to another port" in ended.err

    def test_a_webhook_that_is_none_starts_no_fleet(self, run, monkeypatch):
        monkeypatch.setenv("TRADEPOOL_REDIS_URL", NO_SERVER)
        monkeypatch.setenv("TRADEPOOL_AUDIT_WEBHOOK_URL", "ftp://host/hush")
        ended = run("up")
        ended.assert_one_line(2)
        assert "TRADEPOOL_AUDIT_WEBHOOK_URL: no address of a webhook; give http(s)://" in ended.err
        assert "hush" not in ended.err

    def test_a_wrong_setting_is_named(self, run, monkeypatch):
        monkeypatch.setenv("TRADEPOOL_SHARD_COUNT", "many")
        ended = run("status")
        ended.assert_one_line(2)
        assert "TRADEPOOL_SHARD_COUNT" in ended.err

    @pytest.mark.parametrize(
        "words",
        [
            ["nonsense"],
            ["trades", "--limit", "0"],
            ["trades", "--status", "perhaps"],
            ["summary"],
            ["import", "file", "--format", "csv"],
            ["trades", "--since", "never"],
            ["--nonsense"],
        ],
    )
    def test_bad_usage_is_exit_2_and_one_line(self, run, words):
        run(*words).assert_one_line(2)

    def test_debug_shows_the_traceback_wherever_it_stands(self, run, tmp_path):
        for words in (["--debug", "trades"], ["trades", "--debug"]):
            ended = run(*words, "--embedded", tmp_path / "typo")
            assert ended.code == 2
            assert "Traceback" in ended.err

    def test_an_error_of_ours_is_one_line_too(self, on_pool, monkeypatch):
        def broken(path):
            raise RuntimeError("first\nsecond")

        monkeypatch.setattr(TradePool, "embedded", broken)
        ended = on_pool("trades")
        ended.assert_one_line(1)
        assert "RuntimeError: first second" in ended.err

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (errors.InvalidTrade("x"), 2),
            (errors.Misconfigured("x"), 2),
            (errors.StoreUnavailable("x"), 3),
            (errors.JournalUnavailable("x"), 3),
            (errors.Fenced("x"), 3),
            (errors.VersionConflict("x"), 3),
            (errors.ChecksumMismatch("x"), 1),
            (errors.JournalAhead("x"), 1),
            (RuntimeError("x"), 1),
        ],
    )
    def test_every_kind_of_error_has_its_exit_code(self, error, code):
        assert report_failure(error, debug=False) == code
