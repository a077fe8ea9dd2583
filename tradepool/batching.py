"""Long streams in lists of a bounded length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["batched"]

_Item = TypeVar("_Item")


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of up to `size` items; `items` is read no further ahead than the list that is asked for."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
