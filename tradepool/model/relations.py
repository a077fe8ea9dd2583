"""Trades that name another one: a hedge its position, a part of a flip the part before."""

from __future__ import annotations

from collections.abc import Callable

from tradepool.model.archived import Archived
from tradepool.model.fields import reject
from tradepool.model.ids import slot_of_id, slot_of_user
from tradepool.model.trade import Trade

__all__ = ["CHAIN_MAX", "check_relation"]

CHAIN_MAX = 100
"""Trades that are looked at, from one to the next, for a way back."""

_CURE = "another trade of the user, or leave it out"


def check_relation(
    before: Trade | None, after: Trade, look_up: Callable[[str], Trade | Archived | None]
) -> None:
    """Pass when `after` may be related to the trade it names; one that is not there (yet) may be named.

    `look_up` finds a trade by its id, also another user's. Nothing is looked up unless `before`, the version
    so far, named another. Of a new trade under an id that the pool made no way back is looked for: nobody
    can have named it.

    Raises: InvalidTrade when the related trade is another user's, or leads back to this one.
    """
    named = after.related_trade_id
    if named is None or (before is not None and before.related_trade_id == named):
        return
    if slot_of_id(named) not in (None, slot_of_user(after.user_id)):
        reject("related_trade_id", "is another user's", named, _CURE)
    step = named
    is_minted = before is None and slot_of_id(after.trade_id) is not None
    for _ in range(1 if is_minted else CHAIN_MAX):
        found = look_up(step)
        if found is not None and found.user_id != after.user_id:
            reject("related_trade_id", "is another user's", named, _CURE)
        following = found.related_trade_id if isinstance(found, Trade) else None
        if following is None:
            return
        if following == after.trade_id:
            reject("related_trade_id", "leads back to the trade itself", named, _CURE)
        step = following
