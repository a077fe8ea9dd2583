"""The statuses of older bots and of ccxt, read as ours."""

from __future__ import annotations

from decimal import Decimal

from tradepool.model.fields import reject
from tradepool.model.kinds import Status

__all__ = ["AMBIGUOUS", "read_status", "status_word"]

AMBIGUOUS = "legacy_ambiguous"
"""The note on a trade whose old status could mean two things."""

_WORDS = {status.value: status for status in Status} | {
    "open": Status.SUBMITTED,
    "new": Status.SUBMITTED,
    "closed": Status.COMPLETED,
    "canceled": Status.CANCELLED,
}
_LEGACY = frozenset({"executed", "successful", "failed"})


def status_word(field: str, value: object) -> str:
    """A status word in lower case.

    Raises: InvalidTrade for a word that is neither ours, ccxt's nor the old bots'.
    """
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in _WORDS and word not in _LEGACY:
        reject(field, "unknown", value, "one of " + ", ".join(Status))
    return str(word)


def read_status(word: str, *, filled: bool, closed: bool, pnl: Decimal | None) -> tuple[Status, str | None]:
    """The status that `word` means, and a note for the auditor where it could mean another.

    The old `executed` was an order sent, `successful` closed or only filled, `failed` refused or closed
    at a loss; what else is known decides: whether some quantity was `filled`, whether some exit is known
    (`closed`), and the reported `pnl`.
    """
    status = _WORDS.get(word)
    if status is not None:
        return status, None
    if word == "executed":
        return Status.SUBMITTED, None
    is_win = pnl is not None and pnl > 0
    if closed or pnl:
        return Status.COMPLETED, AMBIGUOUS if word == "failed" and is_win else None
    if word == "successful":
        return Status.FILLED, AMBIGUOUS
    return (Status.SUBMITTED, AMBIGUOUS) if filled else (Status.REJECTED, None)
