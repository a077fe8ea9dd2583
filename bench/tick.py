"""From a price tick to readable marks, and what each phase of it takes, on a book of 10⁶ open trades.

    python bench/tick.py [--quick] [--json] [--rows N]

One process and a private server with its append-only file on a unix socket. A tick: a feed has stored
another price of every symbol; the prices are read (`prices`), the book is marked (`mark`, of which `tables`
is a part), the users' marks become values (`encode`) that are written (`write`), totals are made
(`totals`), and one user is read back (`read`). `tick_ms` is all of these in one go, as the worker does
them: it encodes one shard while the server takes another. `few_ms` is the same where one symbol in a
hundred has another price. Following the pool is not part of it; see `book_start.py`. `tick_bytes_per_user`
is what a tick sends for a user to the server, and so to its append-only file. Medians over rounds in which
all of them take turns.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path

from bench.measurement import Numbers, medians, rounds_of, run, seconds
from bench.pnl_rows import MadeUpRows, market
from bench.pool_load import pin_append_only_file
from tradepool.marking.bucket_layout import BucketLayout
from tradepool.marking.mark_totals import totals_of
from tradepool.marking.prices import Prices
from tradepool.marking.user_buckets import UserBuckets
from tradepool.marking.write_back import WriteBack
from tradepool.model.money import plain
from tradepool.pnl.backend import Backends
from tradepool.pnl.book import Book
from tradepool.pnl.marks import Marks, mark
from tradepool.pnl.tables import build_tables, usable_prices
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore

__all__ = ["measure"]

ROWS = 1_000_000
QUICK_ROWS = 100_000
ROUNDS = 15
FEW = 100
"""One symbol in so many has another price, where few do."""
USER = "u1"


class Ticker:
    """A book, a feed and a store, and each phase of a tick."""

    def __init__(self, store: RedisStore, rows: int) -> None:
        self.store = store
        self.feed = {symbol: Decimal(price) for symbol, price in market(1).items()}
        self.book = Book.from_positions(MadeUpRows.of(rows, self.feed).positions(rows))
        self.users = len({user_id for user_id, _ in self.book.groups.keys})
        self.prices, self.write_back = Prices(store), WriteBack(store)
        self.backend = Backends("auto").for_rows(rows)
        self.layout = BucketLayout(store.keys)
        self._times = count(1)
        self.step()
        self.marks = self.mark()
        self.layout.follow(self.book.groups.keys, len(self.book.groups.keys))
        self.values = self.encode()

    def step(self, every: int = 1) -> None:
        """Store another price of every, or of each so many, symbols."""
        turn = next(self._times)
        self.feed |= {
            symbol: price * (1000 + turn % 7) / 1000
            for place, (symbol, price) in enumerate(market(1).items())
            if (place + turn) % every == 0
        }
        self.store.set_prices({symbol: plain(price) for symbol, price in self.feed.items()}, turn)

    def tick(self) -> None:
        """All of a tick; raises if the marks that are read back are not of it."""
        at = next(self._times)
        self.write_back.write(self.mark(at))
        assert self.write_back.get_marks(USER)["at"] == at

    def mark(self, at: int = 0) -> Marks:
        """Read the prices and mark."""
        return mark(self.book, self.prices.latest(at).prices, at, backend=self.backend)

    def tables(self) -> object:
        """What `mark` makes of the prices."""
        usable, _ = usable_prices(self.book.symbols(), self.feed)
        return build_tables(self.book.lanes, self.book.fees, usable, self.book.cost_max)

    def encode(self) -> Mapping[int, list[bytes]]:
        """The users' marks as values."""
        return dict(UserBuckets(self.layout, self.marks.users.columns, 0, self.store.keys.shards))


def measure(*, quick: bool, rows: int | None = None) -> Numbers:
    """Milliseconds of a tick and of its phases."""
    settings = Settings()
    size = rows or (QUICK_ROWS if quick else ROWS)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        client = connect(settings.model_copy(update={"redis_url": server.url}))
        with client:
            pin_append_only_file(client)
            ticker = Ticker(RedisStore(client, Keys(settings.shard_count), settings), size)
            gc.collect()
            gc.freeze()
            ticker.tick()
            numbers = _phases(ticker)
    sent = sum(len(value) for values in ticker.values.values() for value in values)
    return numbers | {"rows": size, "users": ticker.users, "tick_bytes_per_user": sent / ticker.users}


def _phases(ticker: Ticker) -> Numbers:
    return medians(
        rounds_of(
            ROUNDS,
            tick_ms=partial(_after, ticker.step, ticker.tick),
            few_ms=partial(_after, partial(ticker.step, FEW), ticker.tick),
            prices_ms=partial(_after, ticker.step, lambda: ticker.prices.latest(0)),
            mark_ms=partial(
                _after, ticker.step, lambda: mark(ticker.book, ticker.feed, 0, backend=ticker.backend)
            ),
            tables_ms=partial(_ms, ticker.tables),
            encode_ms=partial(_ms, ticker.encode),
            write_ms=partial(_ms, lambda: ticker.store.write_marks(ticker.values)),
            totals_ms=partial(_ms, lambda: totals_of(ticker.marks, 0)),
            read_ms=partial(_ms, lambda: ticker.write_back.get_marks(USER)),
        )
    )


def _after(before: Callable[[], object], work: Callable[[], object]) -> float:
    before()
    return _ms(work)


def _ms(work: Callable[[], object]) -> float:
    return seconds(work) * 1e3


if __name__ == "__main__":
    run(measure)
