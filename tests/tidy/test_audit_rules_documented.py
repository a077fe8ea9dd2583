"""docs/audit.md lists every audit rule as it is registered, with an example, and no other."""

from __future__ import annotations

import re

from tests.tidy.source_tree import ROOT
from tradepool.audit.rules.catalogue import all_rules

COLUMNS = 6


def listed():
    text = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row] for row in rows]
    return {row[0].strip("`"): row[1:] for row in cells if len(row) == COLUMNS}


def test_every_rule_is_listed_and_every_listed_rule_is_registered():
    assert listed().keys() == {rule.name for rule in all_rules()}


def test_severity_level_and_repair_are_those_of_the_register():
    registered = {rule.name: [rule.severity, rule.level, rule.repair] for rule in all_rules()}
    assert {name: [row[0], row[1], row[4]] for name, row in listed().items()} == registered


def test_every_rule_is_explained_with_an_example():
    assert [name for name, row in listed().items() if not (row[2].endswith(".") and row[3])] == []
