"""What is counted of each user: counters and sums, and the commits that have touched him."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from itertools import chain

from tradepool.batching import batched
from tradepool.store.draft import REVISION_FIELD
from tradepool.store.fence import GENERATION_FIELD
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
        return self.counters_with_revision(user_id)[0]

    def counters_with_revision(self, user_id: str) -> tuple[dict[str, int], int]:
        """The user's counters and how many commits have touched the user, of one moment."""
        with translated():
            stored = self._client.hgetall(self._counters(user_id))
        fields = {text_of(field): int(value) for field, value in stored.items()}
        revision = fields.pop(REVISION_FIELD, 0)
        return join_limbs(fields), revision

    def archived_counters(self, user_id: str) -> dict[str, int]:
        """The part of `counters` that the user's archived trades make up; zeros left out."""
        with translated():
            stored = self._client.hgetall(self._archived_counters(user_id))
        return join_limbs({text_of(field): int(value) for field, value in stored.items()})

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

    def revisions(self, shard: int) -> dict[str, int]:
        """How many commits have touched each user of the shard."""
        users = sorted(set(self.users(shard)))
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for user_id in users:
                pipeline.hget(self.keys.counters(shard, user_id), REVISION_FIELD)
            return {
                user_id: int(found or 0) for user_id, found in zip(users, pipeline.execute(), strict=True)
            }

    def revision(self, user_id: str) -> str:
        """Text that differs after each commit that touched the user, and after each recovery."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hget(self.keys.meta, GENERATION_FIELD)
            pipeline.hget(self._counters(user_id), REVISION_FIELD)
            generation, revision = pipeline.execute()
        return f"{text_of(generation or b'')}.{text_of(revision or b'0')}"

    def _archived_counters(self, user_id: str) -> str:
        return self.keys.archived_counters(self.keys.shard_of_user(user_id), user_id)

    def _counters(self, user_id: str) -> str:
        return self.keys.counters(self.keys.shard_of_user(user_id), user_id)
