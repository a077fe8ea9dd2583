"""What is counted of each user: counters and sums."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from itertools import chain

from tradepool.batching import batched
from tradepool.store.indexes import Indexes
from tradepool.store.limbs import join_limbs, split_limbs
from tradepool.store.translation import text_of, translated

__all__ = ["Counting"]

_USERS_PAGE = 1000
_COUNT_ARCHIVED = (resources.files("tradepool.store") / "lua" / "count_archived.lua").read_text("utf-8")


class Counting(Indexes):
    """The part of the store that counts. All methods raise StoreUnavailable."""

    def counters(self, user_id: str) -> dict[str, int]:
        """The user's counters, as `model.counters.contribution` names them; zeros left out."""
        return self._sums(self._counters(user_id))

    def archived_counters(self, user_id: str) -> dict[str, int]:
        """The part of `counters` that the user's archived trades make up; zeros left out."""
        return self._sums(self._archived_counters(user_id))

    def archived_counters_of_shard(self, shard: int) -> dict[str, dict[str, int]]:
        """`archived_counters` of each user of the shard who has some."""
        found: dict[str, dict[str, int]] = {}
        for page in batched(set(self.users(shard)), _USERS_PAGE):
            with translated():
                pipeline = self._client.pipeline(transaction=False)
                for user_id in page:
                    pipeline.hgetall(self.keys.archived_counters(shard, user_id))
                for user_id, stored in zip(page, pipeline.execute(), strict=True):
                    if stored:
                        fields = {text_of(field): int(value) for field, value in stored.items()}
                        found[user_id] = join_limbs(fields)
        return found

    def restore_archived_counters(self, user_id: str, counters: Mapping[str, int]) -> None:
        """Count a user's archived trades whose versions nobody knows any more; for recovery only.

        Does nothing for a user who has archived counters: a recovery that is repeated has been here.
        So these come before any record of the user.
        """
        keys = self._archived_counters(user_id), self._counters(user_id)
        limbs = [limb for name, number in counters.items() for limb in split_limbs(name, number)]
        with translated():
            self._client.eval(_COUNT_ARCHIVED, len(keys), *keys, *map(str, chain.from_iterable(limbs)))

    def _sums(self, key: str) -> dict[str, int]:
        with translated():
            stored = self._client.hgetall(key)
        return join_limbs({text_of(field): int(value) for field, value in stored.items()})

    def _archived_counters(self, user_id: str) -> str:
        return self.keys.archived_counters(self.keys.shard_of_user(user_id), user_id)

    def _counters(self, user_id: str) -> str:
        return self.keys.counters(self.keys.shard_of_user(user_id), user_id)
