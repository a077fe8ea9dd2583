"""64-bit hashes of numbers and texts, a block at each step: the same in every process and on every machine.

A hash takes its words in one by one. Each step is a bijection of the word, so two rows that differ in one
number never have the same hash. Not made to withstand somebody who looks for collisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Ints

__all__ = ["BLOCK_ROWS", "Words", "absorb", "hashes_of", "joined", "text_hashes"]

Words = npt.NDArray[np.uint64]

BLOCK_ROWS = 1 << 14
"""Rows hashed at once: what a block needs stays in a core's cache."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_WORD_BYTES = 8
_TEXT_BYTES_MAX = 256
"""A longer text counts as its BLAKE2b, so that one of them does not make a block huge."""


def absorb(hashes: Words, *words: npt.NDArray[Any]) -> Words:
    """The hashes after taking in `words`, int64 or uint64."""
    mixed = hashes.copy()
    for each in words:
        mixed ^= each.view(np.uint64)
        mixed *= _MULTIPLIER
        mixed ^= mixed >> _SHIFT
    return mixed


def hashes_of(texts: Sequence[str]) -> Words:
    """The hash of each text."""
    return text_hashes(*joined([text.encode("utf-8", "surrogatepass") for text in texts]))


def joined(texts: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], Ints]:
    """Texts one after the other, and their bounds, as `text_hashes` takes them."""
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=bounds[1:])
    return np.frombuffer(b"".join(texts), np.uint8), bounds


def text_hashes(text: npt.NDArray[np.uint8], bounds: Ints) -> Words:
    """The hashes of texts that lie one after the other: the i-th from `bounds[i]` to `bounds[i + 1]`."""
    hashes = np.empty(len(bounds) - 1, np.uint64)
    for start in range(0, len(hashes), BLOCK_ROWS):
        block = bounds[start : start + BLOCK_ROWS + 1]
        hashes[start : start + BLOCK_ROWS] = _block_hashes(text, block)
    return hashes


def _block_hashes(text: npt.NDArray[np.uint8], bounds: Ints) -> Words:
    sizes = np.diff(bounds)
    longest = int(sizes.max())
    if longest > _TEXT_BYTES_MAX:
        return _block_hashes(*_shortened(text, bounds))
    words = -(-longest // _WORD_BYTES)
    cells = np.zeros((len(sizes), words * _WORD_BYTES), np.uint8)
    block = text[bounds[0] : bounds[-1]]
    if int(sizes.min()) == longest:
        cells[:, :longest] = block.reshape(len(sizes), longest)
    else:
        cells[np.arange(words * _WORD_BYTES) < sizes[:, np.newaxis]] = block
    columns = cells.view("<u8").astype(np.uint64, copy=False)
    # A shorter text takes in fewer words, whoever its neighbours are.
    hashes = absorb(sizes.astype(np.uint64))
    for number in range(words):
        has_word = sizes > number * _WORD_BYTES
        hashes = np.where(has_word, absorb(hashes, columns[:, number]), hashes)
    return hashes


def _shortened(text: npt.NDArray[np.uint8], bounds: Ints) -> tuple[npt.NDArray[np.uint8], Ints]:
    texts = [text[start:stop].tobytes() for start, stop in pairwise(bounds.tolist())]
    short = [each if len(each) <= _TEXT_BYTES_MAX else blake2b(each).digest() for each in texts]
    return joined(short)
