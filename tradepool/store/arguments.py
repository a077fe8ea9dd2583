"""Parts of a commit's plan, as lua/commit.lua reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tradepool.model.codec import DIGEST

__all__ = ["Argument", "DigestChange", "HashFields", "Places", "bytes_of", "chunks", "digest_arguments"]

Argument = str | bytes | int

_CALL_ARGUMENTS_MAX = 4000
"""Arguments of one call in the script, even because fields come in pairs; Lua's unpack fails near 8,000."""
_PAIRS_MAX = _CALL_ARGUMENTS_MAX // 2


class HashFields:
    """Fields of one hash, what each must begin with ('' = it must be absent) and what it becomes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.names: list[str] = []
        self.expected: list[bytes] = []
        self.values: list[bytes] = []

    def add(self, name: str, expected: bytes, value: bytes) -> None:
        """One field more."""
        self.names.append(name)
        self.expected.append(expected)
        self.values.append(value)

    def parts(self) -> Iterator[HashFields]:
        """Parts small enough for one call."""
        if len(self.names) <= _PAIRS_MAX:
            yield self
            return
        for start in range(0, len(self.names), _PAIRS_MAX):
            part, chosen = HashFields(self.kind), slice(start, start + _PAIRS_MAX)
            part.names, part.expected = self.names[chosen], self.expected[chosen]
            part.values = self.values[chosen]
            yield part

    def arguments(self, key: int, values: Places) -> tuple[Any, ...]:
        """The script's argument for the hash that is `key` in KEYS; the new values go to `values`."""
        # Stored headers and trade ids are text; MessagePack's bytes are nothing the server's Lua can read.
        expected = [text.decode() for text in self.expected] if any(self.expected) else None
        return key, self.names, expected, [values[value] for value in self.values]


class DigestChange(msgspec.Struct, gc=False):
    """How the digest of one bucket changes."""

    xor: int = 0
    count: int = 0

    def replace(self, digest_before: str, after: bytes) -> None:
        """A record of the bucket is replaced, or added ('')."""
        self.xor ^= int(after[DIGEST], 16)
        if digest_before:
            self.xor ^= int(digest_before, 16)
        else:
            self.count += 1


class Places(dict[Any, int]):
    """Arguments in order of first use; `places[argument]` is where it stands."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first = first

    def __missing__(self, argument: str | bytes) -> int:
        self[argument] = place = len(self) + self._first
        return place


def bytes_of(argument: Argument) -> bytes:
    """What the server stores of it: text and bytes of one spelling are one value."""
    return argument if isinstance(argument, bytes) else str(argument).encode()


def digest_arguments(key: int, changes: Mapping[int, DigestChange]) -> tuple[Any, ...]:
    """The script's argument for the changed buckets of the hash that is `key` in KEYS."""
    return (
        key,
        [f"{bucket:x}" for bucket in changes],
        [change.xor >> 32 for change in changes.values()],
        [change.xor & 0xFFFFFFFF for change in changes.values()],
        [change.count for change in changes.values()],
    )


def chunks(arguments: Sequence[Argument]) -> Iterable[Sequence[Argument]]:
    """`arguments` in parts small enough for one call."""
    if len(arguments) <= _CALL_ARGUMENTS_MAX:
        return (arguments,)
    starts = range(0, len(arguments), _CALL_ARGUMENTS_MAX)
    return [arguments[start : start + _CALL_ARGUMENTS_MAX] for start in starts]
