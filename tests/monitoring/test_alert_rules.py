"""promtool takes the rules, and each fires at its limit, after its time, and not before."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.monitoring.alert_cases import FIRES, QUIET, Figures
from tests.monitoring.alert_rules import ALERTS, PROMETHEUS, Alert, alerts
from tests.tidy.source_tree import ROOT

MINUTES = {"m": 1, "h": 60}


def test_promtool_takes_the_configuration_and_its_rules(promtool: Path):
    _run(promtool, "check", "config", str(PROMETHEUS))


def test_every_alert_fires_at_its_limit_and_not_before(promtool: Path, tmp_path: Path):
    assert set(FIRES) == set(QUIET) == {alert.name for alert in alerts()}
    for alert in alerts():
        # Of each rule alone: all of them in each test would be evaluated a hundred thousand times.
        rule = {"alert": alert.name, "expr": alert.expr, "for": alert.hold}
        _write(tmp_path / f"{alert.name}.rule", {"groups": [{"name": "one", "rules": [rule]}]})
        _write(
            tmp_path / f"{alert.name}.yml", {"rule_files": [f"{alert.name}.rule"], "tests": _tests_of(alert)}
        )
    _run(promtool, "test", "rules", *map(str, tmp_path.glob("*.yml")))


def test_every_alert_says_what_is_wrong_what_to_do_and_where_it_is_explained():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    anchors = set(re.findall(r'<a id="(\w+)"></a>', text))
    for alert in alerts():
        assert alert.annotations.keys() == {"summary", "description", "runbook_url"}, alert.name
        assert alert.labels.keys() == {"severity"}, alert.name
        assert alert.labels["severity"] in {"critical", "warning"}, alert.name
        assert alert.annotations["runbook_url"] == f"docs/operations.md#{alert.name.lower()}"
        assert alert.name.lower() in anchors
    assert {alert.name.lower() for alert in alerts()} == anchors


def test_every_limit_has_its_reason_above_it():
    text = ALERTS.read_text(encoding="utf-8")
    assert len(re.findall(r"^ +# (?:\S+ ){4,}.*\n +- alert: ", text, re.MULTILINE)) == len(alerts())


def _tests_of(alert: Alert) -> list[dict[str, Any]]:
    hold = int(alert.hold[:-1]) * MINUTES[alert.hold[-1]]
    # A rate needs some minutes before it is one.
    firing = [_test(alert, figures, {hold + 10: 1}) for figures in FIRES[alert.name]]
    quiet = [_test(alert, figures, {hold + 10: 0}) for figures in QUIET[alert.name]]
    early = [_test(alert, figures, {hold - 1: 0}) for figures in FIRES[alert.name] if hold]
    return [*firing, *quiet, *early]


def _test(alert: Alert, figures: Figures, firing_at: dict[int, int]) -> dict[str, Any]:
    """That at each minute so many of the alert fire."""
    series = [
        {"series": name, "values": f"{value}x200" if "+" in value else f"{value}+0x200"}
        for name, value in figures.items()
    ]
    expression = f'count(ALERTS{{alertname="{alert.name}",alertstate="firing"}})'
    wanted = [
        {
            "expr": expression,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": count}] if count else [],
        }
        for minute, count in firing_at.items()
    ]
    return {"name": alert.name, "interval": "1m", "input_series": series, "promql_expr_test": wanted}


def _write(path: Path, content: object) -> None:
    # JSON is YAML.
    path.write_text(json.dumps(content), encoding="utf-8")


def _run(program: Path, *arguments: str) -> None:
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
