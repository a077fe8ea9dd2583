"""Users' counters: counted again from live records and from what was archived.

Every commit that touches a user appends to his string of changed trades. So the two hashes are replaced
whole if that string is still the one that was read before the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tradepool.audit.repair.archived_counts import ArchivedCounts
from tradepool.audit.repair.fixes import CHANGED, Fix, mended, refusal
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import ShardState, content_of
from tradepool.audit.rules.record_rules import own_id
from tradepool.audit.rules.registry import Repair
from tradepool.batching import batched
from tradepool.errors import Corrupt
from tradepool.model.archived import Archived
from tradepool.model.counters import add_counters, contribution
from tradepool.model.trade import Trade
from tradepool.store.arguments import Argument
from tradepool.store.changed_ids import CUT_CHARS, SEPARATOR
from tradepool.store.inspection import Lifetime
from tradepool.store.limbs import split_limbs
from tradepool.store.mending import Look, Write

__all__ = ["counter_fixes"]

_ATTEMPTS_MAX = 10
_USERS_BATCH = 200
_SHOWN_MAX = 5


def counter_fixes(
    pool: RepairedPool,
    state: ShardState,
    users: Iterable[str],
    noted: frozenset[str],
    missing: Callable[[], bool],
) -> Iterator[Fix]:
    """Users whose counters are not what their trades come to; of those `noted` a finding tells so.

    `missing` says whether the store lacks records of which nobody has told: then nothing is counted.
    """
    archived = ArchivedCounts(pool, state.shard)
    for batch in batched(sorted(users), _USERS_BATCH):
        wrong = [
            user_id
            for user_id, lifetime in zip(batch, _lifetimes(pool, batch), strict=True)
            if user_id in noted or _differs(lifetime, state.live[user_id])
        ]
        if wrong and missing():
            why = "the journal has records that the store lacks; audit deeply, and repair these first"
            yield refusal(Repair.COUNTERS, f"shard {state.shard:02x}", why)
            return
        # One pass over the journal for all of them.
        archived.look_up(trade_id for user_id in wrong for trade_id in state.archived[user_id])
        for user_id in wrong:
            fix = _fix(pool, state, user_id, archived)
            if fix is not None:
                yield fix


def _lifetimes(pool: RepairedPool, users: list[str]) -> list[Lifetime | None]:
    """None: a hash of a wrong type."""
    try:
        return list(pool.store.lifetimes(users))
    except Corrupt:
        if len(users) == 1:
            return [None]
        return [found for user_id in users for found in _lifetimes(pool, [user_id])]


def _differs(lifetime: Lifetime | None, live: dict[str, int]) -> bool:
    if lifetime is None:
        # A key of a wrong type is a fault of its own.
        return False
    if lifetime.unreadable:
        return True
    fold = dict(lifetime.archived)
    add_counters(fold, live)
    return _without_zeros(fold) != lifetime.counters


def _fix(pool: RepairedPool, state: ShardState, user_id: str, archived: ArchivedCounts) -> Fix | None:
    counted = _Counted(pool, state, user_id, archived)
    why = counted.count()
    if why is not None:
        return refusal(Repair.COUNTERS, user_id, why, user_id)
    if counted.detail == "":
        return None
    return Fix(
        action=Repair.COUNTERS,
        subject=user_id,
        detail=counted.detail,
        act=counted.write,
        user_id=user_id,
    )


class _Counted:
    """One user's counters as they are, and as his trades come to."""

    def __init__(self, pool: RepairedPool, state: ShardState, user_id: str, archived: ArchivedCounts) -> None:
        self._pool = pool
        self._archived = archived
        self._shard = state.shard
        self._user_id = user_id
        self._known = frozenset(state.archived[user_id])
        keys = pool.keys
        self._names = (keys.counters(state.shard, user_id), keys.archived_counters(state.shard, user_id))
        self._changed = keys.changed(state.shard, user_id)
        self._state = state
        self.detail = ""

    def count(self) -> str | None:
        """Work out what to write; why that cannot be told, None if it can."""
        for _ in range(_ATTEMPTS_MAX):
            before = self._noted()
            live, archived_ids, is_whole = self._fold()
            archived = self._archived.total(archived_ids)
            lifetime = _lifetimes(self._pool, [self._user_id])[0]
            if self._noted() != before:
                continue
            if not is_whole:
                return "a record of the user cannot be read"
            if archived is None:
                return "the journal does not have all trades of the user that were archived"
            total = dict(archived)
            add_counters(total, live)
            self._seen = before
            self._wanted = (_without_zeros(total), _without_zeros(archived))
            self.detail = _detail(lifetime, *self._wanted)
            return None
        return "the user's trades do not stand still; try again later"

    def write(self) -> str | None:
        """Replace both hashes, or tell why not."""
        for _ in range(_ATTEMPTS_MAX):
            if mended(self._pool, [Look("GET", self._changed, [], self._seen)], self._writes())() is None:
                return None
            why = self.count()
            if why is not None:
                return why
        return CHANGED

    def _writes(self) -> Iterator[Write]:
        for key, counters in zip(self._names, self._wanted, strict=True):
            yield Write("DEL", key, [])
            limbs: list[Argument] = []
            for name, number in counters.items():
                limbs += [part for limb in split_limbs(name, number) for part in limb]
            if limbs:
                yield Write("HSET", key, limbs)
        # What processes have worked out of the user is void.
        if self._seen is None:
            yield Write("SET", self._changed, ["0" * CUT_CHARS + SEPARATOR])
        else:
            yield Write("APPEND", self._changed, [SEPARATOR])

    def _noted(self) -> bytes | None:
        (text,) = self._pool.mender.ask([("GET", self._changed)])
        return bytes(text) if text is not None else None

    def _fold(self) -> tuple[dict[str, int], frozenset[str], bool]:
        """The fold over live trades, the ids of archived ones, and whether all could be read."""
        store, shard = self._pool.store, self._shard
        total: dict[str, int] = {}
        archived: set[str] = set()
        ids = {*self._state.trades_of(self._user_id), *store.user_trade_ids(self._user_id), *self._known}
        is_whole, counted = True, set[str]()
        for value in store.read_all(shard, sorted(ids)):
            content = content_of(value)
            if content is not None and own_id(content) in counted:
                # It stands under another's id as well.
                content = None
            counted |= set() if content is None else {own_id(content)}
            if isinstance(content, Trade) and content.user_id == self._user_id:
                add_counters(total, contribution(content))
            elif isinstance(content, Archived):
                archived.add(content.trade_id)
            is_whole = is_whole and content is not None
        return total, frozenset(archived), is_whole


def _detail(lifetime: Lifetime | None, total: dict[str, int], archived: dict[str, int]) -> str:
    """From which figures to which; '' where they are right."""
    if lifetime is None:
        return f"a key of a wrong type → {len(total)} counters"
    if lifetime.unreadable:
        return f"{lifetime.unreadable} → {len(total)} counters"
    pairs = [("", lifetime.counters, total), ("archived ", lifetime.archived, archived)]
    changes = [
        f"{prefix}{name}: {kept.get(name, 0)} → {right.get(name, 0)}"
        for prefix, kept, right in pairs
        for name in sorted(kept.keys() | right.keys())
        if kept.get(name, 0) != right.get(name, 0)
    ]
    more = [f"and {len(changes) - _SHOWN_MAX} more"] if len(changes) > _SHOWN_MAX else []
    return ", ".join([*changes[:_SHOWN_MAX], *more])


def _without_zeros(counters: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in counters.items() if number}
