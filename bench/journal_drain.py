"""How many lines a second the journal's writer takes from the outboxes to the disk.

    python bench/journal_drain.py [--quick] [--lines N]

Trades are added with durability `redis`, so that they wait in the outboxes as commits leave them there. Then
the clock runs: one thread reads the outboxes, parses and unpacks the entries, appends and fsyncs the lines,
publishes the watermark and trims. `appended_per_s` is the files' part of that alone, the same entries from
memory; `sets_per_s` are pipelined SETs of the mean line's size on the same server, in the same rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from bench.measurement import Numbers, median_ratio, medians, per_second, rounds_of, run
from bench.pool_load import pin_append_only_file, trades
from bench.set_rate import SetClients
from tradepool import Settings, TradePool
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.files.lines import JournalLine, NewLine
from tradepool.files.reading import read_lines
from tradepool.journaling.recovery import recover
from tradepool.journaling.writer import JournalWriter
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Durability
from tradepool.store.connection import connect
from tradepool.store.keys import Keys

ROUNDS = 5
LINES = 60_000
"""A round."""
SET_ROUND_S = 1.0
_READ_FIELDS = JournalLine.__struct_fields__[1:]
GROUP_LINES = 10_000
"""Lines to a commit where only the files are measured: as many as the writer takes at once."""


class Stopwatch:
    """Lines a second, and how many they were to a second of this process's CPU, round by round."""

    def __init__(self) -> None:
        self._cpu_rates: list[float] = []

    def rate(self, work: Callable[[], object], lines: int) -> float:
        """Lines a second of `work`, which makes `lines`."""
        cpu_s = time.process_time()
        rate = per_second(work, lines)
        self._cpu_rates.append(lines / (time.process_time() - cpu_s))
        return rate

    def per_cpu_s(self) -> float:
        """The median of the rounds."""
        return statistics.median(self._cpu_rates)


class Drain:
    """A store with its journal's writer, stepped by hand."""

    def __init__(self, pool: TradePool, journal: Journal, writer: JournalWriter) -> None:
        self._pool = pool
        self._writer = writer
        self.journal = journal
        self._filled = 0

    def fill(self, lines: int) -> None:
        """Add trades; their changes wait in the outboxes."""
        self._pool.add_trades(list(trades(self._filled, lines)))
        self._filled += lines

    def empty(self) -> None:
        """Journal all that waits."""
        while self._writer.step(block_ms=None):
            pass

    def rate(self, lines: int, stopwatch: Stopwatch) -> float:
        """Lines a second from outboxes that hold `lines`."""
        self.fill(lines)
        return stopwatch.rate(self.empty, lines)


@contextmanager
def opened(folder: Path, server: EmbeddedServer) -> Iterator[Drain]:
    """A pool that acknowledges what the server has, and its journal."""
    settings = Settings(redis_url=server.url, data_dir=folder, durability=Durability.REDIS)
    keys = Keys(settings.shard_count)
    with ExitStack() as stack:
        client = stack.enter_context(connect(settings))
        pin_append_only_file(client)
        journal = stack.enter_context(Journal(folder / JOURNAL_NAME, settings.shard_count))
        recover(client, keys, journal, settings)
        writer = JournalWriter(client, keys, journal)
        writer.take_over()
        yield Drain(stack.enter_context(TradePool.connect(settings)), journal, writer)


def append_rate(folder: Path, lines: list[NewLine], stopwatch: Stopwatch) -> float:
    """Lines a second into a journal of their own, groups fsynced."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        Journal(Path(place) / JOURNAL_NAME, 256) as journal,
    ):
        return stopwatch.rate(lambda: append(journal, lines), len(lines))


def append(journal: Journal, lines: list[NewLine]) -> None:
    """Append all, a group at a time."""
    for first in range(0, len(lines), GROUP_LINES):
        group = lines[first : first + GROUP_LINES]
        journal.append(group)
        journal.commit(dict.fromkeys({line.shard for line in group}, f"{first + 1}-0"))


def lines_of(log: Path, count: int) -> list[NewLine]:
    """The first `count` lines of a journal, as they were before they were numbered."""
    return [new_line(line) for line in islice(read_lines(log), count)]


def new_line(line: JournalLine) -> NewLine:
    """The line without its number; the ids of the bench need no escaping."""
    fields = ((new, getattr(line, old)) for new, old in zip(NewLine._fields, _READ_FIELDS, strict=True))
    values: dict[str, Any] = {name: v.encode() if isinstance(v, str) else v for name, v in fields}
    return NewLine(**values)._replace(record=bytes(line.record))


def measure(*, quick: bool, lines: int | None = None) -> Numbers:
    """Medians over rounds that alternate between draining, appending alone and plain SETs."""
    count = lines or (LINES // 6 if quick else LINES)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedServer(folder))
        drain = stack.enter_context(opened(folder, server))
        draining, appending = Stopwatch(), Stopwatch()
        drain.fill(count)
        drain.empty()
        kept = lines_of(drain.journal.path, count)
        line_bytes = drain.journal.point.offset // count
        clients = stack.enter_context(SetClients(server.url, line_bytes))
        results = rounds_of(
            2 if quick else ROUNDS,
            drained_per_s=lambda: drain.rate(count, draining),
            appended_per_s=lambda: append_rate(folder, kept, appending),
            sets_per_s=lambda: clients.rate(SET_ROUND_S),
        )
    return {
        "line_bytes": line_bytes,
        **medians(results),
        "drained_per_cpu_s": draining.per_cpu_s(),
        "appended_per_cpu_s": appending.per_cpu_s(),
        "drained_ratio": median_ratio(results["drained_per_s"], results["sets_per_s"]),
    }


if __name__ == "__main__":
    run(measure)
