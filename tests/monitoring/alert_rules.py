"""The alert rules as data, and as a test loads them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.tidy.source_tree import ROOT

__all__ = ["ALERTS", "PROMETHEUS", "Alert", "alerts", "hastened"]

PROMETHEUS = ROOT / "ops" / "prometheus" / "prometheus.yml"
ALERTS = PROMETHEUS.with_name("alerts.yml")


@dataclass(frozen=True, kw_only=True)
class Alert:
    name: str
    expr: str
    hold: str
    labels: dict[str, str]
    annotations: dict[str, str]


def alerts() -> list[Alert]:
    """All of them, in order."""
    return [
        Alert(
            name=rule["alert"],
            expr=rule["expr"],
            hold=rule["for"],
            labels=rule["labels"],
            annotations=rule["annotations"],
        )
        for group in _loaded()["groups"]
        for rule in group["rules"]
    ]


def hastened() -> str:
    """The rules for a test that cannot wait: nothing has to hold for longer than one evaluation (`for: 0s`),
    and rates are over 20 s instead of 5 min. Expressions and limits are those of production otherwise.
    """
    rules = _loaded()
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0s"
            rule["expr"] = re.sub(r"\[5m\]", "[20s]", rule["expr"])
    # JSON is YAML.
    return json.dumps(rules)


def _loaded() -> dict[str, Any]:
    return YAML(typ="safe").load(Path(ALERTS))
