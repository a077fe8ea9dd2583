"""Where the marks of each user stand among the buckets of the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tradepool.model.ids import slot_of_user
from tradepool.store.keys import MARK_BUCKETS, Keys

__all__ = ["LENGTH_BYTES", "BucketLayout"]

LENGTH_BYTES = 4
"""In front of each bucket's table."""

_SLOTS = 2**16
_Group = tuple[str, str]


class BucketLayout:
    """The groups (user, currency) of a book in order of bucket, kept as long as the book's groups stay.

    A bucket's number is its shard times MARK_BUCKETS plus its place in the shard.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._groups: Sequence[_Group] = ()
        self._forget()

    def follow(self, groups: Sequence[_Group], size: int) -> None:
        """Lay out the first `size` of `groups`.

        Where it is the list of the last call, only what was appended since is looked at.
        """
        if groups is not self._groups or size < len(self.order):
            self._groups = groups
            self._forget()
        if size > len(self.order):
            self._append(list(islice(groups, len(self.order), size)))

    @staticmethod
    def buckets_of(shard: int) -> range:
        """The numbers of a shard's buckets."""
        return range(shard * MARK_BUCKETS, (shard + 1) * MARK_BUCKETS)

    def bucket_of(self, user_id: str) -> int:
        """The number of a user's bucket."""
        return int(self._bucket_of_slot[slot_of_user(user_id)])

    def users_among(self, held: npt.NDArray[np.bool_], others: Iterable[str]) -> int:
        """How many users have a group in the mask `held`, or are one of `others`."""
        found = np.zeros(len(self._user_numbers), np.bool_)
        found[self._user[held]] = True
        numbers = {user_id: self._user_numbers.get(user_id) for user_id in others}
        found[[number for number in numbers.values() if number is not None]] = True
        return int(np.count_nonzero(found)) + sum(number is None for number in numbers.values())

    def _forget(self) -> None:
        buckets = self._keys.shard_count * MARK_BUCKETS
        self._user_numbers: dict[str, int] = {}
        self._currency_numbers: dict[str, int] = {}
        self._user: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._currency: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._bucket: npt.NDArray[np.uint16] = np.empty(0, np.uint16)
        self.order: npt.NDArray[np.intp] = np.empty(0, np.intp)
        """Numbers of the groups, by bucket and within a bucket by currency."""
        self.bounds: list[int] = [0] * (buckets + 1)
        """Where each bucket begins in `order`, and the length of it."""
        self.tables: list[bytes] = [_table({})] * buckets
        """Of each bucket, who is in it: its length, then MessagePack of currency → user ids in order."""

    def _append(self, groups: Sequence[_Group]) -> None:
        user, currency = self._user_numbers, self._currency_numbers
        slots = np.array([slot_of_user(user_id) for user_id, _ in groups], np.uint16)
        buckets = self._bucket_of_slot[slots]
        users = np.array([user.setdefault(user_id, len(user)) for user_id, _ in groups], np.int32)
        currencies = np.array([currency.setdefault(name, len(currency)) for _, name in groups], np.int32)
        self._user = np.concatenate([self._user, users])
        self._currency = np.concatenate([self._currency, currencies])
        self._bucket = np.concatenate([self._bucket, buckets])
        self.order = self._sorted()
        self.bounds = [0, *np.bincount(self._bucket, minlength=len(self.tables)).cumsum().tolist()]
        for bucket in np.unique(buckets).tolist():
            self.tables[bucket] = _table(self._users_by_currency(bucket))

    def _sorted(self) -> npt.NDArray[np.intp]:
        # numpy sorts numbers of up to 16 bits by counting, many times faster than wider ones.
        currency = self._currency.astype(np.min_scalar_type(len(self._currency_numbers)))
        by_currency = np.argsort(currency, kind="stable")
        return by_currency[np.argsort(self._bucket[by_currency], kind="stable")]

    def _users_by_currency(self, bucket: int) -> dict[str, list[str]]:
        members = self.order[self.bounds[bucket] : self.bounds[bucket + 1]].tolist()
        groups = (self._groups[number] for number in members)
        return {
            currency: [user_id for user_id, _ in of_currency]
            for currency, of_currency in groupby(groups, key=itemgetter(1))
        }

    @cached_property
    def _bucket_of_slot(self) -> npt.NDArray[np.uint16]:
        # The arithmetic of one slot, done to all of them.
        slots: Any = np.arange(_SLOTS)
        numbers: Any = self._keys.shard(slots) * MARK_BUCKETS + self._keys.mark_bucket(slots)
        buckets: npt.NDArray[np.uint16] = numbers.astype(np.uint16)
        return buckets


def _table(users: dict[str, list[str]]) -> bytes:
    packed = msgspec.msgpack.encode(users)
    return len(packed).to_bytes(LENGTH_BYTES, "little") + packed
