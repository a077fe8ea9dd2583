"""Bodies of records as they are stored: compressed against a sample of what records look like.

A third of the JSON is left, or less (docs/adr/0021 has the sizes). The first byte tells the form: `{` is
JSON as it is (nothing was gained), 1 a zstd frame without its magic number, made with `SAMPLE_1`.
"""

from __future__ import annotations

import threading

import zstandard

from tradepool.errors import Corrupt
from tradepool.model.record_sample import SAMPLE_1

__all__ = ["packed", "unpacked"]

_FORM_1 = b"\x01"
_PLAIN = b"{"
_RECORD_BYTES = 700
"""A usual record's JSON: zstd sizes its tables by it."""
_SAMPLE = zstandard.ZstdCompressionDict(SAMPLE_1, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
# Half the time of the library's own choice for level 1, and values a twelfth longer.
_FRAME = zstandard.ZstdCompressionParameters.from_level(
    -1,
    source_size=_RECORD_BYTES,
    dict_size=len(SAMPLE_1),
    min_match=7,
    hash_log=13,
    format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    write_content_size=True,
    write_checksum=False,
    write_dict_id=False,
)
_SAMPLE.precompute_compress(compression_params=_FRAME)


class _Codec(threading.local):
    """zstd's contexts serve one thread each."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(dict_data=_SAMPLE, compression_params=_FRAME).compress
        self.decompress = zstandard.ZstdDecompressor(
            dict_data=_SAMPLE, format=zstandard.FORMAT_ZSTD1_MAGICLESS
        ).decompress


_codec = _Codec()


def packed(body: bytes) -> bytes:
    """`body`, a JSON object, as it is stored; the same bytes for the same body."""
    frame = _codec.compress(body)
    return _FORM_1 + frame if len(frame) < len(body) else body


def unpacked(stored: bytes, at: int = 0) -> bytes:
    """The JSON object in `stored` from byte `at` on. Raises: Corrupt when there is none."""
    body = at + 1
    form = stored[at:body]
    if form == _PLAIN:
        return stored[at:]
    if form != _FORM_1:
        raise Corrupt(f"a record's body begins with {form!r}; only a newer release can read it")
    try:
        return _codec.decompress(stored[body:])
    except (zstandard.ZstdError, MemoryError) as problem:
        raise Corrupt(f"a record's body cannot be unpacked: {problem}") from problem
