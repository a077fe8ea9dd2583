"""Where measurements write: a new folder that holds nobody's books, removed in the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradepool.errors import Misconfigured, ResourceUnavailable
from tradepool.files.journal import JOURNAL_NAME

__all__ = ["scratch_folder"]


@contextmanager
def scratch_folder(beside: Path | None) -> Iterator[Path]:
    """A new folder in `beside`, or where this machine keeps temporary files; gone after the block.

    Raises: Misconfigured when `beside` is a pool's folder, or no folder; ResourceUnavailable when it cannot
    be written.
    """
    if beside is not None and not beside.is_dir():
        raise Misconfigured(f"{beside} is no folder; name one on the disk to measure")
    if beside is not None and (beside / JOURNAL_NAME).exists():
        raise Misconfigured(f"{beside} holds a pool; name a folder beside it, on the same disk")
    try:
        folder = tempfile.TemporaryDirectory(prefix="tradepool-bench-", dir=beside)
    except OSError as problem:
        raise ResourceUnavailable(
            f"no scratch folder can be made: {problem}; name another folder"
        ) from problem
    with folder as name:
        yield Path(name)
