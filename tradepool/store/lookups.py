"""Single values beside the records: owners of keys and fills, routes, answers, the last check of the book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tradepool.errors import JournalUnavailable
from tradepool.store.asking import ask_all
from tradepool.store.connection import Client
from tradepool.store.fence import current_generation
from tradepool.store.keys import Keys
from tradepool.store.shard_count import check_shard_count
from tradepool.store.translation import text_of, translated

__all__ = ["ANSWERED_FIELD", "ANSWER_TTL_S", "Lookups"]

ANSWERED_FIELD = "answered"
"""Field of `Keys.meta`: how often answers were kept; clients look for theirs when it has changed."""
ANSWER_TTL_S = 15 * 60
"""How long a client can learn how a command has ended whose record may not show it; it looks all the time.

One that was away for longer sends its command again, which ends as it did before. So what a flood of refusals
takes of the server's memory is bounded by what the fleet can refuse in this time.
"""


class Lookups:
    """The part of the store that answers by name. All methods raise StoreUnavailable."""

    _generation = ""
    """What `generation` last said."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def idempotency_owner(self, user_id: str, name: str) -> str | None:
        """The trade that the user's idempotency key was used for."""
        key = self.keys.idempotency(self.keys.shard_of_user(user_id), user_id)
        return self._field(key, name)

    def claim_owner(self, user_id: str, claim: str) -> str | None:
        """The trade of the user that has booked a venue fill, named as `Keys.fill_claim` does."""
        key = self.keys.fill_claims(self.keys.shard_of_user(user_id), user_id)
        return self._field(key, claim)

    def shard_of_trade(self, trade_id: str) -> int | None:
        """The shard that holds the trade if there is one; None for an id that was never routed."""
        return self.shards_of_trades([trade_id])[0]

    def shards_of_trades(self, trade_ids: Sequence[str]) -> list[int | None]:
        """`shard_of_trade` of each id, in one round trip at most: minted ids carry their shard."""
        shards = [self.keys.home_shard(trade_id) for trade_id in trade_ids]
        unknown = [i for i, shard in enumerate(shards) if shard is None]
        if unknown:
            slots = self.routes([trade_ids[i] for i in unknown])
            for i, slot in zip(unknown, slots, strict=True):
                shards[i] = None if slot is None else self.keys.shard(slot)
        return shards

    def routes(self, trade_ids: Sequence[str]) -> list[int | None]:
        """The slots that ids without one of their own were routed to."""
        with translated():
            found = ask_all(
                self._client, [("HGET", self._routes(trade_id), trade_id) for trade_id in trade_ids]
            )
        return [None if slot is None else int(slot) for slot in found]

    def put_routes(self, slots: Mapping[str, int]) -> dict[str, int]:
        """Route ids to their users' slots unless they have a route; the slots in force, in one round trip."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for trade_id, slot in slots.items():
                pipeline.hsetnx(self._routes(trade_id), trade_id, str(slot))
                pipeline.hget(self._routes(trade_id), trade_id)
            return dict(zip(slots, map(int, pipeline.execute()[1::2]), strict=True))

    def move_route(self, trade_id: str, slot: int) -> None:
        """Route an id to `slot`, whatever its route was: for recovery, which knows whose trade it is."""
        with translated():
            self._client.hset(self._routes(trade_id), trade_id, str(slot))

    def generation(self) -> str:
        """Another text after each recovery; what a process knows of the server belongs to one of them.

        Asked again after a look, the same text means that what was seen is still there: a server that
        has restarted is not the same one, also while it still waits for its recovery.

        Raises: Fenced while it waits; Misconfigured when the store was made with another number of shards.
        """
        generation = current_generation(self._client, self._generation)
        if generation != self._generation:
            # A process may have begun before there was a store to ask.
            check_shard_count(self._client, self.keys.shard_count)
        self._generation = generation
        return generation

    def check_generation(self, generation: str) -> None:
        """Make sure that the server is still of `generation`.

        Raises: JournalUnavailable when it was recovered since, as what the journal did not have then may be
        gone; Fenced while it waits.
        """
        if self.generation() != generation:
            raise JournalUnavailable(
                "the server was recovered before the journal had everything; try the same again"
            )

    def put_answers(self, answers: Mapping[str, str]) -> None:
        """Keep how commands (by short id) ended that left no trace in a record, or none that lasts.

        The first answer stands: what is delivered again has ended before.
        """
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for short_id, answer in answers.items():
                pipeline.set(self.keys.answer(short_id), answer, ex=ANSWER_TTL_S, nx=True)
            pipeline.execute()
            # Afterwards: who sees the number must find the answers.
            self._client.hincrby(Keys.meta, ANSWERED_FIELD, 1)

    def answers(self, short_ids: Sequence[str]) -> list[str | None]:
        """The answers to commands, in order; None where there is none (yet, or any more)."""
        with translated():
            found = ask_all(self._client, [("GET", self.keys.answer(short_id)) for short_id in short_ids])
        return [None if answer is None else text_of(answer) for answer in found]

    def write_book_check(self, part: int, parts: int, value: bytes) -> None:
        """Replace the report, as JSON, of the last check of the book that is part `part` of `parts`.

        What other numbers of parts left there goes.
        """
        with translated():
            former = [
                field
                for field in map(text_of, self._client.hkeys(self.keys.book_checks))
                if not field.endswith(f"/{parts}")
            ]
            pipeline = self._client.pipeline(transaction=True)
            if former:
                pipeline.hdel(self.keys.book_checks, *former)
            pipeline.hset(self.keys.book_checks, f"{part}/{parts}", value)
            pipeline.execute()

    def read_book_check(self) -> list[bytes]:
        """The last report of each part of the book, as JSON; none before the first check."""
        with translated():
            stored: Any = self._client.hgetall(self.keys.book_checks)
        return [stored[field] for field in sorted(stored)]

    def _value(self, key: str) -> bytes | None:
        with translated():
            value = self._client.get(key)
        return value.encode() if isinstance(value, str) else value

    def _routes(self, trade_id: str) -> str:
        return self.keys.routes(self.keys.route_shard(trade_id))

    def _field(self, key: str, field: str) -> str | None:
        with translated():
            value = self._client.hget(key, field)
        return None if value is None else text_of(value)
