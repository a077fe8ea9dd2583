"""`metrics`: the pool's figures for Prometheus."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from tradepool.cli.exits import OK
from tradepool.cli.running import stopped_by_signals
from tradepool.fleet.metrics_server import MetricsServer, metrics_text
from tradepool.program_log import configure_log
from tradepool.settings import load_settings
from tradepool.store.address import known_secrets

__all__ = ["metrics"]


def metrics(
    *, once: Annotated[bool, typer.Option("--once", help="Print them once instead of serving them.")] = False
) -> int:
    """Serve the figures of pool and fleet to Prometheus, until Ctrl-C; docs/operations.md has the alerts.

    It listens on TRADEPOOL_METRICS_HOST and TRADEPOOL_METRICS_PORT, changes nothing and needs no worker.
    """
    settings = load_settings()
    if once:
        typer.echo(metrics_text(settings), nl=False)
        return OK
    configure_log(settings.log_format, settings.log_level, secrets=known_secrets(settings))
    with ExitStack() as stack:
        stopping = stopped_by_signals(stack)
        server = stack.enter_context(MetricsServer(settings))
        typer.echo(f"Metrics: {server.url}")
        stopping.wait()
    return OK
