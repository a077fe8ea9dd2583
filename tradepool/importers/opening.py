"""Import files and folders on disk: what each is, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tradepool.errors import Rejected
from tradepool.importers.ccxt import read_ccxt
from tradepool.importers.detect import (
    Format,
    Sample,
    check_is_foreign,
    is_ccxt,
    is_freqtrade,
    is_freqtrade_database,
    is_legacy,
    is_pool_file,
)
from tradepool.importers.file_text import read_document
from tradepool.importers.freqtrade import read_freqtrade
from tradepool.importers.freqtrade_database import read_freqtrade_database
from tradepool.importers.legacy import read_legacy
from tradepool.importers.pool_files import read_pool_file
from tradepool.importers.rows import Defaults, Entry

__all__ = ["FORMATS", "ImportFile", "ImportFormat", "open_import"]

_CURE = (
    "give a list of ccxt's fills or orders, a freqtrade export or database, a pool's export, "
    "or an old trades.json or trade_pool.log"
)


class ImportFormat(NamedTuple):
    """A kind of file: how it is recognised, and what reads it row by row."""

    name: Format
    recognises: Callable[[Sample], bool]
    read: Callable[[Path, Defaults], Iterator[Entry]]


def _read_freqtrade_export(path: Path, defaults: Defaults) -> Iterator[Entry]:
    yield from read_freqtrade(read_document(path), defaults)


FORMATS = (
    ImportFormat(Format.FREQTRADE, is_freqtrade_database, read_freqtrade_database),
    ImportFormat(Format.TRADEPOOL, is_pool_file, read_pool_file),
    ImportFormat(Format.FREQTRADE, is_freqtrade, _read_freqtrade_export),
    ImportFormat(Format.CCXT, is_ccxt, read_ccxt),
    # Last: whatever begins like JSON might be a damaged file of the old bot.
    ImportFormat(Format.LEGACY, is_legacy, read_legacy),
)
"""Every kind of file, in the order in which they are tried."""


class ImportFile(NamedTuple):
    """What was opened: its format, when it was last written (µs), and every row, read as one iterates."""

    format: Format
    modified_at: int
    entries: Iterator[Entry]


def open_import(path: Path, *, file_format: Format = Format.AUTO, defaults: Defaults) -> ImportFile:
    """Open a file, or the folder of the old bot's two files; of a large one only the beginning is read.

    Raises: Rejected when it cannot be read, or (also while iterating) is not what it should be.
    """
    sample = Sample(path)
    check_is_foreign(sample)
    found = _choose(sample, file_format)
    return ImportFile(found.name, _modified_at(path), _begun(found.read(path, defaults)))


def _choose(sample: Sample, wanted: Format) -> ImportFormat:
    """The format that recognises the file; the named one reads it in any case, to say what is wrong."""
    named = [kind for kind in FORMATS if wanted in (Format.AUTO, kind.name)]
    found = next((kind for kind in named if kind.recognises(sample)), None)
    if found is None and (wanted is Format.AUTO or sample.path.is_dir()):
        raise _unknown(sample)
    return found or named[-1]


def _unknown(sample: Sample) -> Rejected:
    value = str(sample.path)
    if sample.path.is_dir():
        cure = "name the file itself, or a folder with the old bot's trades.json and trade_pool.log"
        return Rejected("nothing to import in this folder", field="file", value=value, cure=cure)
    problem = "unknown format" if sample.head.strip() else "the file is empty"
    return Rejected(problem, field="file", value=value, cure=_CURE)


def _begun(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same entries with the first one read: what is wrong with the whole file shows at once."""
    first = next(entries, None)
    return iter(()) if first is None else chain((first,), entries)


def _modified_at(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else (path,)
    return max(file.stat().st_mtime_ns for file in files) // 1000
