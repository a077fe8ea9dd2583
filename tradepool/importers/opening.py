"""Import files and folders on disk: read as text, unpacked, and given to the importer of their format."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tradepool.errors import Rejected
from tradepool.importers.detect import Format, check_is_foreign, detect
from tradepool.importers.freqtrade import read_freqtrade
from tradepool.importers.json_text import decode
from tradepool.importers.legacy import LegacyFiles, read_legacy
from tradepool.importers.rows import Defaults, Entry

__all__ = ["ImportFile", "open_import"]

_BYTES_MAX = 1 << 30
_LOG = "trade_pool.log"
_SNAPSHOT = "trades.json"


class ImportFile(NamedTuple):
    """What was opened: its format, when it was last written (µs), and every row, read as one iterates."""

    format: Format
    modified_at: int
    entries: Iterator[Entry]


def open_import(path: Path, *, file_format: Format = Format.AUTO, defaults: Defaults) -> ImportFile:
    """Open a file, or the folder of the old bot's two files.

    Raises: Rejected when it cannot be read, or (also while iterating) is not what it should be.
    """
    if path.is_dir():
        return _open_folder(path, file_format, defaults)
    text = _read(path)
    found = detect(text, path) if file_format is Format.AUTO else file_format
    if found is Format.FREQTRADE:
        return ImportFile(found, _modified_at(path), read_freqtrade(_document(text, path), defaults))
    return ImportFile(found, _modified_at(path), read_legacy(_legacy_file(text, path), defaults))


def _open_folder(path: Path, file_format: Format, defaults: Defaults) -> ImportFile:
    log, snapshot = path / _LOG, path / _SNAPSHOT
    if file_format is Format.FREQTRADE or not (log.exists() or snapshot.exists()):
        cure = f"name the file itself, or a folder with the old bot's {_SNAPSHOT} and {_LOG}"
        raise Rejected("nothing to import in this folder", field="file", value=str(path), cure=cure)
    files = LegacyFiles(
        log=_read(log) if log.exists() else None,
        snapshot=_checked_array(_read(snapshot), snapshot) if snapshot.exists() else None,
    )
    modified_at = max(_modified_at(file) for file in (log, snapshot) if file.exists())
    return ImportFile(Format.LEGACY, modified_at, read_legacy(files, defaults))


def _modified_at(path: Path) -> int:
    return path.stat().st_mtime_ns // 1000


def _legacy_file(text: str, path: Path) -> LegacyFiles:
    if text.lstrip().startswith("["):
        return LegacyFiles(snapshot=text, snapshot_name=path.name)
    return LegacyFiles(log=text, log_name=path.name)


def _checked_array(text: str, path: Path) -> str:
    if not text.lstrip().startswith("["):
        raise Rejected(
            "not a JSON array", field="file", value=str(path), cure="import the log alone, or mend the file"
        )
    return text


def _document(text: str, path: Path) -> object:
    try:
        return decode(text)
    except ValueError as error:
        raise Rejected(str(error), field="file", value=str(path), cure="export it again") from error


def _read(path: Path) -> str:
    """The file's text; bytes that are no UTF-8 become surrogates, which the model refuses by their row."""
    try:
        data = (
            _unpacked(path)
            if zipfile.is_zipfile(path)
            else _checked_size(path, path.stat().st_size).read_bytes()
        )
    except (OSError, zipfile.BadZipFile) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Rejected(
            problem, field="file", value=str(path), cure="check its name and your rights"
        ) from error
    text = data.decode("utf-8-sig", "surrogateescape")
    check_is_foreign(text, path)
    return text


def _unpacked(path: Path) -> bytes:
    """The result inside a freqtrade `.zip`: the names of all other members begin with its name."""
    with zipfile.ZipFile(path) as archive:
        results = [member for member in archive.infolist() if member.filename.endswith(".json")]
        if not results:
            cure = "give freqtrade's own backtest-result-*.zip, or the .json inside"
            raise Rejected("no result inside", field="file", value=str(path), cure=cure)
        result = min(results, key=lambda member: len(member.filename))
        _checked_size(path, result.file_size)
        return archive.read(result)


def _checked_size(path: Path, size_bytes: int) -> Path:
    if size_bytes > _BYTES_MAX:
        raise Rejected(
            "larger than 1 GiB", field="file", value=str(path), cure="split it and import the parts"
        )
    return path
