"""The journal's files, read by nobody else's code: from docs/file-formats.md, without tradepool."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec
import zstandard

__all__ = ["JournalFiles", "Line", "place_of", "read_journal"]

_NAME = re.compile(r"trade_pool\.(\d{8})\.log(\.zst)?")
_ACTIVE = "trade_pool.log"
_SUFFIX_BYTES = 17


class Line(msgspec.Struct, frozen=True):
    """An entry, with the names that it has in the file."""

    q: int
    s: int
    x: str
    i: int
    k: str
    id: str
    e: str
    w: str
    v: int
    d: str
    p: str
    st: str
    r: msgspec.Raw

    @property
    def digest(self) -> str:
        """What the digest of the record's JSON is, whatever the line says."""
        return blake2b(bytes(self.r), digest_size=8).hexdigest()

    def __str__(self) -> str:
        """The line in short, for whoever looks for what went wrong."""
        made = f"x={self.x} e={self.e} w={self.w} d={self.d} p={self.p}"
        return f"q={self.q} {self.k} {self.id!r} v={self.v} {made}"


class _Commit(msgspec.Struct, frozen=True):
    commit: dict[int, str]
    q: int


class JournalFiles:
    """What the files hold: `lines` in order, `history` of each record, `problems` of the files themselves."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.history: dict[str, list[Line]] = defaultdict(list)
        self.positions: dict[int, str] = {}
        self.problems: list[str] = []
        self._pending: list[Line] = []

    def take(self, body: bytes, where: str) -> None:
        """One line whose checksum is right."""
        if not body.startswith(b'{"commit":'):
            self._pending.append(msgspec.json.decode(body, type=Line))
            return
        commit = msgspec.json.decode(body, type=_Commit)
        for line in self._pending:
            if line.q != len(self.lines) + 1:
                self.problems.append(f"{where}: entry {line.q} follows {len(self.lines)}")
            self.lines.append(line)
            self.history[line.id].append(line)
        if commit.q != len(self.lines):
            self.problems.append(f"{where}: the commit of {commit.q} follows entry {len(self.lines)}")
        for shard, position in commit.commit.items():
            if place_of(position) <= place_of(self.positions.get(shard, "0-0")):
                self.problems.append(f"{where}: shard {shard} goes back to {position}")
            self.positions[shard] = position
        self._pending = []


def read_journal(data_dir: Path) -> JournalFiles:
    """Read every segment in order. A torn tail behind the last commit of the last one counts as nothing."""
    found = JournalFiles()
    crc = 0
    for path, data in _segments(data_dir):
        for number, line in enumerate(data.splitlines(keepends=True), start=1):
            body, suffix = line[:-_SUFFIX_BYTES], line[-_SUFFIX_BYTES:]
            # A segment's header may begin the chain anew or continue it.
            chained = [zlib.crc32(body, crc), *([zlib.crc32(body)] if number == 1 else [])]
            right = next((c for c in chained if suffix == b',"c":"%08x"}\n' % c), None)
            if right is None:
                if path.name != _ACTIVE or b'{"commit":' in data.partition(line)[2]:
                    found.problems.append(f"{path.name}:{number}: damaged, and not at the end")
                break
            crc = right
            if number > 1:
                found.take(body + b"}", f"{path.name}:{number}")
    return found


def place_of(position: str) -> tuple[int, int]:
    """A position as numbers."""
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)


def _segments(data_dir: Path) -> Iterator[tuple[Path, bytes]]:
    numbered: dict[int, Path] = {}
    for path in sorted(data_dir.iterdir(), reverse=True):
        name = _NAME.fullmatch(path.name)
        if name is not None:
            # The plain file sorts before its compressed twin, so it wins where both are there.
            numbered[int(name[1])] = path
    for _, path in sorted(numbered.items()):
        data = path.read_bytes()
        yield path, zstandard.decompress(data) if path.suffix == ".zst" else data
    yield data_dir / _ACTIVE, (data_dir / _ACTIVE).read_bytes()
