"""Where Prometheus finds the metrics: an HTTP server, or the text once."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any, Self

from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from tradepool.errors import Misconfigured
from tradepool.fleet.metrics import PoolCollector
from tradepool.fleet.state import Watcher
from tradepool.settings import Settings

__all__ = ["MetricsServer", "metrics_samples", "metrics_text"]

SERVER_TIMEOUT_S = 1.0
"""How long one try of a server may take: with four tries of each, and two servers, a scrape ends within
Prometheus's own 10 s whether they answer or not."""


class MetricsServer:
    """Answers scrapes of the pool of `settings` on its `metrics_host` and `metrics_port`. A context manager.

    `has_fleet` as `Watcher` takes it. Raises: Misconfigured when it cannot listen there.
    """

    def __init__(self, settings: Settings, *, has_fleet: bool = True) -> None:
        self._resources = ExitStack()
        watcher = self._resources.enter_context(Watcher(_impatient(settings), has_fleet=has_fleet))
        host, port = settings.metrics_host, settings.metrics_port
        try:
            server, thread = start_http_server(port, host, _registry(watcher))
        except OSError as problem:
            self.close()
            raise Misconfigured(
                f"no metrics on {host}:{port}: {problem.strerror or problem}; "
                "set TRADEPOOL_METRICS_HOST and TRADEPOOL_METRICS_PORT to what is free here"
            ) from problem
        for end in (thread.join, server.server_close, server.shutdown):
            self._resources.callback(end)
        self.url = f"http://{host}:{port}/metrics"

    def close(self) -> None:
        """Stop answering."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def metrics_text(settings: Settings, *, has_fleet: bool = True) -> str:
    """What a scrape gets now."""
    with Watcher(_impatient(settings), has_fleet=has_fleet) as watcher:
        return generate_latest(_registry(watcher)).decode()


def metrics_samples(settings: Settings, *, has_fleet: bool = True) -> list[dict[str, Any]]:
    """The same as JSON-able data: `name`, `labels` and `value` of each; `inf` and `nan` as text."""
    with Watcher(_impatient(settings), has_fleet=has_fleet) as watcher:
        return [
            {"name": sample.name, "labels": sample.labels, "value": _json_number(sample.value)}
            for family in _registry(watcher).collect()
            for sample in family.samples
        ]


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _registry(watcher: Watcher) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(PoolCollector(watcher))
    return registry


def _impatient(settings: Settings) -> Settings:
    limits = {
        name: min(getattr(settings, name), SERVER_TIMEOUT_S)
        for name in ("socket_timeout_s", "connect_timeout_s")
    }
    return settings.model_copy(update=limits)
