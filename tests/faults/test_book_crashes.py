"""A server is killed while its journal stands still: what it loses was in the book, and is not any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loose_trades import buy
from tests.open_books import holds_what_is_open, open_book_of
from tests.servers import Server
from tradepool import TradePool
from tradepool.journaling.service import JournalService
from tradepool.settings import Durability, Settings
from tradepool.store.connection import connect


@contextmanager
def journaling(settings: Settings) -> Iterator[JournalService]:
    """The pool's journal at work; afterwards everything is journaled."""
    journal = JournalService(settings, connect(settings))
    try:
        journal.recover()
        journal.start()
        yield journal
    finally:
        journal.close()


def test_trades_that_a_killed_server_forgot_are_in_no_mark(server_binary: Path, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        # What is acknowledged without the journal is what a crash may take.
        settings = Settings(
            redis_url=server.url,
            data_dir=tmp_path / "pool",
            shard_count=4,
            durability=Durability.REDIS,
        )
        with journaling(settings), TradePool.connect(settings) as pool:
            kept = pool.add_trade(buy(user_id="ann", status="filled")).trade_id
        with TradePool.connect(settings) as pool:
            kept_bytes = server.aof_bytes()
            lost = pool.add_trade(buy(user_id="bob", status="filled")).trade_id
            pool.close_trade(kept, "110")
            book = open_book_of(pool)
            book.catch_up()
            assert (kept in book.book, lost in book.book) == (False, True)

            server.kill()
            server.set_back(kept_bytes)
            server.start()
            with journaling(settings):
                book.catch_up()
                assert (kept in book.book, lost in book.book) == (True, False)
                again = pool.add_trade(buy(user_id="bob", status="filled")).trade_id
                book.catch_up()
            assert (again in book.book, lost in book.book) == (True, False)
            assert holds_what_is_open(book)
