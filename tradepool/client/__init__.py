"""What a bot uses: calls that return at once, and a spool that loses nothing."""

from __future__ import annotations

from tradepool.client.confirmation import Rejection
from tradepool.client.lag import Lag
from tradepool.client.pool_client import PoolClient

__all__ = ["Lag", "PoolClient", "Rejection"]
