"""A million trades: recovered to the digest, from the journal and from a snapshot taken in bounded memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.journaled_trades import counters_of, user_of, write_trades
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.journaling.recovery import RecoveryReport, recover
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRADES = 1_000_000
ARCHIVED_EVERY = 10
SNAPSHOT_GROWTH_MAX = 100 << 20
"""Bytes that a process may grow by while it writes the snapshot."""

SNAPSHOT = """
import json, sys
from pathlib import Path
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.settings import Settings
from tradepool.snapshots import write_snapshot
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore
def peak_kb():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    return int(line.split()[1])
settings = Settings(redis_url=sys.argv[1], data_dir=Path(sys.argv[2]))
store = RedisStore(connect(settings), Keys(64), settings)
with Journal(settings.data_dir / JOURNAL_NAME, 64) as journal:
    list(zip(range(1000), store.scan_records(0)))
    before = peak_kb()
    info = write_snapshot(store, journal, settings.data_dir)
    after = peak_kb()
print(json.dumps({"growth": (after - before) << 10, "count": info.trades.count + info.archived.count}))
"""


def test_a_million_trades_are_recovered_to_the_digest(server_binary, tmp_path, capsys):
    with EmbeddedServer(tmp_path, overrides=["auto-aof-rewrite-percentage 0"]) as server:
        settings = Settings(redis_url=server.url, data_dir=tmp_path)
        client, keys = server.client(), Keys(settings.shard_count)
        with Journal(tmp_path / JOURNAL_NAME, settings.shard_count) as journal:
            write_trades(journal, keys, TRADES, archived_every=ARCHIVED_EVERY)
            from_journal = recover(client, keys, journal, settings)
            check(RedisStore(client, keys, settings), journal)
        taken = snapshot(server, tmp_path)
        with Journal(tmp_path / JOURNAL_NAME, settings.shard_count) as journal:
            client.flushall()
            client.script_flush()
            from_snapshot = recover(client, keys, journal, settings)
            check(RedisStore(client, keys, settings), journal)
        client.close()
        # While the server, which is the largest of all, still runs.
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    assert (from_journal.from_snapshot, from_snapshot.from_snapshot) == (0, TRADES)
    assert taken["count"] == TRADES
    assert taken["growth"] < SNAPSHOT_GROWTH_MAX
    said = [
        described("journal", from_journal),
        described("snapshot", from_snapshot),
        f"largest process of a recovery {largest} MB; snapshot grew by {taken['growth'] >> 20} MB",
    ]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *said, ""]))


def check(store: RedisStore, journal: Journal) -> None:
    point = journal.point
    for shard in range(store.keys.shard_count):
        found, expected = store.digest(shard), point.digest(shard)
        assert (found.digest, found.count) == (expected.text, expected.count)
        assert found.position == point.position(shard)
    for user_id in map(user_of, range(0, 1000, 200)):
        assert store.counters(user_id) == counters_of(TRADES, user_id, archived_every=ARCHIVED_EVERY)


def snapshot(server: EmbeddedServer, folder: Path) -> dict[str, int]:
    """Write the snapshot in a process of its own, whose memory nothing else has grown."""
    done = subprocess.run(
        [sys.executable, "-c", SNAPSHOT, server.url, folder],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def described(name: str, report: RecoveryReport) -> str:
    rate = TRADES / report.seconds
    load = psutil.getloadavg()[0]
    return (
        f"from the {name}: {report.seconds:.1f} s, {rate:,.0f} trades/s, "
        f"{report.processes} processes (load of the machine {load:.1f})"
    )
