"""How a command that left no lasting trace in a record has ended, as text for the client that waits for it.

It is an outcome's name (`duplicate`, `stale`, `applied`), or a refusal with its reason.
"""

from __future__ import annotations

import msgspec

from tradepool.errors import Rejected

__all__ = ["refusal_in", "refused"]

_REFUSED = "rejected\x1f"


def refused(error: Rejected) -> str:
    """The answer to a command that was refused with `error`."""
    return _REFUSED + msgspec.json.encode(error.as_dict()).decode()


def refusal_in(answer: str | None) -> dict[str, str] | None:
    """The fields of the refusal (`Rejected.as_dict`); None for an answer that is none."""
    if answer is None or not answer.startswith(_REFUSED):
        return None
    return msgspec.json.decode(answer.removeprefix(_REFUSED), type=dict[str, str])
