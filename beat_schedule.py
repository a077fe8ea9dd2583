"""What the fleet does by the clock.

Each entry expires before its next tick: a slow worker skips ticks instead of facing a pile of them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery.schedules import crontab

from tradepool.settings import Settings

__all__ = ["beat_schedule"]

EXPIRES_SHARE = 0.9
DEEP_AUDIT_HOUR = 3
DEEP_AUDIT_MINUTE = 17
DEEP_AUDIT_EXPIRES_S = 12 * 3600
"""A nightly audit that cannot start until noon is left to the next night."""


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Celery's beat entries for one pool's settings."""
    return {
        "check-all-trades": _every(settings.audit_every_s, "tasks.audit.check_all_trades", quarantine=True),
        "check-all-trades-deep": {
            "task": "tasks.audit.check_all_trades",
            "schedule": crontab(hour=DEEP_AUDIT_HOUR, minute=DEEP_AUDIT_MINUTE),
            "kwargs": {"deep": True, "quarantine": True},
            "options": {"expires": DEEP_AUDIT_EXPIRES_S},
        },
        "expire-reservations": _every(settings.expire_every_s, "tasks.tokens.expire_reservations"),
        "mark-to-market": _every(settings.mark_every_s, "tasks.pnl.mark_to_market"),
        "check-book": _every(settings.book_check_every_s, "tasks.pnl.check_book"),
        "archive-closed-trades": _every(settings.archive_every_s, "tasks.files.archive_closed_trades"),
        "write-snapshot": _every(settings.snapshot_every_s, "tasks.files.write_snapshot"),
    }


def _every(interval_s: float, task: str, **kwargs: Any) -> dict[str, Any]:
    return {
        "task": task,
        "schedule": timedelta(seconds=interval_s),
        "kwargs": kwargs,
        "options": {"expires": interval_s * EXPIRES_SHARE},
    }
