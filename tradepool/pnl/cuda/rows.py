"""The rows of a book in a device's memory, in the tiles of kernels.cu."""

from __future__ import annotations

import numpy as np

from tradepool.pnl.book.columns import Columns, Ints
from tradepool.pnl.book.runs import Runs
from tradepool.pnl.cuda.device import THREADS, CudaDevice

__all__ = ["HEAD", "TILE_ROWS", "DeviceRows"]

TILE_ROWS = 1024
HEAD = np.uint32(1 << 31)
"""The bit of a code that says that a run of the row's group begins here."""

_TAIL_SHARE = 8
_TAIL_TILES_MIN = 4
_REWRITE_BLOCKS_MAX = 1024
_FEE_SHIFT = 32


class DeviceRows:
    """The rows of one generation of columns.

    The sorted part is padded to whole tiles with rows that are worth nothing, then comes the tail, with
    room to grow. Within a generation only new and changed rows travel.
    """

    def __init__(self, device: CudaDevice, columns: Columns) -> None:
        self._device = device
        self._runs = Runs()
        self._seen = 0
        self._sorted_size = min(columns.sorted_size, columns.size)
        self.sorted_tiles = _tiles(self._sorted_size)
        self.tiles = self.sorted_tiles
        room = max(columns.size // _TAIL_SHARE, _TAIL_TILES_MIN * TILE_ROWS)
        self._tiles_max = self.sorted_tiles + _tiles(columns.size - self._sorted_size + room)
        places = self._tiles_max * TILE_ROWS
        self.lots = device.zeros(places, np.int64)
        self.cost = device.zeros(places, np.int64)
        self.code = device.zeros(places, np.uint32)
        self.fee_class = device.zeros(places, np.uint16)
        self.tile_runs = device.zeros(self._tiles_max, np.int64)
        self._run_starts: Ints = np.zeros(0, np.int64)
        runs = int(np.count_nonzero(np.diff(columns.group[: self._sorted_size], prepend=-1)))
        self.run_groups = device.zeros(runs + places - self._sorted_size, np.uint32)
        self.follow(columns)

    @property
    def size(self) -> int:
        """How many rows there are, without the padding."""
        return self._runs.rows

    @property
    def places(self) -> int:
        """How many rows there are with the padding."""
        return self.tiles * TILE_ROWS

    @property
    def group_rows_max(self) -> int:
        """How many rows the largest group has."""
        return self._runs.longest

    def follow(self, columns: Columns) -> bool:
        """Take new and changed rows; False, and nothing taken, when the tail has outgrown its room."""
        if self.sorted_tiles + _tiles(columns.size - self._sorted_size) > self._tiles_max:
            return False
        if columns.size > self.size:
            self._append(columns)
        self._rewrite(columns)
        return True

    def by_row(self, by_place: Ints) -> Ints:
        """What belongs to the rows of the book, out of an array by place on the device."""
        tail = self.sorted_tiles * TILE_ROWS
        return np.concatenate(
            [by_place[: self._sorted_size], by_place[tail : tail + self.size - self._sorted_size]]
        )

    def _append(self, columns: Columns) -> None:
        first, known_runs = self.size, len(self._runs.groups)
        self._runs.follow(columns)
        starts = self._runs.starts[known_runs:].astype(np.int64)
        self._run_starts = np.concatenate([self._run_starts, self._places(starts)])
        groups = self._runs.groups[known_runs:].astype(np.uint32)
        if len(groups):
            self._device.fill(self.run_groups[known_runs : known_runs + len(groups)], groups)
        heads = np.zeros(columns.size - first, np.uint32)
        heads[starts - first] = HEAD
        codes = columns.code[first:].astype(np.uint32) | heads
        seam = max(first, self._sorted_size)
        for start, stop in ((first, self._sorted_size), (seam, columns.size)):
            if start < stop:
                self._upload(columns, start, stop, codes[start - first : stop - first])
        self._count_runs(first)

    def _upload(
        self, columns: Columns, start: int, stop: int, codes: np.ndarray[tuple[int], np.dtype[np.uint32]]
    ) -> None:
        place = int(self._places(np.array([start]))[0])
        for target, source in (
            (self.lots, columns.lots[start:stop]),
            (self.cost, columns.cost[start:stop]),
            (self.fee_class, columns.fee_class[start:stop]),
            (self.code, codes),
        ):
            self._device.fill(target[place : place + stop - start], source)

    def _count_runs(self, first: int) -> None:
        """How many runs begin before each tile, from the tile on in which row `first` is."""
        self.tiles = self.sorted_tiles + _tiles(self.size - self._sorted_size)
        first_tile = int(self._places(np.array([first]))[0]) // TILE_ROWS
        tiles = np.arange(first_tile, self.tiles) * TILE_ROWS
        runs = self._run_starts.searchsorted(tiles).astype(np.int64)
        self._device.fill(self.tile_runs[first_tile : self.tiles], runs)

    def _rewrite(self, columns: Columns) -> None:
        rows = np.unique(np.array(columns.touched[self._seen :], np.int64))
        self._seen = len(columns.touched)
        if not len(rows):
            return
        fee_class = columns.fee_class[rows].astype(np.int64)
        packed = columns.code[rows].astype(np.int64) | fee_class << _FEE_SHIFT
        changes = self._device.empty(4 * len(rows), np.int64)
        figures = [self._places(rows), columns.lots[rows], columns.cost[rows], packed]
        self._device.fill(changes, np.concatenate(figures))
        blocks = min(-(-len(rows) // THREADS), _REWRITE_BLOCKS_MAX)
        arguments = (changes, len(rows), self.lots, self.cost, self.code, self.fee_class)
        self._device.launch("rewrite_rows", blocks, arguments)

    def _places(self, rows: Ints) -> Ints:
        gap = self.sorted_tiles * TILE_ROWS - self._sorted_size
        return rows + gap * (rows >= self._sorted_size)


def _tiles(rows: int) -> int:
    return -(-rows // TILE_ROWS)
