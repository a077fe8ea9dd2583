"""Marks on a CUDA device: the book's columns stay there, a tick sends the symbol table and gets the sums.

Needs the extra `[gpu]` or `[gpu13]`. The results are those of the other backends to the last 10⁻⁸.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tradepool.pnl.book.columns import Columns, Ints
from tradepool.pnl.cuda.device import Arithmetic, CudaDevice, DeviceArray
from tradepool.pnl.cuda.rows import TILE_ROWS, DeviceRows
from tradepool.pnl.cuda.tables import ENTRY_WORDS, pack_entries
from tradepool.pnl.sums import Limbs, Sums
from tradepool.pnl.tables import Tables

__all__ = ["CudaBackend"]

_INT64_END = 2**63
_WARPS = 8
_BLOCK_ROWS_MIN = _WARPS * TILE_ROWS
# Blocks that a multiprocessor holds at once, as kernels.cu bounds them: with more the last would run alone.
_PLAIN_BLOCKS, _HALVED_BLOCKS = 3, 2
_CODE_WORDS = 4
_MONEY_SUMS = 3


class _Layout(NamedTuple):
    """Where in one array of int64 the kernels add: sums by code, then by group, then the winners."""

    codes: int
    groups: int
    words: int
    """int64 of a sum by group: 1, or 2 where 1 might overflow."""

    @property
    def groups_at(self) -> int:
        return _CODE_WORDS * self.codes

    @property
    def winners_at(self) -> int:
        return self.groups_at + _MONEY_SUMS * self.words * self.groups

    @property
    def size(self) -> int:
        """Winners are uint32."""
        return self.winners_at + -(-self.groups // 2)


class CudaBackend:
    """The backend that keeps a copy of the columns on a device.

    Raises, from any call: MemoryError when the device or pinned memory is full, RuntimeError when the driver
    fails. A call that failed can be made again on another backend; `upload` starts this one afresh.
    """

    name = "cuda"

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self.generation: object = None
        self._rows: DeviceRows | None = None
        self._staging = _Buffers(device)
        self._outcome = _Buffers(device)
        self._layout = _Layout(0, 0, 1)
        self._by_place: DeviceArray = None

    def upload(self, columns: Columns) -> None:
        """Copy all rows of `columns` to the device; those of any other are let go first."""
        self.generation = self._rows = self._by_place = None
        with self._device.active():
            self._rows = DeviceRows(self._device, columns)
        self.generation = columns.generation

    def apply(self, columns: Columns) -> None:
        """Copy the rows appended or changed since the last call; all, when the room for more is used up."""
        with self._device.active():
            is_followed = self._followed.follow(columns)
        if not is_followed:
            self.upload(columns)

    def mark(self, tables: Tables, *, groups: int, rows: bool) -> None:
        """Start marking every row; `groups` is how many there are, `rows` keeps each row's PnL."""
        followed = self._followed
        is_halved = tables.magnitude_max * max(followed.group_rows_max, _BLOCK_ROWS_MIN) >= _INT64_END
        layout = self._layout = _Layout(len(tables.limit), groups, 2 if is_halved else 1)
        with self._device.active():
            entries, limits, fees = self._send(tables)
            results = self._outcome.device(layout.size)
            results.data.memset_async(0, layout.size * results.itemsize)
            self._by_place = self._device.empty(followed.places, np.int64) if rows else None
            for first, end, is_sorted in (
                (0, followed.sorted_tiles, 1),
                (followed.sorted_tiles, followed.tiles, 0),
            ):
                if first == end:
                    continue
                self._device.launch(
                    self._kernel(tables, is_halved=is_halved),
                    self._blocks(end - first, tables.magnitude_max, is_halved=is_halved),
                    (
                        followed.lots,
                        followed.cost,
                        followed.code,
                        followed.fee_class if fees is not None else None,
                        followed.tile_runs,
                        followed.run_groups,
                        entries,
                        limits,
                        fees,
                        results,
                        layout.codes,
                        results[layout.groups_at :],
                        results[layout.winners_at :],
                        groups,
                        self._by_place,
                        first,
                        end,
                        is_sorted,
                    ),
                )

    def download(self) -> Sums:
        """The sums of the last `mark`, when they are there."""
        layout = self._layout
        with self._device.active():
            words = self._outcome.fetch(layout.size)
            by_place = None if self._by_place is None else self._by_place.get()
        sums = Sums.zeros(groups=layout.groups, codes=layout.codes, rows=None)
        by_code = words[: layout.groups_at].reshape(_CODE_WORDS, layout.codes)
        for limbs, low, high in ((sums.code_value, *by_code[:2]), (sums.code_unrealised, *by_code[2:])):
            limbs.add(slice(None), low, high)
        by_group = words[layout.groups_at : layout.winners_at].reshape(
            _MONEY_SUMS, layout.words, layout.groups
        )
        for limbs, sum_words in zip((sums.unrealised, sums.profit, sums.exposure), by_group, strict=True):
            _take(limbs, sum_words)
        sums.winners[:] = words[layout.winners_at :].view(np.uint32)[: layout.groups]
        if by_place is None:
            return sums
        return replace(sums, rows=self._followed.by_row(by_place))

    @property
    def _followed(self) -> DeviceRows:
        assert self._rows is not None, "upload comes first"
        return self._rows

    def _send(self, tables: Tables) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
        """The entries, limits and fees on the device; None for limits or fees that no row needs."""
        codes, fees = len(tables.limit), len(tables.fee_rate)
        size = ENTRY_WORDS * (codes + fees)
        words = self._staging.host(size + codes)
        words[:size] = pack_entries(tables, self._device.arithmetic).ravel()
        words[size : size + codes] = tables.limit
        sent = self._staging.send(size + codes)
        return (
            sent,
            sent[size:] if tables.partial else None,
            sent[ENTRY_WORDS * codes :] if fees > 1 else None,
        )

    def _kernel(self, tables: Tables, *, is_halved: bool) -> str:
        arithmetic = "wide" if tables.wide else "narrow"
        if self._device.arithmetic is Arithmetic.WHOLE:
            arithmetic = "whole"
        return f"mark_{arithmetic}_{'halved' if is_halved else 'plain'}"

    def _blocks(self, tiles: int, magnitude_max: int, *, is_halved: bool) -> int:
        """As many as keep the device busy, and enough that no block's sums by code leave int64."""
        wanted = -(-tiles // _WARPS)
        resident = _HALVED_BLOCKS if is_halved else _PLAIN_BLOCKS
        blocks = min(wanted, resident * self._device.multiprocessors)
        if is_halved or not magnitude_max:
            return blocks
        rounds = (_INT64_END - 1) // (magnitude_max * _BLOCK_ROWS_MIN)
        return max(blocks, -(-wanted // rounds))


class _Buffers:
    """An array of int64 on the device and its pinned twin on the host; both grow and never shrink."""

    def __init__(self, device: CudaDevice) -> None:
        self._owner = device
        self._host: Ints = np.zeros(0, np.int64)
        self._device: DeviceArray = None

    def host(self, size: int) -> Ints:
        """The host's side, of at least `size`, when the device has done with it."""
        self._owner.wait()
        if len(self._host) < size:
            self._host = self._owner.pinned(2 * size)
        return self._host

    def device(self, size: int) -> DeviceArray:
        """The device's side, of at least `size`."""
        if self._device is None or len(self._device) < size:
            self._device = None
            self._device = self._owner.empty(2 * size, np.int64)
        return self._device

    def send(self, size: int) -> DeviceArray:
        """Start to copy from the host to the device."""
        target = self.device(size)
        target[:size].set(self._host[:size])
        return target

    def fetch(self, size: int) -> Ints:
        """Copy from the device to the host and wait; good until the next call."""
        words = self.host(size)[:size]
        self.device(size)[:size].get(out=words)
        return words


def _take(limbs: Limbs, words: Ints) -> None:
    if len(words) == 1:
        limbs.absorb(words[0])
    else:
        limbs.add(slice(None), words[0], words[1])
