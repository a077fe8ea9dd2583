"""How long a bot waits in `PoolClient.add_trade` with a spool: one trade, on the bot's disk when it returns.

    python bench/client_spool.py

The denominator is a bare insert of the same bytes into an SQLite table of one column, committed with the same
settings (WAL, synchronous=FULL), in turns with it: call by call, on the same disk. With a broker that is away
the client does nothing beside it; with one that answers it also publishes, from a thread of the same process.
No worker runs.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

from bench.measurement import Numbers, percentile, percentiles_ms, run, seconds
from bench.pool_load import trade
from tradepool import PoolClient, Settings, commanding
from tradepool.client.checks import readable_json
from tradepool.server.embedded import EmbeddedServer

__all__ = ["measure"]

CALLS = 2_000
WARM_CALLS = 50
NOWHERE = "redis://127.0.0.1:1/0"


def measure(*, quick: bool) -> Numbers:
    """Percentiles of `add_trade`, broker away and broker answering, and of the bare insert."""
    calls = CALLS // (4 if quick else 1)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder) / "server", port=0) as server:
        settings = Settings(redis_url=server.url, data_dir=Path(folder) / "pool")
        away = settings.model_copy(update={"broker_url": NOWHERE})
        return {
            **_times("away", away, Path(folder), calls),
            **_times("publishing", settings, Path(folder), calls),
        }


def _times(name: str, settings: Settings, folder: Path, calls: int) -> Numbers:
    added: list[float] = []
    inserted: list[float] = []
    with (
        closing(_bare_table(folder / f"{name}.bare")) as bare,
        closing(PoolClient.connect(settings, spool=folder / f"{name}.spool")) as client,
    ):
        for number in range(WARM_CALLS + calls):
            given = trade(number)
            body = readable_json(commanding.add_trade(given))
            added.append(seconds(partial(client.add_trade, given)))
            inserted.append(seconds(partial(bare.execute, "INSERT INTO bodies VALUES (?)", (body,))))
    added, inserted = added[WARM_CALLS:], inserted[WARM_CALLS:]
    numbers = percentiles_ms(f"{name}_add", added) | percentiles_ms(f"{name}_insert", inserted)
    for percent in (50, 99):
        ratio = percentile(added, percent) / percentile(inserted, percent)
        numbers[f"{name}_p{percent}_ratio"] = ratio
    return numbers


def _bare_table(path: Path) -> sqlite3.Connection:
    table = sqlite3.connect(path, isolation_level=None)
    table.execute("PRAGMA journal_mode=WAL")
    table.execute("PRAGMA synchronous=FULL")
    table.execute("CREATE TABLE bodies (body BLOB)")
    return table


if __name__ == "__main__":
    run(measure)
