"""Balances read (the old trade_pool_tokens); they are written like trades, by commands through `core`."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from tradepool.clock import now_us
from tradepool.model.codec import unpack_ledger
from tradepool.model.ledger import Ledger, available, ledger_id
from tradepool.store.redis_store import RedisStore

__all__ = ["TokenQueries"]


class TokenQueries:
    """Reads token ledgers."""

    def __init__(self, store: RedisStore, clock: Callable[[], int] = now_us) -> None:
        """`clock` tells the time, µs, at which reservations are over."""
        self._store = store
        self._now_us = clock

    def get_available_tokens(self, user_id: str, *, account_id: str = "default") -> dict[str, Decimal]:
        """What can be reserved of each asset, above zero only; an unknown user has nothing.

        What is held by reservations whose time is over counts as free, also before it is given back.

        Raises: InvalidTokens when a name is none.
        """
        ledger = self.get_ledger(user_id, account_id=account_id)
        return {} if ledger is None else available(ledger, now_us=self._now_us())

    def get_ledger(self, user_id: str, *, account_id: str = "default") -> Ledger | None:
        """The whole ledger: balances and reservations; None when nobody ever told one."""
        record_id = ledger_id(user_id, account_id)
        value = self._store.read([(self._store.keys.shard_of_user(user_id), record_id)])[0]
        return None if value is None else unpack_ledger(value)
