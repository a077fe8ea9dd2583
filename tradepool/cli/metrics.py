"""`metrics`: the pool's figures for Prometheus."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import print_json
from tradepool.cli.running import stopped_by_signals
from tradepool.fleet.metrics_server import MetricsServer, metrics_samples, metrics_text
from tradepool.program_log import configure_log
from tradepool.settings import Settings, load_settings
from tradepool.store.address import known_secrets

__all__ = ["metrics"]


def metrics(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print them once instead of serving them.")] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Serve the figures of pool and fleet to Prometheus, until Ctrl-C; docs/operations.md has the alerts.

    It listens on TRADEPOOL_METRICS_HOST and TRADEPOOL_METRICS_PORT, changes nothing and needs no worker.
    """
    with ExitStack() as stack:
        settings = load_settings() if embedded is None else stack.enter_context(open_pool(embedded)).settings
        has_fleet = embedded is None
        if once and as_json:
            print_json(metrics_samples(settings, has_fleet=has_fleet))
        elif once:
            typer.echo(metrics_text(settings, has_fleet=has_fleet), nl=False)
        else:
            _serve(stack, settings, has_fleet=has_fleet, as_json=as_json)
    return OK


def _serve(stack: ExitStack, settings: Settings, *, has_fleet: bool, as_json: bool) -> None:
    configure_log(settings.log_format, settings.log_level, secrets=known_secrets(settings))
    stopping = stopped_by_signals(stack)
    server = stack.enter_context(MetricsServer(settings, has_fleet=has_fleet))
    if as_json:
        print_json({"url": server.url})
    else:
        typer.echo(f"Metrics: {server.url}")
    stopping.wait()
