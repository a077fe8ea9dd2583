"""What a program of the tests tells whoever started it."""

from __future__ import annotations

import sys

__all__ = ["say"]


def say(text: str) -> None:
    """A line, which is seen at once also where the output is a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
