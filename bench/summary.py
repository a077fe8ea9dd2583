"""How long a reader waits for the summary of a user with 10,000 live trades.

    python bench/summary.py [--trades TRADES]

`counters` is the summary without statistics; `changed` the whole one when one trade of the user was added,
closed or changed since the last (in turns, at the end and anywhere in his history); `unchanged` when nothing
was; `cold` when this process knows nothing of the user, so that all his trades are read. `decode` is what
decoding them alone takes, `ping` what no answer can be faster than. `kept_bytes` is what is remembered of one
trade.
"""

from __future__ import annotations

import random
import tempfile
import tracemalloc
from collections.abc import Callable
from itertools import cycle
from typing import Any

from bench import pool_load
from bench.measurement import Numbers, percentiles_ms, run, seconds
from bench.pool_load import SYMBOLS, pin_append_only_file
from tradepool import TradePool
from tradepool.archive.folder import ARCHIVE_NAME
from tradepool.archive.reading import Archive
from tradepool.model import codec
from tradepool.summaries import Summaries

__all__ = ["measure"]

TRADES = 10_000
ASKED = 3_000
CHANGES = 600
COLD = 20
USER = "ann"
_HOLD_S = 40_000
_EVERY_S = 3_000


def measure(*, quick: bool, trades: int | None = None) -> Numbers:
    """Percentiles of each question's time, and the memory of what is kept."""
    count, part = trades or TRADES, 4 if quick else 1
    with tempfile.TemporaryDirectory() as folder, TradePool.embedded(folder) as pool:
        pin_append_only_file(pool.redis)
        draw = random.Random(0)  # noqa: S311 - measurements need the same trades again, not secrets
        pool.add_trades(_trade(draw, number) for number in range(count))
        values = [codec.pack_trade(trade) for trade in pool.get_all_trades()]
        numbers = {"kept_bytes": _kept_bytes(pool) / count}
        numbers |= _times("ping", pool.redis.ping, ASKED // part)
        numbers |= _times("decode", lambda: list(map(codec.unpack_trade, values)), COLD // part)
        numbers |= _times("cold", lambda: _of_a_new_process(pool), COLD // part)
        numbers |= _times("counters", lambda: _ask(pool, statistics=False), ASKED // part)
        numbers |= _times("unchanged", lambda: _ask(pool), ASKED // part)
        return numbers | _changed(pool, draw, CHANGES // part)


def _trade(draw: random.Random, number: int) -> dict[str, Any]:
    at, price = pool_load.START_S + number * _EVERY_S, draw.uniform(90, 110)
    return {
        "user_id": USER,
        "exchange": "kraken",
        "symbol": SYMBOLS[number % len(SYMBOLS)],
        "side": "buy",
        "amount": draw.randrange(1, 10),
        "price": price,
        "exit_price": price + draw.gauss(0.1, 2),
        "fee": "0.01",
        "status": "completed",
        "strategy": draw.choice(("momentum", "reversal")),
        "signals": {"rsi": draw.randrange(-1, 2), "combined": 1},
        "close_reason": draw.choice(("take_profit", "stop_loss")),
        "deposit": 100,
        "created_at": at,
        "opened_at": at,
        "closed_at": at + draw.randrange(1, _HOLD_S),
    }


def _ask(pool: TradePool, *, statistics: bool = True) -> None:
    pool.get_user_summary(USER, statistics=statistics)


def _of_a_new_process(pool: TradePool) -> Summaries:
    archive = Archive(pool.settings.data_dir / ARCHIVE_NAME)
    summaries = Summaries(pool.store, archive, trades_max=TRADES * 10)
    summaries.whole(USER, source=None, currency=None)
    return summaries


def _kept_bytes(pool: TradePool) -> int:
    _of_a_new_process(pool)
    tracemalloc.start()
    kept = _of_a_new_process(pool)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size


def _changed(pool: TradePool, draw: random.Random, count: int) -> Numbers:
    ids = [trade.trade_id for trade in pool.get_trades_by_user(USER, limit=TRADES).trades]
    opened: list[str] = []

    def add() -> None:
        fields = _trade(draw, len(ids) + len(opened)) | {"status": "filled"}
        del fields["exit_price"], fields["closed_at"]
        opened.append(pool.add_trade(fields).trade_id)

    changes: cycle[Callable[[], object]] = cycle(
        (
            add,
            lambda: pool.close_trade(opened[-1], draw.uniform(90, 110)),
            lambda: pool.update_trade_pnl(draw.choice(ids), draw.gauss(0, 5)),
        )
    )
    taken = []
    for change, _ in zip(changes, range(count), strict=False):
        change()
        taken.append(seconds(lambda: _ask(pool)))
    return percentiles_ms("changed", taken)


def _times(name: str, question: Callable[[], object], asked: int) -> Numbers:
    return percentiles_ms(name, [seconds(question) for _ in range(asked)])


if __name__ == "__main__":
    run(measure)
