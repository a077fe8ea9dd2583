"""Every error of tradepool, sorted by what the caller should do.

TradePoolError
├── Rejected       never retry: the input is wrong and nothing was written
│   ├── InvalidTrade          a field of a trade, fill or change breaks a rule
│   ├── InvalidTokens         a field of a token call breaks a rule
│   ├── IllegalTransition     the trade's state does not allow the change
│   ├── UnknownTrade          no trade with that id
│   ├── IdempotencyConflict   the same id or key was used with another payload
│   ├── InsufficientTokens    fewer free tokens than asked for
│   ├── InvalidQuery          an SQL text is wrong, or asks for more than reading trades
│   ├── VersionMismatch       the trade is not at the expected version; a VersionConflict as well
│   ├── Quarantined           the trade is read-only until somebody has looked at it and releases it
│   └── BatchRejected         some of a batch were refused; the rest is applied
├── Unavailable    retry with backoff: nothing was acknowledged
│   ├── StoreUnavailable      the server is unreachable, loading or out of memory
│   ├── JournalUnavailable    the log cannot be written, or did not confirm in time
│   ├── Fenced                the server restarted; recovery has not opened it yet
│   ├── PoolLocked            another process has this pool directory open
│   ├── ResourceUnavailable   a folder or a port that is needed cannot be used
│   └── Undelivered           a page did not reach the webhook
├── Contended      retry now, bounded
│   └── VersionConflict       somebody else changed the record first
├── Corrupt        stop and page
│   ├── ChecksumMismatch      a journal line, or a book's file, is damaged
│   ├── SequenceGap           journal lines are missing
│   └── JournalAhead          the journal holds changes the store cannot have lost
└── Misconfigured  a setting or an installation is wrong; the message names the cure
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from decimal import Decimal

__all__ = [
    "BatchRejected",
    "ChecksumMismatch",
    "Contended",
    "Corrupt",
    "Fenced",
    "IdempotencyConflict",
    "IllegalTransition",
    "InsufficientTokens",
    "InvalidQuery",
    "InvalidTokens",
    "InvalidTrade",
    "JournalAhead",
    "JournalUnavailable",
    "Misconfigured",
    "PoolLocked",
    "Quarantined",
    "Rejected",
    "ResourceUnavailable",
    "SequenceGap",
    "StoreUnavailable",
    "TradePoolError",
    "Unavailable",
    "Undelivered",
    "UnknownTrade",
    "VersionConflict",
    "VersionMismatch",
    "quoted",
]

_VALUE_CHARS_MAX = 80

_REPR = reprlib.Repr()
_REPR.maxlong = _REPR.maxother = _REPR.maxstring = _VALUE_CHARS_MAX


class TradePoolError(Exception):
    """Base of everything tradepool raises on purpose."""


class Rejected(TradePoolError):
    """The input is wrong; it was not written and a retry cannot help.

    `field` names the offending field, `value` is what was given (shortened), `cure` says what
    would be accepted. The message is one line made of the three.
    """

    def __init__(self, problem: str, *, field: str = "", value: object = None, cure: str = "") -> None:
        self.problem = problem
        self.field = field
        self.value = quoted(value)
        self.cure = cure
        super().__init__(_one_line(field, problem, self.value if field else "", cure))

    def as_dict(self) -> dict[str, str]:
        """The error as plain text fields, for a dead letter or a JSON answer."""
        return {
            "error": type(self).__name__,
            "field": self.field,
            "value": self.value,
            "problem": self.problem,
            "cure": self.cure,
        }


class InvalidTrade(Rejected):
    """A field of a trade, fill or change breaks a rule of the model."""


class InvalidTokens(Rejected):
    """A field of a token call breaks a rule of the model."""


class IllegalTransition(Rejected):
    """The trade's state does not allow this change."""


class UnknownTrade(Rejected):
    """No trade has this id."""


class IdempotencyConflict(Rejected):
    """The same id or idempotency key was used before with another payload."""


class InsufficientTokens(Rejected):
    """Fewer tokens are available than asked for."""


class InvalidQuery(Rejected):
    """An SQL text is wrong, or asks for more than reading trades."""


class Quarantined(Rejected):
    """The trade is in quarantine: it stays as it is until `release_quarantine`."""


class BatchRejected(Rejected):
    """Some items of a batch were refused; every other item is applied.

    `rejections` pairs the position in the batch with its error; `receipts` are those of the rest,
    in order.
    """

    def __init__(self, rejections: Sequence[tuple[int, Rejected]], receipts: Sequence[object]) -> None:
        self.rejections = rejections
        self.receipts = receipts
        position, first = rejections[0]
        super().__init__(f"{len(rejections)} refused, {len(receipts)} applied; item {position}: {first}")


class Unavailable(TradePoolError):
    """Nothing was acknowledged; retry with backoff."""


class StoreUnavailable(Unavailable):
    """The server is unreachable, still loading, or out of memory."""


class JournalUnavailable(Unavailable):
    """The journal cannot be written, or did not confirm in time."""


class Fenced(Unavailable):
    """The server lost its scripts (restart or failover); recovery must replay the journal first."""


class PoolLocked(Unavailable):
    """Another process has this pool directory open."""


class ResourceUnavailable(Unavailable):
    """A folder cannot be written, or a port is taken."""


class Undelivered(Unavailable):
    """A page about critical findings did not reach the webhook."""


class Contended(TradePoolError):
    """Somebody else was faster; retry at once, a bounded number of times."""


class VersionConflict(Contended):
    """The record changed between reading and committing."""


class VersionMismatch(Rejected, VersionConflict):
    """The trade is not at the version that the caller expected: read it again and decide anew."""


class Corrupt(TradePoolError):
    """Stored data contradicts itself; stop and page a human."""


class ChecksumMismatch(Corrupt):
    """A journal line, or a part of a book's file, is damaged."""


class SequenceGap(Corrupt):
    """Journal lines are missing."""


class JournalAhead(Corrupt):
    """The journal holds changes that the store cannot have lost."""


class Misconfigured(TradePoolError):
    """A setting or an installation is wrong; the message names the cure."""


def quoted(value: object) -> str:
    """A caller's value as one short text that always prints.

    Deep and cyclic structures are cut; what has no short form (an int of thousands of digits) is shown
    by its type; lone surrogates are escaped.
    """
    try:
        text = str(value) if isinstance(value, str | Decimal) else _REPR.repr(value)
    except ValueError:
        text = f"a huge {type(value).__name__}"
    return _cut(_cut(text).encode("utf-8", "backslashreplace").decode())


def _cut(text: str) -> str:
    """The text, or its two ends: a long path is known by its last part."""
    if len(text) <= _VALUE_CHARS_MAX:
        return text
    end = _VALUE_CHARS_MAX // 2
    return f"{text[: end - 1]}…{text[-end:]}"


def _one_line(field: str, problem: str, value: str, cure: str) -> str:
    text = f"{field}: {problem}" if field else problem
    if value:
        text += f" (got {value})"
    if cure:
        text += f"; {cure}"
    return " ".join(text.split())
