"""The marks of many users in one value: built from columns whole, read for one user.

    format 1 byte, words 1 byte, width 1 byte, at 8 bytes (µs)
    length 4 bytes, who is in it (`BucketLayout.tables`)
    a record for each (currency, user) of it: unrealised, profit and exposure in 10⁻⁸, each of as many
        64-bit words, the lowest first; then winners, count and unmarked, each as many bytes wide
    what comes on top: MessagePack of user id → currency → the same six numbers as decimal text; or nothing

All numbers are little-endian, sums and times signed. One word holds sums up to 9.2·10¹⁰ of the currency; a
tick in which some user has more writes two. Counts are as wide as the largest of the tick needs: a byte where
nobody has more than 255 open trades. What comes on top are rows that do not fit the columns: those are few.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from tradepool.errors import Corrupt
from tradepool.marking.bucket_layout import LENGTH_BYTES, BucketLayout
from tradepool.pnl.decimal_rows import UserTally
from tradepool.pnl.sums import LIMB_BITS, Limbs
from tradepool.pnl.user_marks import UserColumns

__all__ = ["HEAD_BYTES", "UserBuckets", "time_of", "user_tallies"]

_FORMAT = 2
_HEAD = struct.Struct("<BBBq")
HEAD_BYTES = _HEAD.size
"""In front of each value."""
_SUMS = ("unrealised", "profit", "exposure")
_COUNTS = ("winners", "count", "unmarked")
_COUNTS_STRUCTS = {1: struct.Struct("<BBB"), 2: struct.Struct("<HHH"), 4: struct.Struct("<III")}
"""By width."""
_WORD_BYTES = 8
_WORD_END = 2**63
_ONE_WORD, _TWO_WORDS = 1, 2

_Tallies = dict[str, UserTally]
_OnTop = dict[str, dict[str, list[str]]]


class UserBuckets(Mapping[int, Sequence[bytes]]):
    """Shard → the value of each of its buckets, with the marks of time `at` (µs).

    `layout` must follow the groups of `columns`; users of other shards are left out. A shard's values are put
    together when they are read: the server can work on those of one while the next are.
    """

    def __init__(self, layout: BucketLayout, columns: UserColumns, at: int, shards: Sequence[int]) -> None:
        words, width, records = _records(columns, layout.order)
        self._shards = shards
        self._layout = layout
        self._head = _HEAD.pack(_FORMAT, words, width, at)
        self._records = records.view(np.uint8).data
        self._bounds = [bound * records.itemsize for bound in layout.bounds]
        self._on_top = _singles(layout, columns.singles)

    def __getitem__(self, shard: int) -> list[bytes]:
        head, tables, records, bounds = self._head, self._layout.tables, self._records, self._bounds
        return [
            b"".join((head, tables[n], records[bounds[n] : bounds[n + 1]], self._on_top.get(n, b"")))
            for n in self._layout.buckets_of(shard)
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


def time_of(head: bytes) -> int | None:
    """The time (µs) that the first HEAD_BYTES of a value tell; None where another version wrote it."""
    form, _, _, at = _HEAD.unpack(head)
    return at if form == _FORMAT else None


def user_tallies(value: bytes, user_id: str) -> tuple[int, _Tallies]:
    """The time (µs) of a bucket's marks, and those of one user by currency.

    Raises: Corrupt for a damaged value, or one of another format; the next mark replaces it.
    """
    try:
        return _decoded(value, user_id)
    except (struct.error, ValueError, LookupError, TypeError) as problem:
        raise Corrupt(f"the marks of user {user_id} cannot be read ({problem}); mark again") from problem


def _decoded(value: bytes, user_id: str) -> tuple[int, _Tallies]:
    form, words, width, at = _HEAD.unpack_from(value)
    if form != _FORMAT:
        raise Corrupt(f"marks are of format {form}, which another version writes; mark again with this one")
    start = _HEAD.size + LENGTH_BYTES
    end = start + int.from_bytes(value[_HEAD.size : start], "little")
    table = msgspec.msgpack.decode(value[start:end], type=dict[str, list[str]])
    counts = _COUNTS_STRUCTS[width]
    size = len(_SUMS) * words * _WORD_BYTES + counts.size
    tallies: _Tallies = {}
    for currency, users in table.items():
        if user_id in users:
            tallies[currency] = _tally(value, end + users.index(user_id) * size, words, counts)
        end += len(users) * size
    if end < len(value):
        _add_singles(tallies, msgspec.msgpack.decode(value[end:], type=_OnTop).get(user_id, {}))
    return at, {currency: tally for currency, tally in tallies.items() if tally.count or tally.unmarked}


def _records(columns: UserColumns, order: npt.NDArray[np.intp]) -> tuple[int, int, npt.NDArray[np.void]]:
    """How many words a sum has, how many bytes a count, and the records in `order`."""
    sums = {name: getattr(columns, name) for name in _SUMS}
    words = _ONE_WORD if all(map(_fits_one_word, sums.values())) else _TWO_WORDS
    # No user has more winners than trades that are counted.
    largest = max(int(columns.count.max(initial=0)), int(columns.unmarked.max(initial=0)))
    width = np.min_scalar_type(largest).itemsize
    kind = [(name, "<i8", (words,)) for name in _SUMS] + [(name, f"<u{width}") for name in _COUNTS]
    records = np.empty(len(order), kind)
    for name, limbs in sums.items():
        # The low half may have carried, or be negative: one word takes that in by wrapping around.
        records[name][:, 0] = (limbs.high << LIMB_BITS) + limbs.low
        if words == _TWO_WORDS:
            records[name][:, 1] = (limbs.high + (limbs.low >> LIMB_BITS)) >> LIMB_BITS
    for name in _COUNTS:
        records[name] = getattr(columns, name)
    return words, width, records.take(order)


def _fits_one_word(limbs: Limbs) -> bool:
    """Whether no sum can leave int64, as far as the largest halves tell."""
    high, low = (max(-int(half.min(initial=0)), int(half.max(initial=0))) for half in (limbs.high, limbs.low))
    return (high << LIMB_BITS) + low < _WORD_END


def _singles(layout: BucketLayout, singles: Mapping[tuple[str, str], UserTally]) -> dict[int, bytes]:
    """What each bucket has on top."""
    found: dict[int, _OnTop] = defaultdict(dict)
    for (user_id, currency), tally in singles.items():
        of_user = found[layout.bucket_of(user_id)].setdefault(user_id, {})
        of_user[currency] = [str(getattr(tally, name)) for name in (*_SUMS, *_COUNTS)]
    return {bucket: msgspec.msgpack.encode(of_bucket) for bucket, of_bucket in found.items()}


def _add_singles(tallies: _Tallies, singles: Mapping[str, list[str]]) -> None:
    for currency, figures in singles.items():
        tallies.setdefault(currency, UserTally()).absorb(UserTally(*map(int, figures)))


def _tally(value: bytes, start: int, words: int, counts: struct.Struct) -> UserTally:
    size = words * _WORD_BYTES
    end = start + len(_SUMS) * size
    figures = (
        int.from_bytes(value[place : place + size], "little", signed=True)
        for place in range(start, end, size)
    )
    return UserTally(*figures, *counts.unpack_from(value, end))
