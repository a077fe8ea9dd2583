"""How fast an empty server is filled again, against plain SETs of values of the same size.

    python bench/recovery.py [--trades N]

The server is emptied and recovered, from the journal alone and from a snapshot. The denominator is
`set_rate.py`, same server, same run. `*_cpu_us` is processor time a trade: of this machine's processes that
fill, of the server, and of the steps of the work one by one, repeated here over lines of the same journal.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

from bench.measurement import Numbers, median_ratio, medians, rounds_of, run
from bench.pool_load import pin_append_only_file, trades, value_bytes
from bench.set_rate import SetClients
from tradepool import Settings, TradePool
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.files.lines import JournalLine
from tradepool.files.reading import read_lines
from tradepool.files.snapshot_info import SNAPSHOT_NAME
from tradepool.journaling.recovery import recover
from tradepool.model import codec
from tradepool.server.embedded import EmbeddedServer
from tradepool.store.keys import Keys
from tradepool.store.plan import RecordChange, draft_of

__all__ = ["measure"]

ROUNDS = 5
SET_S = 1.0
_STEP_LINES = 20_000
_STEP_BATCH = 512


def measure(*, quick: bool, trades: int | None = None) -> Numbers:
    """Trades a second of both ways, the ratio of the first to SETs, and what each step costs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = _make_pool(folder, trades or (20_000 if quick else 200_000))
        with EmbeddedServer(folder) as server:
            settings = Settings(redis_url=server.url, data_dir=folder)
            client = server.client()
            pin_append_only_file(client)
            with Journal(folder / JOURNAL_NAME, settings.shard_count) as journal:
                bench = _Recovery(client, journal, settings)
                with SetClients(server.url, size) as setters:
                    results = rounds_of(
                        2 if quick else ROUNDS,
                        recovered_per_s=bench.from_journal,
                        from_snapshot_per_s=bench.from_snapshot,
                        sets_per_s=lambda: setters.rate(SET_S),
                    )
                numbers = medians(results) | bench.costs | _steps(journal.path, settings)
            client.close()
    numbers["recovery_ratio"] = median_ratio(results["recovered_per_s"], results["sets_per_s"])
    return numbers


def _make_pool(folder: Path, count: int) -> int:
    """A pool of `count` trades and its snapshot; the size of a stored value."""
    with TradePool.embedded(folder) as pool:
        pin_append_only_file(pool.redis)
        pool.add_trades(trades(0, count))
        pool.write_snapshot()
        return value_bytes(pool, pool.get_recent_trades(1)[0].trade_id)


class _Recovery:
    """Recovers again and again, and keeps what the last time from the journal cost."""

    def __init__(self, client: redis.Redis, journal: Journal, settings: Settings) -> None:
        self._client = client
        self._journal = journal
        self._settings = settings
        self._trades = sum(digest.count for digest in journal.point.digests.values())
        self.costs: Numbers = {}

    def from_snapshot(self) -> float:
        """Trades a second."""
        return self._recovered()

    def from_journal(self) -> float:
        """Trades a second, the snapshot put aside."""
        snapshot = self._settings.data_dir / SNAPSHOT_NAME
        aside = snapshot.rename(snapshot.with_suffix(".aside"))
        server_s, own_s = self._server_cpu_s(), _own_cpu_s()
        rate = self._recovered()
        self.costs = {
            "server_cpu_us": (self._server_cpu_s() - server_s) / self._trades * 1e6,
            "filling_cpu_us": (_own_cpu_s() - own_s) / self._trades * 1e6,
        }
        aside.rename(snapshot)
        return rate

    def _recovered(self) -> float:
        self._client.flushall()
        self._client.script_flush()
        report = recover(self._client, Keys(self._settings.shard_count), self._journal, self._settings)
        return self._trades / report.seconds

    def _server_cpu_s(self) -> float:
        used = self._client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _own_cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _steps(log: Path, settings: Settings) -> Numbers:
    """Processor time a line of each step, one after the other."""
    lines = list(itertools.islice(read_lines(log), _STEP_LINES))
    changes: list[RecordChange] = []
    return {
        "step_read_cpu_us": _cost(lines, lambda: len(list(itertools.islice(read_lines(log), _STEP_LINES)))),
        "step_decode_cpu_us": _cost(
            lines, lambda: [codec.decode_trade(bytes(line.record)) for line in lines]
        ),
        "step_pack_cpu_us": _cost(lines, lambda: [line.value for line in lines]),
        "step_change_cpu_us": _cost(lines, lambda: changes.extend(map(_change, lines))),
        "step_plan_cpu_us": _cost(lines, lambda: _plan(changes, settings)),
    }


def _cost(lines: list[JournalLine], work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) / len(lines) * 1e6


def _change(line: JournalLine) -> RecordChange:
    """Decoded and packed again: what is left of its cost is the record's own."""
    trade = codec.decode_trade(bytes(line.record))
    return RecordChange(
        kind=line.kind,
        record_id=line.record_id,
        user_id=trade.user_id,
        before=None,
        after=line.value,
        trade_after=trade,
        command_id="",
    )


def _plan(changes: list[RecordChange], settings: Settings) -> None:
    keys = Keys(settings.shard_count)
    for first in range(0, len(changes), _STEP_BATCH):
        draft = draft_of(keys, 0, changes[first : first + _STEP_BATCH], recent_max=settings.recent_max)
        for _ in draft.commands():
            pass


if __name__ == "__main__":
    run(measure)
