"""The trades that the last commits of a user have changed, in one string.

    16 digits: how many bytes were cut off | id ␟ id ␟ …

Each commit that touches the user appends the ids of his trades in it, each with `SEPARATOR` behind it; one
of balances alone appends nothing but that. So the number of bytes that were ever appended grows with each
commit: it is the revision of the user, and what came after an earlier revision is the end of the string.
lua/commit.lua cuts off the oldest ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["CUT_CHARS", "Changes", "appended", "ids_in"]

CUT_CHARS = 16
"""Length of the number in front."""
SEPARATOR = "\x1f"
"""No id has it."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a user's trades since an earlier revision of the user."""

    revision: str
    """The user's revision now, as `RedisStore.revision` returns it."""
    trade_ids: tuple[str, ...]
    """The trades that were added, changed or archived since, each once, in order of their last commits."""


def appended(trade_ids: Sequence[str]) -> str:
    """What a commit that changes these trades appends."""
    return SEPARATOR.join(trade_ids) + SEPARATOR


def ids_in(text: str) -> tuple[str, ...]:
    """The ids in what was appended, each once, where it stands last."""
    last = dict.fromkeys(trade_id for trade_id in reversed(text.split(SEPARATOR)) if trade_id)
    return tuple(reversed(last))
