"""The command line `tradepool`.

Exit codes: 0 fine, 1 findings or a failed check, 2 bad usage or input, 3 a server cannot be reached.
Errors are one line on stderr that names the cure; `--debug`, anywhere on the line, shows the traceback
before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from tradepool.cli.archive import export, sql
from tradepool.cli.audit_report import audit_report
from tradepool.cli.auditing import check_all_trades, check_trades
from tradepool.cli.bench import bench
from tradepool.cli.exits import INTERRUPTED, OK, report_failure
from tradepool.cli.importing import import_trades
from tradepool.cli.keeping import recover, snapshot, verify_log
from tradepool.cli.metrics import metrics
from tradepool.cli.parked import replay_dead
from tradepool.cli.quarantine import quarantine
from tradepool.cli.reading import summary, trades
from tradepool.cli.running import demo, up
from tradepool.cli.standing import health, status
from tradepool.cli.stressing import stress
from tradepool.cli.tokens import release, reserve, settle, tokens

__all__ = ["main"]

_DEBUG = "--debug"

_COMMANDS: tuple[tuple[str, Callable[..., int], str], ...] = (
    ("demo", demo, "tradepool demo --seconds 30"),
    ("up", up, "tradepool up --embedded pool-data"),
    ("status", status, "tradepool status --json"),
    ("health", health, "tradepool health && echo fine"),
    ("bench", bench, "tradepool bench --in /var/lib"),
    ("metrics", metrics, "tradepool metrics --once"),
    ("trades", trades, "tradepool trades --user alice --status completed --limit 20"),
    ("summary", summary, "tradepool summary alice --source backtest"),
    ("tokens", tokens, "tradepool tokens alice --reservations"),
    ("reserve", reserve, "tradepool reserve alice USDT 250 --key order-17 --ttl 60"),
    ("settle", settle, "tradepool settle alice:default:order-17 249.80 --received BTC=0.0021"),
    ("release", release, "tradepool release alice:default:order-17"),
    ("stress", stress, "tradepool stress --shock -0.1 --shock BTC/USDT=-0.3"),
    ("import", import_trades, "tradepool import backtest-result.json --user alice --embedded pool-data"),
    ("export", export, "tradepool export trades.parquet --since 2026-01-01"),
    ("sql", sql, "tradepool sql 'SELECT symbol, sum(pnl) FROM trades GROUP BY symbol'"),
    ("check-trades", check_trades, "tradepool check-trades alice"),
    ("check-all-trades", check_all_trades, "tradepool check-all-trades --deep"),
    ("audit-report", audit_report, "tradepool audit-report --output audits.html"),
    ("snapshot", snapshot, "tradepool snapshot --embedded pool-data"),
    ("recover", recover, "tradepool recover --embedded pool-data"),
    ("verify-log", verify_log, "tradepool verify-log --embedded pool-data"),
    ("replay-dead", replay_dead, "tradepool replay-dead --list"),
    ("quarantine", quarantine, "tradepool quarantine 018bcfe5-68ef-8091-9aef-e00040dae6d8 --release"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (this process's own by default); its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in given
    words = [word for word in given if word != _DEBUG]
    try:
        code = typer.main.get_command(_app()).main(
            words or ["--help"], prog_name="tradepool", standalone_mode=False
        )
    except typer.Abort:
        return INTERRUPTED
    # The process boundary: whatever it is, the user gets one line and the shell an exit code.
    except Exception as error:  # noqa: BLE001
        return report_failure(error, debug=debug)
    return code if isinstance(code, int) else OK


def _app() -> typer.Typer:
    app = typer.Typer(name="tradepool", add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    for name, command, example in _COMMANDS:
        app.command(name, epilog=f"Example: {example}")(command)
    return app


def _root(
    *,
    debug: bool = typer.Option(False, _DEBUG, help="Show the traceback of an error; may stand anywhere."),  # noqa: FBT003
) -> None:
    """The system of record for the trades of a fleet of trading bots."""
    del debug
