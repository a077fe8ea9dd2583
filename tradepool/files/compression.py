"""Finished segments, compressed: written once, read as a stream in bounded memory.

A compressed segment is one zstd frame, which `zstdcat` reads like any other, and a skippable frame that
holds the CRC-32 of the bytes before it. The frame alone would not do: a few of its bits mean nothing,
and of a file that was cut short the decompressor only says that there is no more. It has no checksum of
its content: the lines have theirs, and those tell which one is damaged.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from tradepool.files.durable import replacing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["InflateError", "compress", "inflating"]

_LEVEL = 1
"""Of journal lines it makes less than higher ones do, at several times their speed."""
_PART_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 17
"""zstd's own: reading by as much, damage is met no earlier than in the block that has it."""
_TRAILER_START = b"\x5e\x2a\x4d\x18\x04\x00\x00\x00"
"""A skippable frame's magic number, then its length: the four bytes of the checksum."""
_TRAILER_BYTES = len(_TRAILER_START) + 4


class InflateError(Exception):
    """The compressed bytes are damaged: what was read before this is all that can be read."""


def compress(source: Path, target: Path, before_each_part: Callable[[], None]) -> None:
    """Write `source` compressed to `target`; durable on return.

    `before_each_part` is called for every MiB; what it raises ends the work, and `target` is as it was.
    Raises: OSError.
    """
    with source.open("rb") as plain, replacing(target) as output:
        size = os.fstat(plain.fileno()).st_size
        compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=size)
        crc = 0
        while part := plain.read(_PART_BYTES):
            before_each_part()
            crc = _written(output, compressor.compress(part), crc)
        crc = _written(output, compressor.flush(), crc)
        output.write(_trailer(crc))


def inflating(path: Path) -> io.BufferedReader:
    """The content of the compressed file at `path`, from its beginning, as a stream that cannot seek.

    Reading from it raises InflateError, also at its end when any byte of the file is not as it was
    written. Raises: OSError.
    """
    return io.BufferedReader(_Inflating(path.open("rb", buffering=0)), _BLOCK_BYTES)


def _written(output: BinaryIO, part: bytes, crc: int) -> int:
    output.write(part)
    return zlib.crc32(part, crc)


def _trailer(crc: int) -> bytes:
    return _TRAILER_START + crc.to_bytes(4, "little")


class _Summed:
    """The compressed bytes on their way to the decompressor: all but the trailer, with their checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = max(0, os.fstat(file.fileno()).st_size - _TRAILER_BYTES)
        self._crc = 0
        self._is_whole: bool | None = None

    def read(self, size: int) -> bytes:
        part = self._file.read(min(size, self._left))
        self._left -= len(part)
        self._crc = zlib.crc32(part, self._crc)
        return part

    def is_whole(self) -> bool:
        """Whether all was read, and was what had been written."""
        if self._is_whole is None:
            self._is_whole = self._left == 0 and self._file.read(_TRAILER_BYTES) == _trailer(self._crc)
        return self._is_whole


class _Inflating(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._summed = _Summed(file)
        self._stream = zstandard.ZstdDecompressor().stream_reader(cast("BinaryIO", self._summed))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        try:
            count = self._stream.readinto(buffer)
        except zstandard.ZstdError as problem:
            raise InflateError(str(problem)) from problem
        if count == 0 and not self._summed.is_whole():
            raise InflateError("its bytes are not those that were written")
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
