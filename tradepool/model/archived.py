"""What stays in the store of a trade that has moved to the archive."""

from __future__ import annotations

import msgspec

from tradepool.model.trade import Trade

__all__ = ["Archived", "archived"]


class Archived(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The trade was here, ended, and is in the archive.

    It keeps the trade's id taken, so that a late repeat of its add is recognised on every host, also
    where there is no archive to look into; and the commands it had applied, for the repeat of one of them.
    """

    trade_id: str
    user_id: str
    version: int
    """The trade's last version, plus one."""
    day: str
    """The day of the archive that the trade is in, `YYYY-MM-DD` UTC."""
    payload: str
    """The trade's `payload`: 16 hex that stand for what was given at add."""
    digest: str = ""
    """The digest of the archived record's JSON, 16 hex: what the archive must hold."""
    applied: str = ""
    """The trade's `applied`: the short ids of its last commands."""


def archived(trade: Trade, day: str, digest: str = "") -> Archived:
    """What is left of `trade`, whose record with `digest` has been archived under `day`."""
    return Archived(
        trade_id=trade.trade_id,
        user_id=trade.user_id,
        version=trade.version + 1,
        day=day,
        payload=trade.payload,
        digest=digest,
        applied=trade.applied,
    )
