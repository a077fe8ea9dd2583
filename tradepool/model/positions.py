"""Outbox positions: `<milliseconds>-<number>`, as the server's streams count."""

from __future__ import annotations

__all__ = ["START_POSITION", "parse_position"]

START_POSITION = "0-0"
"""Before the first commit of a shard."""


def parse_position(position: str) -> tuple[int, int]:
    """A position as numbers, to be compared: `"1700000000000-3"` → `(1700000000000, 3)`.

    Raises: ValueError when it is not one.
    """
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence)
