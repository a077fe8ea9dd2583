"""What the command line shows of audits: tables that users' texts cannot spoil, and the page."""

from __future__ import annotations

import json

import pytest

from tests.loose_trades import buy, entry
from tests.page_parts import Page
from tradepool import TradePool
from tradepool.audit.report import AuditReport, Finding, RepairState, RepairStep, Severity
from tradepool.cli import main
from tradepool.cli.audit_output import ROWS_MAX, print_report

EVIL = "[bold red]x[/]\x1b[2J\x1b]0;title\x07\u202e\r"
SHOWN = "[bold red]x[/]\\x1b[2J\\x1b]0;title\\x07\\u202e\\r"


def found(subject, severity=Severity.NOTICE, rule="stale_pending"):
    return Finding(rule=rule, severity=severity, subject=subject, detail=f"about {subject}")


def report(*findings, **fields):
    given = {
        "level": "deep",
        "started_at": 1_763_856_000_000_000,
        "duration_s": 1.5,
        "checked": {"records": 3},
    }
    return AuditReport(findings=findings, run_id="run-1", **given | fields)


def test_what_users_wrote_is_printed_as_it_is_and_steers_no_terminal(capsys):
    step = RepairStep(action="none", subject=EVIL, detail=EVIL, state=RepairState.REFUSED)
    print_report(report(found(EVIL), repairs=(step,), undecided=(EVIL,)))
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 5
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(out)


def test_the_worst_comes_first_and_repairs_and_notices_are_told(capsys):
    step = RepairStep(action="write a new snapshot", subject="all", detail="x", state=RepairState.PLANNED)
    print_report(
        report(
            found("n1"),
            found("c1", Severity.CRITICAL, "missing_in_redis"),
            repairs=(step,),
            undecided=("shard 03",),
            figures={"open_trades": 7, "journal_lag_commits": 2, "book_pnl_USDT": "1.50000000"},
        )
    )
    out = capsys.readouterr().out
    assert out.index("c1") < out.index("n1")
    for told in (
        "notice",
        "planned",
        "write a new snapshot",
        "shard 03",
        "1.50000000",
        "00:00:00 UTC",
        "run-1",
    ):
        assert told in out


def test_any_number_of_findings_is_a_screenful_and_json_has_all(tmp_path, capsys):
    many = [found(f"n{number:06}") for number in range(5_000)]
    print_report(report(*many, found("the one", Severity.CRITICAL, "missing_in_redis")))
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 2 * ROWS_MAX
    assert f"findings (the first {ROWS_MAX} of 5,001; --json has all)" in out
    assert "the one" in out
    assert "5000" in out


@pytest.fixture
def folder(tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=1) as pool:
        pool.add_fill(pool.add_trade(buy()).trade_id, entry("f1"))
    return tmp_path / "pool"


def test_audit_report_writes_the_page_where_it_is_told(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TRADEPOOL_SHARD_COUNT", "1")
    assert main(["check-all-trades", "--embedded", str(folder), "--json"]) == 0
    run_id = json.loads(capsys.readouterr().out)["run_id"]

    assert main(["audit-report", "--embedded", str(folder), "--output", str(tmp_path / "x.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "x.html")
    assert main(["audit-report", "--embedded", str(folder)]) == 0
    for path in (tmp_path / "x.html", folder / "audits" / "index.html"):
        assert run_id in Page(path.read_text()).text


def test_a_page_that_cannot_be_written_is_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TRADEPOOL_SHARD_COUNT", "1")
    page = str(tmp_path / "no" / "x.html")
    assert main(["audit-report", "--embedded", str(folder), "--output", page]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "No such file or directory" in err
    assert "--output: " in err
    assert "PosixPath" not in err
