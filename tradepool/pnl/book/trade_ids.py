"""Trade ids by number, in flat arrays: ten million of them without as many Python objects."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from tradepool.pnl.book.columns import Indices, Ints, grown
from tradepool.pnl.book.hashing import Words, joined, text_hashes

__all__ = ["IdArrays", "TradeIds"]

_PLACES_PER_ID = 2
_PLACES_MIN = 1024
_EMPTY = 0
_BLOCK_IDS = 1 << 16
# Ids that differ in a digit have CRCs that differ in a few bits, which would fill places in clusters.
_SPREAD = 0x9E3779B1
_HASH_BITS = 32
_HASH_MASK = 2**_HASH_BITS - 1

Hashes = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int32]
Text = npt.NDArray[np.uint8]


class IdArrays(NamedTuple):
    """The ids as they are kept; their text in UTF-8 is `first_text` and then `later_text`."""

    first_text: Text
    later_text: Text
    bounds: Ints
    """Where each id begins in the text, and where the last one ends."""
    hashes: Hashes
    places: Numbers
    """An open hash table with linear probing: number + 1, or 0 where nothing is."""


class TradeIds:
    """Ids numbered in order of arrival, and found again by a hash table of those numbers.

    Two ids of one hash are told apart by their text. A number stands for its id until `keep`.
    """

    def __init__(self, arrays: IdArrays | None = None, *, count: int = 0) -> None:
        """The first `count` ids of `arrays`, which may have room for more, and are kept and written to."""
        self._first, self._later, self._bounds, self._hashes, self._places = arrays or IdArrays(
            first_text=np.zeros(0, np.uint8),
            later_text=np.zeros(0, np.uint8),
            bounds=np.zeros(1, np.int64),
            hashes=np.zeros(0, np.uint32),
            places=np.full(_PLACES_MIN, _EMPTY, np.int32),
        )
        self._count = count

    def __len__(self) -> int:
        """How many numbers are given."""
        return self._count

    @property
    def arrays(self) -> IdArrays:
        """The ids as they are kept: views, good until the next change."""
        bounds, hashes = self._bounds[: self._count + 1], self._hashes[: self._count]
        later = self._later[: int(bounds[-1]) - len(self._first)]
        return IdArrays(self._first, later, bounds, hashes, self._places)

    def find(self, trade_id: str) -> int | None:
        """The number of the id; None if it has none."""
        text = _encoded(trade_id)
        hash_ = crc32(text) * _SPREAD & _HASH_MASK
        place = hash_ * len(self._places) >> _HASH_BITS
        while number := int(self._places[place]):
            if self._hashes[number - 1] == hash_ and self._texts(np.array([number - 1])) == [text]:
                return number - 1
            place = (place + 1) % len(self._places)
        return None

    def find_all(self, trade_ids: Sequence[str]) -> Numbers:
        """The number of each of the ids, −1 for those that have none."""
        texts = list(map(_encoded, trade_ids))
        return self._search(texts, _hashes(texts))

    def numbers(self, trade_ids: Sequence[str]) -> Numbers:
        """The number of each of the ids, which are all different; the next ones for those that have none."""
        texts = list(map(_encoded, trade_ids))
        hashes = _hashes(texts)
        numbers = self._search(texts, hashes)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            numbers[new] = np.arange(self._count, self._count + len(new), dtype=np.int32)
            self._append([texts[index] for index in new.tolist()], hashes[new])
        return numbers

    def texts(self, numbers: Indices) -> list[str]:
        """The ids of those numbers."""
        return [bytes(text).decode("utf-8", "surrogatepass") for text in self._texts(numbers)]

    def digests(self, numbers: Indices) -> Words:
        """A 64-bit hash of the id of each of those numbers."""
        hashes = np.empty(len(numbers), np.uint64)
        starts, stops = self._bounds[numbers], self._bounds[numbers + 1]
        size_first = len(self._first)
        is_first = stops <= size_first
        for text, at, where in ((self._first, 0, is_first), (self._later, size_first, ~is_first)):
            # Ids of one length are copied as rows of a table: nearly all have the same.
            for size in np.unique((stops - starts)[where]).tolist():
                same = np.flatnonzero(where & (stops - starts == size))
                cells = sliding_window_view(text, size)[starts[same] - at]
                hashes[same] = text_hashes(cells.reshape(-1), size * np.arange(len(same) + 1))
        return hashes

    def keep(self, numbers: Numbers) -> None:
        """Forget all ids but those of `numbers`, which ascend: the first of them becomes 0, and so on."""
        is_kept = np.zeros(self._count, np.bool_)
        is_kept[numbers] = True
        sizes = np.diff(self.arrays.bounds)
        self._first = np.concatenate([np.zeros(0, np.uint8), *self._kept_text(is_kept, sizes)])
        self._later = np.zeros(0, np.uint8)
        self._bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[numbers])])
        self._hashes = self._hashes[numbers]
        self._count = len(numbers)
        self._rebuild(max(_PLACES_MIN, 2 * _PLACES_PER_ID * self._count))

    def _kept_text(self, is_kept: npt.NDArray[np.bool_], sizes: Ints) -> Iterator[Text]:
        """The text of the ids that are kept, in blocks: a mask of all bytes would be as large as the text."""
        first, later, bounds, _, _ = self.arrays
        for text, start in ((first, 0), (later, len(first))):
            one, end = (int(bounds.searchsorted(at, side="right")) - 1 for at in (start, start + len(text)))
            for number in range(one, end, _BLOCK_IDS):
                block = slice(number, min(end, number + _BLOCK_IDS))
                stretch = text[bounds[block.start] - start : bounds[block.stop] - start]
                yield stretch[np.repeat(is_kept[block], sizes[block])]

    def _search(self, texts: Sequence[bytes], hashes: Hashes) -> Numbers:
        """The number of each text, −1 for those that have none."""
        numbers = np.full(len(texts), -1, np.int32)
        asking = np.arange(len(texts))
        places = self._homes(hashes)
        while len(asking):
            found = self._places[places] - 1
            is_taken = found >= 0
            asking, places, found = asking[is_taken], places[is_taken], found[is_taken]
            of_same_hash = np.flatnonzero(self._hashes[found] == hashes[asking])
            is_found = np.zeros(len(asking), np.bool_)
            asked = map(texts.__getitem__, asking[of_same_hash].tolist())
            is_found[of_same_hash] = list(map(operator.eq, self._texts(found[of_same_hash]), asked))
            numbers[asking[is_found]] = found[is_found]
            asking, places = asking[~is_found], (places[~is_found] + 1) % len(self._places)
        return numbers

    def _texts(self, numbers: Indices) -> list[memoryview]:
        first, later, size = self._first.data, self._later.data, len(self._first)
        starts, stops = self._bounds[numbers].tolist(), self._bounds[numbers + 1].tolist()
        return [
            first[start:stop] if stop <= size else later[start - size : stop - size]
            for start, stop in zip(starts, stops, strict=True)
        ]

    def _append(self, texts: Sequence[bytes], hashes: Hashes) -> None:
        start, stop = self._count, self._count + len(texts)
        if stop > len(self._hashes):
            self._bounds = grown(self._bounds, start + 1, stop + 1)
            self._hashes = grown(self._hashes, start, stop)
        text, bounds = joined(texts)
        used = int(self._bounds[start]) - len(self._first)
        if used + len(text) > len(self._later):
            self._later = grown(self._later, used, used + len(text))
        self._later[used : used + len(text)] = text
        self._bounds[start + 1 : stop + 1] = bounds[1:] + self._bounds[start]
        self._hashes[start:stop] = hashes
        self._count = stop
        if _PLACES_PER_ID * stop > len(self._places):
            self._rebuild(2 * _PLACES_PER_ID * stop)
        else:
            self._settle(np.arange(start + 1, stop + 1, dtype=np.int32), hashes)

    def _rebuild(self, size: int) -> None:
        """A table of `size` places."""
        self._places = np.full(size, _EMPTY, np.int32)
        self._settle(np.arange(1, self._count + 1, dtype=np.int32), self._hashes[: self._count])

    def _settle(self, numbers: Numbers, hashes: Hashes) -> None:
        """Put numbers + 1 into the table, all at once."""
        places, wanted = self._places, self._homes(hashes)
        # Those that want an empty place take it, the last one wins; the others try the next place.
        while len(numbers):
            is_empty = places[wanted] == _EMPTY
            places[wanted[is_empty]] = numbers[is_empty]
            is_left = places[wanted] != numbers
            numbers, wanted = numbers[is_left], (wanted[is_left] + 1) % len(places)

    def _homes(self, hashes: Hashes) -> npt.NDArray[np.intp]:
        """Where the search for each hash begins."""
        homes = hashes * np.uint64(len(self._places)) >> np.uint64(_HASH_BITS)
        return homes.astype(np.intp)


def _encoded(trade_id: str) -> bytes:
    return trade_id.encode("utf-8", "surrogatepass")


def _hashes(texts: Sequence[bytes]) -> Hashes:
    return np.fromiter(map(crc32, texts), np.uint32, len(texts)) * np.uint32(_SPREAD)
