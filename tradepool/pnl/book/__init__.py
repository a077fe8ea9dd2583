"""The book: the open positions of a pool as columns, with what numbers, finds, digests and saves them."""

from __future__ import annotations

from tradepool.pnl.book.book import Book

__all__ = ["Book"]
