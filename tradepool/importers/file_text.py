"""The text of an import file, read as a stream; of a `.zip`, the text of the result inside."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from tradepool.errors import Rejected
from tradepool.importers.json_text import decode

__all__ = ["begins_array", "head_of", "open_text", "read_document"]

DOCUMENT_BYTES_MAX = 1 << 30
"""What is one JSON value is held in memory whole; lists and lines are not."""
_SPACE_CHARS = 4096


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """The file's text; bytes that are no UTF-8 become surrogates, which the model refuses by their row.

    Raises: Rejected when it cannot be read.
    """
    with _open_bytes(path) as data:
        # "\n" translates nothing: a position counts lines as editors do.
        yield io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def head_of(path: Path, bytes_max: int) -> bytes:
    """The first bytes of the file, or of the result inside a `.zip`. Raises: Rejected, as `open_text`."""
    with _open_bytes(path) as data:
        return data.read(bytes_max)


def read_document(path: Path) -> object:
    """The one JSON value of the file. Raises: Rejected when it is none, or too large to be held."""
    with open_text(path) as text:
        content = text.read(DOCUMENT_BYTES_MAX + 1)
    if len(content) > DOCUMENT_BYTES_MAX:
        cure = "split it and import the parts"
        raise Rejected("larger than 1 GiB", field="file", value=str(path), cure=cure)
    try:
        return decode(content)
    except ValueError as error:
        raise Rejected(str(error), field="file", value=str(path), cure="export it again") from error


def begins_array(text: TextIO) -> bool:
    """Whether the text, which is at its beginning and stays there, is that of a JSON array."""
    start = ""
    while not start and (more := text.read(_SPACE_CHARS)):
        start = more.lstrip()
    text.seek(0)
    return start.startswith("[")


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, _opened(archive, path) as data:
                yield data
        else:
            with path.open("rb") as data:
                yield data
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Rejected(
            problem, field="file", value=str(path), cure="check its name and your rights"
        ) from error


def _opened(archive: zipfile.ZipFile, path: Path) -> IO[bytes]:
    try:
        return archive.open(_result_in(archive, path))
    except RuntimeError as error:
        # Encrypted, or packed in a way that is not known here.
        cure = "unpack it, and give the .json inside"
        raise Rejected(
            "a .zip that cannot be unpacked here", field="file", value=str(path), cure=cure
        ) from error


def _result_in(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The result inside a freqtrade `.zip`: the names of all other members begin with its name."""
    results = [member for member in archive.infolist() if member.filename.endswith(".json")]
    if not results:
        cure = "give freqtrade's own backtest-result-*.zip, or the .json inside"
        raise Rejected("no result inside", field="file", value=str(path), cure=cure)
    return min(results, key=lambda member: len(member.filename))
