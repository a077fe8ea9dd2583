"""A file with the form of a freqtrade backtest export, and the trades themselves at its end.

    {"metadata": {name: {…}}, "strategy": {name: {"trades": […]}}, "strategy_comparison": [],
     "tradepool": {"trades": […]}}

Under `strategy` stand the trades as freqtrade's tools read them, by strategy. Floats and its fields do not
hold all of a trade, so `tradepool` has each whole, as `Trade.to_dict`: that part is what an import takes.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from tradepool.archive.columns import Stored
from tradepool.exporters.freqtrade_shape import freqtrade_shape
from tradepool.exporters.lines import json_lines

__all__ = ["freqtrade_chunks"]

NO_STRATEGY = "tradepool"
"""Stands for the strategy of trades without one."""

_encode = msgspec.json.Encoder().encode


def freqtrade_chunks(trades: Iterable[Stored]) -> Iterator[bytes]:
    """The file, piece by piece. The trades pass through temporary files: they come in no order.

    Raises: OSError when those cannot be written.
    """
    with tempfile.TemporaryFile() as shapes, tempfile.TemporaryFile() as records:
        strategies = _spooled(trades, shapes, records)
        metadata = {name: {"run_id": "", "backtest_start_time": 0} for name in strategies}
        yield b'{"metadata": ' + _encode(metadata) + b',\n"strategy": {'
        for number, (name, places) in enumerate(strategies.items()):
            opening = b'%b: {"strategy_name": %b, "total_trades": %d, "trades": [\n'
            yield (b",\n" if number else b"\n") + opening % (_encode(name), _encode(name), len(places))
            yield from _listed(_lines_at(shapes, places))
            yield b"]}"
        yield b'},\n"strategy_comparison": [],\n"tradepool": {"trades": [\n'
        records.seek(0)
        yield from _listed(records)
        yield b"]}}\n"


def _spooled(trades: Iterable[Stored], shapes: IO[bytes], records: IO[bytes]) -> dict[str, array[int]]:
    """Write each trade to both files, a line each; where each strategy's lines in `shapes` begin."""
    strategies: dict[str, array[int]] = {}
    for found in trades:
        records.writelines(json_lines([found]))
        shape = freqtrade_shape(found.trade)
        if shape is not None:
            places = strategies.setdefault(found.trade.strategy or NO_STRATEGY, array("Q"))
            places.append(shapes.tell())
            shapes.write(_encode(shape) + b"\n")
    return strategies


def _lines_at(file: IO[bytes], places: Iterable[int]) -> Iterator[bytes]:
    for place in places:
        file.seek(place)
        yield file.readline()


def _listed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines as items of a JSON array."""
    for number, line in enumerate(lines):
        yield (b"," if number else b"") + line
