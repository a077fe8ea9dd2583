"""What an import file looks like: its first bytes, and which format they are the beginning of."""

from __future__ import annotations

import io
import re
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from tradepool.errors import Rejected
from tradepool.importers.file_text import head_of
from tradepool.importers.json_text import array_items, decode

__all__ = [
    "LEGACY_LOG",
    "LEGACY_SNAPSHOT",
    "Format",
    "Sample",
    "check_is_foreign",
    "is_ccxt",
    "is_freqtrade",
    "is_freqtrade_database",
    "is_legacy",
    "is_pool_file",
]

LEGACY_LOG = "trade_pool.log"
LEGACY_SNAPSHOT = "trades.json"
"""The names of the old bot's two files."""

_HEAD_BYTES = 1 << 20
_OWN_JOURNAL = {"tradepool_journal"}
_OWN_SNAPSHOT = {"payload", "applied"}
_OWN_TRADE = {"trade_id", "user_id", "schema_version"}
_CCXT_ROW = {"symbol", "side", "amount"}
_CCXT_MARKS = {"takerOrMaker", "info", "cost", "datetime", "order"}
"""What ccxt's rows have, and the old bot's never had."""
_SQLITE, _PARQUET = b"SQLite format 3\x00", b"PAR1"
_CSV_NAME = re.compile(r'"?(\w+)"?(?:,|$)')


class Format(StrEnum):
    """What an import file can be."""

    AUTO = "auto"
    FREQTRADE = "freqtrade"
    LEGACY = "legacy"
    CCXT = "ccxt"
    TRADEPOOL = "tradepool"


class Sample:
    """The beginning of a file, or a folder.

    Raises: Rejected when it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = b"" if path.is_dir() else head_of(path, _HEAD_BYTES)

    @cached_property
    def text(self) -> str:
        """The beginning as text, without leading space."""
        return self.head.decode("utf-8-sig", "surrogateescape").lstrip()

    @cached_property
    def first_line(self) -> Any:
        """The JSON value on the first line; None where that is none, or longer than the sample."""
        try:
            return decode(self.text.split("\n", 1)[0])
        except ValueError:
            return None

    @cached_property
    def first(self) -> dict[str, Any]:
        """The first object: on the first line, or in the array; {} where there is none."""
        is_array = self.text.startswith("[")
        found = (
            (item.value for item in array_items(io.StringIO(self.text))) if is_array else (self.first_line,)
        )
        return next((value for value in found if isinstance(value, dict)), {})


def is_freqtrade(sample: Sample) -> bool:
    """One object with freqtrade's strategies, on one line or on many; also one that is torn."""
    if not sample.text.startswith("{"):
        return False
    if sample.first_line is None:
        return sample.path.suffix != ".log"
    return isinstance(sample.first.get("strategy"), dict)


def is_freqtrade_database(sample: Sample) -> bool:
    """An SQLite file."""
    return sample.head.startswith(_SQLITE)


def is_pool_file(sample: Sample) -> bool:
    """A pool's own export: JSON lines, CSV or Parquet."""
    if sample.head.startswith(_PARQUET):
        return True
    if sample.text.startswith("{"):
        return sample.first.keys() >= _OWN_TRADE
    return set(_CSV_NAME.findall(sample.text.split("\n", 1)[0].rstrip())) >= _OWN_TRADE


def is_ccxt(sample: Sample) -> bool:
    """An array of ccxt's fills or orders; its objects alone, one on a line, are refused by its reader."""
    keys = sample.first.keys()
    return "trade_id" not in keys and keys >= _CCXT_ROW and not keys.isdisjoint(_CCXT_MARKS)


def is_legacy(sample: Sample) -> bool:
    """One of the old bot's two files, or the folder with them."""
    if sample.path.is_dir():
        return any((sample.path / name).exists() for name in (LEGACY_LOG, LEGACY_SNAPSHOT))
    return sample.text.startswith(("[", "{", "Update:"))


def check_is_foreign(sample: Sample) -> None:
    """Raises: Rejected for the files of a pool, which have the names of the old bot's two files."""
    keys = sample.first.keys()
    if keys >= _OWN_JOURNAL or (sample.text.startswith("[") and keys >= _OWN_SNAPSHOT):
        cure = "a pool restores itself from its files: tradepool recover"
        raise Rejected(
            "a pool's own file, not an import file", field="file", value=str(sample.path), cure=cure
        )
