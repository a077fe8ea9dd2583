"""Counters of any size in hash fields that the server can only add 64-bit integers to.

A number is Σ limb·10^(12·i), the limbs rounded to the nearest so that each increment lies within
±5·10^11. Field `name` holds the lowest limb, `name~` the next, and so on. Each is increased on its own
and never carried, so additions commute; 18 million increments of the largest size fit before one could
overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["join_limbs", "split_limbs"]

_LIMB = 10**12
_HALF = _LIMB // 2
_MARK = "~"


def split_limbs(name: str, number: int) -> Iterable[tuple[str, int]]:
    """The increments that add `number` to counter `name`: (field, integer), none of them zero."""
    return ((name, number),) if 0 < number < _HALF else _limbs(name, number)


def join_limbs(fields: Mapping[str, int]) -> dict[str, int]:
    """The counters that `fields` add up to; those at zero are left out."""
    counters: dict[str, int] = {}
    for field, limb in fields.items():
        name = field.rstrip(_MARK)
        power = len(field) - len(name)
        counters[name] = counters.get(name, 0) + limb * _LIMB**power
    return {name: number for name, number in counters.items() if number}


def _limbs(name: str, number: int) -> Iterator[tuple[str, int]]:
    while number:
        low = (number + _HALF) % _LIMB - _HALF
        if low:
            yield name, low
        number = (number - low) // _LIMB
        name += _MARK
