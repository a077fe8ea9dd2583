"""A look at the pool as a whole: what has to have moved before a command can have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tradepool.model.positions import parse_position
from tradepool.store.asking import ask_all
from tradepool.store.connection import Client
from tradepool.store.fence import GENERATION_FIELD
from tradepool.store.keys import Keys
from tradepool.store.lookups import ANSWERED_FIELD
from tradepool.store.translation import text_of, translated
from tradepool.store.watermark import parse_watermark

__all__ = ["Look", "Position", "take_look"]

Position = tuple[int, int]


class Look(NamedTuple):
    """What the store says; two that are equal tell that nothing has moved."""

    generation: str
    """Read after the rest."""
    answered: bytes | None
    """How often answers were kept, as it is stored."""
    reached: Sequence[bytes | None]
    """By shard: how far the journal has come, as it is stored."""

    def position(self, shard: int) -> Position:
        """How far the journal has come in the shard's outbox."""
        return parse_position(parse_watermark(self.reached[shard]).position)


def take_look(client: Client, keys: Keys) -> Look:
    """Look, in one exchange. Raises: StoreUnavailable.

    The generation is read last: a recovery in between shows, and `reached` belongs to no later one.
    """
    with translated():
        reached, (generation, answered) = ask_all(
            client,
            [
                ("HMGET", keys.journal, *keys.journal_fields()),
                ("HMGET", keys.meta, GENERATION_FIELD, ANSWERED_FIELD),
            ],
        )
    return Look(text_of(generation or ""), answered, reached)
