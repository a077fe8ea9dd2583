"""How many changes the journal holds, counted in the file itself while it grows."""

from __future__ import annotations

from pathlib import Path

from tradepool.files.point import Place
from tradepool.files.reading import read_groups

__all__ = ["JournalCount"]


class JournalCount:
    """Counts committed changes; each look reads only what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place: Place | None = None
        self.changes = 0

    def look(self) -> int:
        """The changes committed so far; 0 before there is a journal. Raises: Corrupt when it is damaged."""
        if not self._path.exists():
            return 0
        for group in read_groups(self._path, since=self._place):
            self.changes += len(group.lines)
            self._place = group.end
        return self.changes
