"""Builds that are broken on purpose: a runner that finds nothing wrong with them would prove nothing."""

from __future__ import annotations

import os

__all__ = ["BREAKS", "VARIABLE", "acknowledges_early", "resend_s"]

BREAKS = {"ack": "a message is acknowledged before its task runs, and no client sends again"}
VARIABLE = "CHAOS_BREAK"
_NEVER_S = 1e6


def acknowledges_early() -> bool:
    """Whether the workers of this run do."""
    return os.environ.get(VARIABLE) == "ack"


def resend_s(usual_s: float) -> float:
    """After how long a client sends again what is not confirmed."""
    return _NEVER_S if acknowledges_early() else usual_s
