"""Checksums of the archive's parts: `part-00001.parquet.sha256` vouches for every byte of the part beside it.

A seal is written before its part, in the form that `sha256sum -c` takes. While a part is being replaced it
has a line for the old content and one for the new one, so that at every instant, and after a crash at any,
the part is one that its seal vouches for. A part without a seal is of a release that wrote none.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tradepool.errors import Corrupt
from tradepool.files.durable import replacing

__all__ = ["adopt", "check_seal", "is_sealed", "seal_next", "settle_seal"]

_ATTEMPTS_MAX = 5
"""Looks at a part that is being replaced meanwhile."""
_SUFFIX = ".sha256"


def is_sealed(part: Path) -> bool:
    """Whether there is a checksum of `part`."""
    return _seal_of(part).exists()


def check_seal(part: Path) -> None:
    """Hold every byte of `part` against its seal, if it has one; it may be replaced meanwhile.

    Raises: Corrupt for a part that is not what the seal vouches for; OSError.
    """
    seal = _read(part)
    for _ in range(_ATTEMPTS_MAX):
        if seal is None or _line(part, part) in _lines(part, seal):
            return
        before, seal = seal, _read(part)
        if seal == before:
            break
    raise Corrupt(
        f"{part.parent.name}/{part.name} is not what {part.name}{_SUFFIX} vouches for; restore its day from "
        "a backup"
    )


def seal_next(part: Path, fresh: Path) -> None:
    """Vouch for `fresh`, which is about to become `part`, and for what `part` is until then; durably.

    Raises: Corrupt for a part that its seal does not vouch for; OSError.
    """
    kept: list[bytes] = []
    if part.exists():
        check_seal(part)
        kept.append(_line(part, part))
    _write(part, [*kept, _line(part, fresh)])


def settle_seal(part: Path) -> None:
    """Vouch only for what `part` is now; durable on return.

    Raises: Corrupt for a part that its seal does not vouch for; OSError.
    """
    seal = _read(part)
    if seal is not None and len(_lines(part, seal)) > 1:
        check_seal(part)
        adopt(part)


def adopt(part: Path) -> None:
    """Vouch for `part` as it is: the caller has made sure that it is right. Raises: OSError."""
    _write(part, [_line(part, part)])


def _seal_of(part: Path) -> Path:
    return part.with_name(part.name + _SUFFIX)


def _read(part: Path) -> bytes | None:
    try:
        return _seal_of(part).read_bytes()
    except FileNotFoundError:
        return None


def _write(part: Path, lines: list[bytes]) -> None:
    with replacing(_seal_of(part)) as file:
        file.write(b"".join(dict.fromkeys(lines)))


def _line(part: Path, content: Path) -> bytes:
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{digest}  {part.name}\n".encode()


def _lines(part: Path, seal: bytes) -> list[bytes]:
    line = rb"[0-9a-f]{64}  " + re.escape(part.name.encode()) + rb"\n"
    if not re.fullmatch(rb"(" + line + rb")+", seal):
        raise Corrupt(
            f"{part.parent.name}/{part.name}{_SUFFIX} is no checksum of it; restore its day from a backup"
        )
    return seal.splitlines(keepends=True)
