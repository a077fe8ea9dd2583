"""Which state of a user somebody has seen, and what has changed of it since."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from redis.cluster import RedisCluster

from tradepool.errors import StoreUnavailable
from tradepool.store.asking import ask_all
from tradepool.store.changed_ids import CUT_CHARS, Changes, ids_in
from tradepool.store.fence import GENERATION_FIELD
from tradepool.store.indexes import Indexes
from tradepool.store.translation import text_of, translated

__all__ = ["Revisions"]

_BYTES = (4096, 1 << 20)
"""Of a user's changed trades: what is mostly enough, and more than there ever are."""
_LOOKS_MAX = 4


class Revisions(Indexes):
    """The part of the store that tells a user's states apart. All methods raise StoreUnavailable."""

    _seen: bytes | str | None = None
    """The generation that the last look at a cluster found."""

    def revisions(self, user_ids: Iterable[str]) -> dict[str, int]:
        """A number for each user that grows with each commit that touches the user, and is 0 at first.

        Equal numbers before and after a look at a user, in one generation, mean that it saw one state.
        """
        names = {user_id: self._name(user_id) for user_id in user_ids}
        with translated():
            looks = ((("GETRANGE", name, 0, CUT_CHARS - 1), ("STRLEN", name)) for name in names.values())
            found = iter(ask_all(self._client, [command for look in looks for command in look]))
        return {
            user_id: _appended(cut, length) for user_id, cut, length in zip(names, found, found, strict=True)
        }

    def revision(self, user_id: str) -> str:
        """Text that differs after each commit that touched the user, and after each recovery."""
        return self._look(user_id, 1).revision

    def changes_since(self, user_id: str, revision: str) -> Changes | None:
        """What has changed of the user's trades since `revision`, and the revision that leads to.

        None when that is not known any more: the last changes are kept, at least 640 bytes of ids, and a
        recovery forgets them. A trade that is read after this call may be newer than the returned
        revision; then the next call names it again.
        """
        generation, _, reached = revision.rpartition(".")
        for size in _BYTES:
            look = self._look(user_id, size)
            since = look.appended - int(reached)
            if not look.revision.startswith(f"{generation}.") or not 0 <= since <= look.kept:
                break
            if since <= size:
                text = text_of(look.end[len(look.end) - since :])
                return Changes(revision=look.revision, trade_ids=ids_in(text))
        return None

    def _look(self, user_id: str, size: int) -> _Look:
        """What is kept of the user's changed trades, and the last `size` bytes of it."""
        if not isinstance(self._client, RedisCluster):
            return _Look(*self._ask(user_id, size))
        # The generation is on a node of its own. None comes twice.
        for _ in range(_LOOKS_MAX):
            before, (cut, length, end) = self._seen, self._ask(user_id, size)
            with translated():
                after = self._seen = self._client.hget(self.keys.meta, GENERATION_FIELD)
            if after == before:
                return _Look(cut, length, end, after)
        raise StoreUnavailable(f"the cluster was recovered during each of {_LOOKS_MAX} looks at a user")

    def _ask(self, user_id: str, size: int) -> list[Any]:
        """The fields of a `_Look`; from a cluster without the last one."""
        name = self._name(user_id)
        with translated():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.getrange(name, 0, CUT_CHARS - 1)
            pipeline.strlen(name)
            pipeline.getrange(name, -size, -1)
            if not isinstance(self._client, RedisCluster):
                pipeline.hget(self.keys.meta, GENERATION_FIELD)
            return pipeline.execute()

    def _name(self, user_id: str) -> str:
        return self.keys.changed(self.keys.shard_of_user(user_id), user_id)


class _Look(NamedTuple):
    """What is kept of a user's changed trades, at one moment."""

    cut: bytes
    length: int
    end: bytes
    generation: bytes | str | None

    @property
    def appended(self) -> int:
        return _appended(self.cut, self.length)

    @property
    def kept(self) -> int:
        return max(self.length - CUT_CHARS, 0)

    @property
    def revision(self) -> str:
        return f"{text_of(self.generation or b'')}.{self.appended}"


def _appended(cut: bytes, length: int) -> int:
    return int(cut) + length - CUT_CHARS if cut else 0
