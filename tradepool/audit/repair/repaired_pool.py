"""What a repair reads, writes and asks of the pool that it repairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tradepool.audit.rules.registry import Repair
from tradepool.deciding import Result
from tradepool.model.commands import PoolCommand
from tradepool.store.keys import Keys
from tradepool.store.mending import Mender
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["RepairedPool"]


class RepairedPool(NamedTuple):
    """One pool by the parts that repairs need; those of one repair see one generation of its server."""

    store: RedisStore
    mender: Mender
    apply: Callable[[Sequence[PoolCommand]], list[Result]]
    """Applies commands as `TradeCore.apply` does."""
    watermark: Watermark
    journal: Path
    now_us: Callable[[], int]
    recent_max: int
    """Trades that a shard's list of recent ones keeps."""
    owner: Mapping[Repair, Callable[[], object]]
    """What only some processes can do: how this one does it."""
    generation: str = ""
    """That of the server when the repair began."""

    @property
    def keys(self) -> Keys:
        """The keys of the store."""
        return self.store.keys
