"""Every audit rule: importing this module registers them all."""

from __future__ import annotations

from tradepool.audit.rules import (
    file_rules,
    index_rules,
    key_rules,
    ledger_rules,
    record_rules,
    relation_rules,
    trade_rules,
    venue_rules,
)
from tradepool.audit.rules.registry import RULES, Rule

__all__ = ["MODULES", "RULES", "all_rules"]

MODULES = (
    file_rules,
    record_rules,
    trade_rules,
    relation_rules,
    ledger_rules,
    index_rules,
    key_rules,
    venue_rules,
)
"""Where rules stand, by what they look at."""


def all_rules() -> tuple[Rule[...], ...]:
    """Every rule, in the order of their modules."""
    return tuple(RULES.values())
