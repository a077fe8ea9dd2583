"""How long a reader waits: a page of a user's trades, narrowed ones, a symbol's, the newest, one, a history.

    python bench/queries.py [--trades TRADES]

A million trades by default, of 2,000 users in 8 symbols, one in twenty open, filled into an empty server as
recovery does it, without a journal. Each question is asked again and again, of a user drawn each time, by one
client while nothing else happens. Beside it stand what no answer can be faster than, a PING; and what
decoding 50 trades takes. `all_per_s` is how fast everything is streamed.

A history is read from a journal of its own: as many lines of 700 bytes, two versions of each record.
`scanned` is the same question where nobody can say what to look for and when it changed.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench import pool_load
from bench.measurement import Numbers, per_second, percentile, percentiles_ms, run, seconds
from bench.pool_load import SYMBOLS, USERS, pin_append_only_file
from tradepool import Fill, Settings, Trade, TradePool
from tradepool.batching import batched
from tradepool.files.history import read_history
from tradepool.files.journal import Journal
from tradepool.files.lines import NewLine
from tradepool.model import codec, ids
from tradepool.model.intake import trade_from_dict
from tradepool.server.embedded import EmbeddedServer
from tradepool.store.connection import Client
from tradepool.store.fence import open_fence
from tradepool.store.filling import Filling, clear_marks, prepare
from tradepool.store.keys import Keys
from tradepool.store.plan import RecordChange

__all__ = ["fill_store", "measure"]

TRADES = 1_000_000
QUICK_TRADES = 100_000
ASKED = 2_000
SELDOM_ASKED = 200
PAGE = 50
_TEMPLATES = 400
_OPEN_EVERY = 20
_FILLED_AT_ONCE = 20_000
_LINE_BYTES = 700
_GROUP = 500
_START_US = pool_load.START_S * 1_000_000


def measure(*, quick: bool, trades: int | None = None) -> Numbers:
    """Percentiles of each question's time, and rates."""
    count = trades or (QUICK_TRADES if quick else TRADES)
    with tempfile.TemporaryDirectory() as folder:
        numbers = _of_pool(Path(folder), count)
    with tempfile.TemporaryDirectory() as folder:
        return numbers | _of_journal(Path(folder) / "trade_pool.log", count)


def fill_store(client: Any, settings: Settings, count: int, *, open_every: int = _OPEN_EVERY) -> None:
    """Fill an empty server with `count` trades, one in `open_every` open, and open its fence."""
    keys = Keys(settings.shard_count)
    mark = prepare(client, keys, keys.shards)
    with Filling(client, settings, keys.shards, mark) as filling:
        for some in batched(_trades(count, open_every), _FILLED_AT_ONCE):
            shards: dict[int, list[RecordChange]] = defaultdict(list)
            for trade in some:
                shards[keys.shard_of_user(trade.user_id)].append(_added(trade))
            for shard, changes in shards.items():
                filling.write(shard, changes)
        filling.finish()
    clear_marks(client, keys)
    open_fence(client)


def _of_pool(folder: Path, count: int) -> Numbers:
    with EmbeddedServer(folder) as server:
        settings = Settings(redis_url=server.url, data_dir=folder)
        client = server.client()
        pin_append_only_file(client)
        numbers = {"filled_per_s": per_second(lambda: fill_store(client, settings, count), count)}
        with TradePool.connect(settings) as pool:
            numbers |= _ask(pool, client)
            numbers["all_per_s"] = per_second(lambda: sum(1 for _ in pool.get_all_trades()), count)
        client.close()
    return numbers


def _ask(pool: TradePool, client: Client) -> Numbers:
    draw = random.Random(0)  # noqa: S311 - measurements need the same users again, not secrets

    def user() -> str:
        return f"USER{draw.randrange(USERS)}"

    newest = pool.get_recent_trades(PAGE)
    values = [codec.pack_trade(trade) for trade in newest]
    often: dict[str, Callable[[], object]] = {
        "ping": client.ping,
        "decode_50": lambda: list(map(codec.unpack_trade, values)),
        "get_trade": lambda: pool.get_trade(draw.choice(newest).trade_id),
        "user_50": lambda: pool.get_trades_by_user(user(), limit=PAGE),
        "user_source_50": lambda: pool.get_trades_by_user(user(), "real", limit=PAGE),
        "user_open_50": lambda: pool.get_trades_by_user(user(), status="filled", limit=PAGE),
    }
    seldom: dict[str, Callable[[], object]] = {
        "user_strategy_50": lambda: pool.get_trades_by_user(user(), strategy="none", limit=PAGE),
        "symbol_50": lambda: pool.get_trades_by_symbol(draw.choice(SYMBOLS), limit=PAGE),
        "recent_50": lambda: pool.get_recent_trades(PAGE),
    }
    return _times(often, ASKED) | _times(seldom, SELDOM_ASKED)


def _times(questions: dict[str, Callable[[], object]], asked: int) -> Numbers:
    """Questions alternate, so that whatever slows the machine for a while slows all of them."""
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(asked):
        for name, question in questions.items():
            taken[name].append(seconds(question))
    numbers: Numbers = {}
    for name, times in taken.items():
        numbers |= percentiles_ms(name, times)
    return numbers


def _templates(open_every: int) -> list[Trade]:
    """Trades as intake makes them; all others are these at other times, of other users."""
    made = []
    for number in range(_TEMPLATES):
        given: dict[str, Any] = pool_load.trade(number)
        if number % open_every:
            given |= {"status": "completed", "exit_price": given["price"]}
        at = _START_US + number
        made.append(trade_from_dict(given, now_us=at, trade_id="template"))
    return made


def _trades(count: int, open_every: int) -> Iterator[Trade]:
    templates = _templates(open_every)
    for number in range(count):
        user_id, at = f"USER{number % USERS}", _START_US + number * 1_000_000
        trade_id = ids.mint_id(user_id, at_us=at, random_bits=number)
        template = templates[number * 7 % _TEMPLATES]
        yield msgspec.structs.replace(
            template,
            trade_id=trade_id,
            user_id=user_id,
            created_at=at,
            updated_at=at,
            fills=tuple(_own(fill, trade_id) for fill in template.fills),
        )


def _own(fill: Fill, trade_id: str) -> Fill:
    """A fill that the pool made, of this trade."""
    return msgspec.structs.replace(fill, fill_id=f"{trade_id}:{fill.role}")


def _added(trade: Trade) -> RecordChange:
    return RecordChange(
        kind=codec.TRADE_KIND,
        record_id=trade.trade_id,
        user_id=trade.user_id,
        before=None,
        after=codec.pack_trade(trade),
        trade_after=trade,
        command_id="",
    )


def _of_journal(log: Path, count: int) -> Numbers:
    """A history whose record is known, at ten places of the journal, and one that has to be looked for."""
    groups = count // (2 * _GROUP)
    written = _write_journal(log, groups)
    asked = range(0, groups, max(1, groups // 10))
    taken = [
        seconds(partial(read_history, log, f"{place}-7", newest=2, times=[written[place]])) for place in asked
    ]
    scanned = seconds(lambda: read_history(log, f"{groups // 2}-7"))
    return {"history_p50_ms": percentile(taken, 50) * 1e3, "history_scanned_ms": scanned * 1e3}


def _write_journal(log: Path, groups: int) -> list[int]:
    """Two versions of `_GROUP` records to a group; when each group was written, µs."""
    times = []
    with Journal(log, 1) as journal:
        for group in range(groups):
            times.append(time.time_ns() // 1000)
            lines = itertools.product((1, 2), range(_GROUP))
            journal.append([_line(group, number, version) for version, number in lines])
            journal.commit({0: f"{group + 1}-0"})
    return times


def _line(group: int, number: int, version: int) -> NewLine:
    record = _record(number, version)
    previous = codec.digest_of(_record(number, version - 1)).encode() if version > 1 else b""
    return NewLine(
        shard=0,
        position=b"%d-0" % (group + 1),
        place=number,
        kind=b"t",
        record_id=b"%d-%d" % (group, number),
        command_id=b"c",
        task_id=b"",
        version=version,
        digest=codec.digest_of(record).encode(),
        previous=previous,
        status=b"F",
        record=record,
    )


def _record(number: int, version: int) -> bytes:
    return (b'{"n":%d,"v":%d,"text":"' % (number, version)).ljust(_LINE_BYTES, b"x") + b'"}'


if __name__ == "__main__":
    run(measure)
