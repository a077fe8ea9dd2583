"""Every alert fires in a real Prometheus when its cause is made in a real fleet, and none before.

One story, told in order: causes are made one after the other and stay. The rules are those of production but
for how long a cause has to hold (`alert_rules.hastened`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fleet.conftest import running_fleet
from tests.monitoring.alert_rules import alerts
from tests.monitoring.real_prometheus import RealPrometheus, running_prometheus
from tests.monitoring.troubles import Troubles, queries_of
from tests.tidy.source_tree import ROOT
from tests.waiting import eventually
from tradepool.fleet.metrics_server import MetricsServer
from tradepool.server.embedded import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DASHBOARD = ROOT / "ops" / "grafana" / "dashboard.json"
FIRES_WITHIN_S = 90.0


class Watched:
    """A fleet, its exporter, and a Prometheus that looks at it."""

    def __init__(self, troubles: Troubles, exporter: MetricsServer, prometheus: RealPrometheus) -> None:
        self.troubles = troubles
        self.exporter = exporter
        self.prometheus = prometheus
        self.seen: set[str] = set()
        """All alerts that have fired so far."""

    def wait_for(self, *names: str) -> None:
        """Return once each of the alerts has fired."""
        try:
            eventually(lambda: self._look() >= set(names), FIRES_WITHIN_S)
        except AssertionError:
            pytest.fail(f"{set(names) - self.seen} did not fire; {self.prometheus.last_error()}")

    def _look(self) -> set[str]:
        self.seen |= self.prometheus.firing()
        return self.seen


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        yield patched


@pytest.fixture(scope="module")
def watched(
    server_binary: Path, prometheus_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as resources:
        fleet = resources.enter_context(
            running_fleet(
                folder / "pool",
                mark_every_s=0.5,
                audit_every_s=2,
                snapshot_every_s=5,
                metrics_port=free_port(),
            )
        )
        exporter = resources.enter_context(MetricsServer(fleet.settings))
        target = f"127.0.0.1:{fleet.settings.metrics_port}"
        prometheus = resources.enter_context(
            running_prometheus(prometheus_binary, folder / "prometheus", target)
        )
        yield Watched(Troubles(fleet, resources), exporter, prometheus)


def test_a_fleet_that_is_well_fires_no_alert(watched: Watched):
    watched.troubles.trade()
    eventually(lambda: watched.prometheus.query("tradepool_marks_positions == 2"), 60)
    eventually(lambda: watched.prometheus.query("tradepool_problems == 0"), 60)
    eventually(lambda: not watched.prometheus.firing(), 10)


def test_what_is_wrong_with_trades_fires(watched: Watched):
    troubles = watched.troubles
    troubles.refuse_a_message()
    troubles.quarantine_a_trade()
    troubles.spoil_records()
    troubles.lose_a_page()
    troubles.differ_in_the_book()
    troubles.abandon_an_audit()
    watched.wait_for(
        "TradepoolDeadLetters",
        "TradepoolQuarantine",
        "TradepoolAuditCritical",
        "TradepoolAuditWarning",
        "TradepoolPagesUndelivered",
        "TradepoolBookDiffers",
        "TradepoolAuditStuck",
    )


def test_what_stands_still_fires(watched: Watched, patch: pytest.MonkeyPatch):
    troubles = watched.troubles
    troubles.stop_the_files_worker()
    troubles.kill_all_others()
    troubles.send_what_nobody_takes()
    troubles.leave_archiving_unfinished()
    troubles.fill_the_disk(patch)
    troubles.fill_the_memory()
    watched.wait_for(
        "TradepoolWorkersMissing",
        "TradepoolWorkersSilent",
        "TradepoolBeatLate",
        "TradepoolJournalLate",
        "TradepoolQueueOld",
        "TradepoolSlowQueueOld",
        "TradepoolGpuQueueLong",
        "TradepoolUnackedOld",
        "TradepoolMarksOld",
        "TradepoolSnapshotOld",
        "TradepoolAuditOld",
        "TradepoolArchiveUnsettled",
        "TradepoolDiskFull",
        "TradepoolServerMemory",
    )


def test_marks_that_come_late_and_at_bad_prices_fire(watched: Watched):
    watched.troubles.redis.config_set("maxmemory", "1gb")
    watched.troubles.mark_late_at_bad_prices()
    watched.wait_for("TradepoolMarksSlow", "TradepoolPricesMissing", "TradepoolPricesStale")


def test_a_slow_disk_fires(watched: Watched):
    names = {"TradepoolFsyncSlow", "TradepoolCommitSlow"}

    def fire() -> bool:
        watched.troubles.trade_once()
        watched.wait_for()
        return watched.seen >= names

    with pytest.MonkeyPatch.context() as patched, watched.troubles.slow_disk(patched):
        eventually(fire, FIRES_WITHIN_S)


@pytest.mark.parametrize(
    ("panel", "query"), queries_of(json.loads(DASHBOARD.read_text(encoding="utf-8"))), ids=str
)
def test_every_query_of_the_dashboard_has_data(panel: str, query: str, watched: Watched):
    values = [float(series["value"][1]) for series in watched.prometheus.query(query)]
    assert [value for value in values if not math.isnan(value)], panel


def test_what_a_restart_an_emptied_server_and_a_broken_disk_leave_behind_fires(
    watched: Watched, patch: pytest.MonkeyPatch
):
    troubles = watched.troubles
    troubles.break_the_disk(patch)
    troubles.forget_the_schedule()
    troubles.forget_all_audits()
    troubles.restart_the_server()
    watched.wait_for(
        "TradepoolFenced", "TradepoolBeatMissing", "TradepoolDeepAuditOld", "TradepoolDataFolderUnreadable"
    )


def test_a_server_that_is_away_and_metrics_that_are_away_fire(watched: Watched):
    watched.troubles.fleet.server.stop()
    watched.wait_for("TradepoolServerDown")
    assert watched.prometheus.query("tradepool_up == 0")
    watched.exporter.close()
    watched.wait_for("TradepoolMetricsDown")


def test_every_alert_there_is_has_fired_and_could_say_why(watched: Watched):
    assert watched.seen == {alert.name for alert in alerts()}
    assert watched.prometheus.last_error() == ""
    texts = [text for alert in watched.prometheus.alerts() for text in alert["annotations"].values()]
    assert texts
    assert [text for text in texts if "error" in text or "<no value>" in text] == []
