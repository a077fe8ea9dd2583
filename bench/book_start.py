"""How long a book of ten million positions takes from its file to the next mark.

    python bench/book_start.py [ROWS]

One process, one run. A book of made-up columns is written to a file by `dump` and read back by `load`
from a mapping of it, as a worker does when it starts; then TAIL changed positions, half of them new trades,
are taken as they come from the journal. The file is in the page cache: reading a cold disk comes on top, at
the disk's rate. Beside it: what copying as many bytes in memory takes, one compaction, the digests of all
positions, and the memory that a position takes.
"""

from __future__ import annotations

import gc
import mmap
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
from pnl_rows import FEES, MadeUpRows, market

from tradepool.pnl.book import Book
from tradepool.pnl.book.files import dump, load
from tradepool.pnl.position import Position

ROWS = 10_000_000
TAIL = 100_000
BATCH = 2000
"""Changes handed over at once."""
PARTS = 64


def book_of(rows: int) -> Book:
    """A book of made-up positions, sorted and without tombstones, with trade ids."""
    book = MadeUpRows.of(rows, market(1)).book()
    for ids in batches(trade_ids(np.random.default_rng(rows), rows)):
        book.trade_rows.slots(ids)
    book.trade_rows.add(book.columns.slot, 0)
    return book


def trade_ids(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Ids as the pool mints them: 36 characters."""
    for start in range(0, count, BATCH):
        text = rng.bytes(16 * min(BATCH, count - start)).hex()
        for at in range(0, len(text), 32):
            digits = text[at : at + 32]
            yield f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def batches(items: Iterator[str]) -> Iterator[list[str]]:
    """The items in lists of up to BATCH."""
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def tail_of(book: Book) -> list[Position]:
    """Changes as a journal brings them: known trades with other figures, and new ones."""
    rng = np.random.default_rng(1)
    known = rng.choice(book.columns.size, TAIL // 2, replace=False)
    groups = book.columns.group[known].tolist()
    ids = [*zip(book.trade_ids(known), groups, strict=True)]
    ids += zip(trade_ids(rng, TAIL // 2), groups, strict=False)
    symbols = list(market(1))
    amounts = rng.integers(1, 10**9, len(ids)).tolist()
    return [
        Position(
            trade_id=trade_id,
            user_id=book.groups.keys[group][0],
            currency="USDT",
            symbol=symbols[number % len(symbols)],
            market="linear",
            amount=Decimal(amount).scaleb(-6),
            cost=Decimal(amount).scaleb(-4),
            fee_rate=Decimal(FEES[0]),
        )
        for number, ((trade_id, group), amount) in enumerate(zip(ids, amounts, strict=True))
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    started = time.perf_counter()
    work()
    taken: float = time.perf_counter() - started
    return taken


def take(book: Book, tail: list[Position]) -> None:
    """The tail in the batches it comes in."""
    for start in range(0, len(tail), BATCH):
        book.upsert(tail[start : start + BATCH], 2)


def resident_bytes() -> int:
    """What this process holds in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block takes."""
    started = time.perf_counter()
    yield
    print(f"  {what:<44}{time.perf_counter() - started:8.3f} s")


def measure(rows: int) -> None:
    """Write, read, follow; print each step."""
    gc.collect()
    before = resident_bytes()
    book = book_of(rows)
    gc.collect()
    print(f"{rows} positions, {len(book.groups.keys)} users, a tail of {TAIL} changes:")
    print(f"  memory: {(resident_bytes() - before) / rows:.0f} bytes a position, users included")
    tail = tail_of(book)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book"
        with timed("write the file"), path.open("wb") as file:
            file.writelines(dump(book, b""))
        del book
        data = np.fromfile(path, np.uint8)
        print(f"  file: {len(data) / rows:.0f} bytes a position")
        print(f"  {'copy as many bytes in memory':<44}{seconds(data.copy):8.3f} s")
        del data
        gc.collect()
        started = time.perf_counter()
        with timed("read the file"), path.open("rb") as file:
            book, _ = load(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        with timed("take the tail"):
            take(book, tail)
        print(f"  {'warm start, both together':<44}{time.perf_counter() - started:8.3f} s")
        with timed("take the tail once more: nothing changes"):
            take(book, tail)
        with timed("compact"):
            book.compact()
        with timed(f"digests of {PARTS} parts"):
            book.digests(np.arange(len(book.groups.keys)) % PARTS, PARTS)


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
