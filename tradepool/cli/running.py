"""`demo` and `up`: commands that run a fleet until somebody ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tradepool.audit.reports.paging import webhook_url
from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded
from tradepool.cli.output import print_json, rows_table
from tradepool.demo.run import SECONDS
from tradepool.demo.run import run as run_demo
from tradepool.fleet.programs import generated_login
from tradepool.fleet.supervisor import Supervisor
from tradepool.program_log import configure_log
from tradepool.server.embedded import EmbeddedServer, free_port
from tradepool.settings import Settings, load_settings
from tradepool.store.address import broker_address, known_secrets
from tradepool.store.connection import connect
from tradepool.store.shard_count import check_shard_count

__all__ = ["demo", "stopped_by_signals", "up"]

_REFRESH_S = 1.0


def demo(
    *,
    import_file: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Feed this export, not simulated bots."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long it takes in all.")] = SECONDS,
    embedded: Annotated[
        Path | None, typer.Option("--embedded", metavar="DIR", help="Keep its files in DIR.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run a whole fleet on this machine, feed it trades, prove that none is lost, and stop it."""
    return run_demo(
        import_file=import_file,
        keep=keep,
        seconds=seconds,
        data_dir=embedded,
        present=(lambda outcome: print_json(outcome.to_dict())) if as_json else None,
    )


def up(*, embedded: Embedded = None) -> int:
    """Run the fleet on this machine and restart what dies, until Ctrl-C; a second Ctrl-C kills what is left.

    It uses the server of TRADEPOOL_REDIS_URL, or with --embedded a private one that keeps its data in DIR.
    """
    with ExitStack() as stack:
        if embedded is None:
            settings = load_settings()
        else:
            server = stack.enter_context(EmbeddedServer(embedded))
            settings = server.settings(data_dir=embedded)
        # With one of these wrong the fleet would start and restart for ever.
        webhook_url(settings)
        check_shard_count(stack.enter_context(connect(settings)), settings.shard_count)
        broker_address(settings)
        free_port(settings.flower_port, setting="TRADEPOOL_FLOWER_PORT")
        free_port(settings.metrics_port, setting="TRADEPOOL_METRICS_PORT")
        configure_log(settings.log_format, settings.log_level, secrets=known_secrets(settings))
        if settings.flower_basic_auth is None:
            settings = settings.model_copy(update={"flower_basic_auth": generated_login()})
        supervisor = Supervisor(settings)
        stopping = stopped_by_signals(stack, again=supervisor.hurry)
        stack.enter_context(supervisor)
        _say_where(settings, is_private=embedded is not None)
        _show(supervisor, stopping)
    return OK


def stopped_by_signals(stack: ExitStack, *, again: Callable[[], None] | None = None) -> threading.Event:
    """An event that Ctrl-C and the usual signals set, while `stack` is open; a second one calls `again`."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stopping.is_set() and again is not None:
            again()
        stopping.set()

    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        stack.callback(signal.signal, sign, signal.signal(sign, stop))
    return stopping


def _say_where(settings: Settings, *, is_private: bool) -> None:
    if is_private:
        typer.echo("Reach this fleet from another terminal with:")
        typer.echo(f"  export TRADEPOOL_REDIS_URL='{settings.redis_url}'")
        typer.echo(f"  export TRADEPOOL_DATA_DIR='{settings.data_dir.absolute()}'")
    login = settings.flower_basic_auth.get_secret_value() if settings.flower_basic_auth else ""
    typer.echo(f"Flower: http://{settings.flower_host}:{settings.flower_port}, login {login}")
    typer.echo(f"Metrics: http://{settings.metrics_host}:{settings.metrics_port}/metrics")
    typer.echo("Ctrl-C stops everything")


def _show(supervisor: Supervisor, stopping: threading.Event) -> None:
    """The programs, as a live table where somebody watches."""
    console = Console()
    if not console.is_terminal:
        stopping.wait()
        return
    with Live(_table(supervisor), console=console, auto_refresh=False) as live:
        while not stopping.wait(_REFRESH_S):
            live.update(_table(supervisor), refresh=True)


def _table(supervisor: Supervisor) -> Table:
    rows = [(state.name, state.pid or "down", state.starts) for state in supervisor.status()]
    return rows_table(("program", "pid", "starts"), rows)
