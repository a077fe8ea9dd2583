"""Books of open trades, and what they must hold."""

from __future__ import annotations

from typing import Any

from tradepool.marking.open_book import OpenBook
from tradepool.marking.positions import put_open
from tradepool.pnl.book import Book
from tradepool.pnl.book.rows import rows_of
from tradepool.pnl.decimal_rows import DecimalRow
from tradepool.store.redis_store import RedisStore

__all__ = ["built_from", "held", "holds_what_is_open", "open_book_of", "stored"]


def open_book_of(pool: Any, **given: Any) -> OpenBook:
    """Another process's book of a pool with a `store` and `settings`; `given` are further arguments."""
    return OpenBook(pool.store, list(pool.store.keys.shards), pool.settings, **given)


def held(book: Book) -> dict[str, DecimalRow]:
    """The rows of a book by trade id."""
    return {row.trade_id: row for row in rows_of(book, range(len(book.groups.keys)))}


def stored(store: RedisStore) -> dict[str, DecimalRow]:
    """The rows that the store's open trades make."""
    book = Book()
    for shard in store.keys.shards:
        put_open(book, store, shard)
    return held(book)


def holds_what_is_open(book: OpenBook) -> bool:
    """Whether the book is what the store says is open, row by row."""
    return held(book.book) == stored(book.store)


def built_from(messages: list[dict[str, Any]]) -> list[str]:
    """What each book was built from that was logged, in order: `file` or `store`."""
    return [each["read_from"] for each in messages if each["event"] == "book_built"]
