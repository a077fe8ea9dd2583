"""Which kind of import a text is, told by its content."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from tradepool.errors import Rejected
from tradepool.importers.json_text import array_items, decode

__all__ = ["Format", "check_is_foreign", "detect"]

_OWN_JOURNAL = {"tradepool_journal"}
_OWN_TRADE = {"payload", "applied"}


class Format(StrEnum):
    """What an import file can be."""

    AUTO = "auto"
    FREQTRADE = "freqtrade"
    LEGACY = "legacy"


def detect(text: str, path: Path) -> Format:
    """The format of `text`, which was read from `path`.

    Raises: Rejected when it is none that can be imported.
    """
    start = text.lstrip()
    if start.startswith(("[", "Update:")):
        return Format.LEGACY
    if start.startswith("{"):
        return _of_object(start, path)
    cure = "give a freqtrade backtest export, an old trades.json or trade_pool.log, or the folder with both"
    raise Rejected(
        "unknown format" if start else "the file is empty", field="file", value=str(path), cure=cure
    )


def check_is_foreign(text: str, path: Path) -> None:
    """Raises: Rejected for the files of a pool, which have the names of the old bot's two files."""
    keys = _first_keys(text)
    if keys >= _OWN_JOURNAL or keys >= _OWN_TRADE:
        cure = "a pool restores itself from its files: tradepool recover"
        raise Rejected("a pool's own file, not an import file", field="file", value=str(path), cure=cure)


def _of_object(start: str, path: Path) -> Format:
    """The format of a text that begins with an object: one value, or one on each line."""
    try:
        first_line = decode(start.split("\n", 1)[0])
    except ValueError:
        # One value on many lines, or a row that is torn.
        return Format.LEGACY if path.suffix == ".log" else Format.FREQTRADE
    return Format.FREQTRADE if isinstance(first_line.get("strategy"), dict) else Format.LEGACY


def _first_keys(text: str) -> set[str]:
    """The keys of the first object on a line of its own, or in the array."""
    start = text.lstrip()
    try:
        first = next(array_items(text)).value if start.startswith("[") else decode(start.split("\n", 1)[0])
    except (ValueError, StopIteration):
        return set()
    return set(first) if isinstance(first, dict) else set()
