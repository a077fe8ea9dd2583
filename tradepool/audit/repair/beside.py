"""Which shards are looked through for what stands beside records, and all that is found there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tradepool.audit.repair.claims import claim_fixes
from tradepool.audit.repair.counters import counter_fixes
from tradepool.audit.repair.fixes import Fix
from tradepool.audit.repair.indexes import index_fixes, route_fixes, user_fixes
from tradepool.audit.repair.journaled import Lost
from tradepool.audit.repair.records import RecordRepairs
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import ShardState
from tradepool.audit.report import Finding
from tradepool.audit.rules.file_rules import bucket_sums, digest
from tradepool.audit.rules.key_rules import key_ttl, key_type, key_value
from tradepool.audit.rules.registry import RULES, Repair
from tradepool.errors import Corrupt
from tradepool.model.ids import slot_of_user
from tradepool.store.key_families import family_of
from tradepool.store.keys import Keys

__all__ = ["Scope", "beside_fixes"]

_SUMS = frozenset({digest.name, bucket_sums.name})
_KEYS = frozenset({key_ttl.name, key_type.name, key_value.name})
_COUNTERS_FAMILIES = frozenset({"c", "ca"})
_SHARD = "shard "


class Scope(msgspec.Struct, frozen=True):
    """What findings are about."""

    shards: set[int]
    """Where indexes, claims, routes and counters are to be compared with the records."""
    summed: set[int]
    """Whose sums are to be counted again."""
    users: frozenset[str]
    """Users whose counters are said to be wrong."""
    user_id: str | None
    """The only user that matters; None: all."""
    mistyped: frozenset[int]
    """Shards with a key of a wrong type: until it has its own again, nothing can be told beside it."""
    differing: frozenset[int]
    """Shards of which store and journal say something else."""

    @classmethod
    def of(
        cls, pool: RepairedPool, findings: Sequence[Finding], records: RecordRepairs, user_id: str | None
    ) -> Scope:
        """What is to be looked at because of `findings`, once `records` are repaired."""
        shards, summed, users = set(records.shards), set(records.shards), set()
        for finding in findings:
            if finding.subject == Keys.journal:
                # It does not agree with what the shard says of its last commit.
                summed |= _journaled_shard(pool, finding)
            elif finding.rule in _KEYS:
                shard = pool.keys.shard_of_key(finding.subject)
                family, rest = family_of(finding.subject)
                if finding.rule == key_ttl.name or shard not in pool.keys.shards:
                    continue
                (summed if family in {"digest", "r"} else shards).add(shard)
                if family == "r":
                    shards.add(shard)
                if family in _COUNTERS_FAMILIES:
                    users.add(rest)
            elif finding.rule in _SUMS:
                summed.add(int(finding.subject.removeprefix(_SHARD), 16))
            elif _is_beside(finding):
                shards |= _shards_of(pool, finding)
        if user_id is not None:
            shards &= {pool.keys.shard_of_user(user_id)}
        return cls(shards, summed, frozenset(users), user_id, *_troubled(pool, findings))


def beside_fixes(
    pool: RepairedPool, shard: int, scope: Scope, records: RecordRepairs, lost: Lost
) -> Iterator[Fix]:
    """What to write beside the records of a shard, of those that are as they should be.

    Raises: Corrupt for a key of a wrong type.
    """
    state = ShardState(pool, shard)
    state.read()
    unsound = frozenset(records.unsound) | state.unreadable
    yield from user_fixes(pool, state, unsound, lost)
    yield from index_fixes(pool, state, unsound, lost)
    yield from route_fixes(pool, state, unsound)
    yield from claim_fixes(pool, state, unsound, lost)
    if not state.unreadable and None not in records.unsound.values():
        users = {scope.user_id} if scope.user_id is not None else state.users
        users = users & state.users - set(filter(None, records.unsound.values()))
        yield from counter_fixes(
            pool, state, users, scope.users, lambda: not lost.ids() <= records.unsound.keys()
        )


def _troubled(pool: RepairedPool, findings: Sequence[Finding]) -> tuple[frozenset[int], frozenset[int]]:
    """`Scope.mistyped` and `Scope.differing`."""
    names = {one.subject for one in findings if one.rule == key_type.name}
    differing = {one.subject.removeprefix(_SHARD) for one in findings if one.rule == digest.name}
    mistyped = frozenset(pool.keys.shard_of_key(name) for name in names)
    return mistyped, frozenset(int(shard, 16) for shard in differing)


def _journaled_shard(pool: RepairedPool, finding: Finding) -> set[int]:
    field = finding.detail.partition(":")[0]
    return {shard for shard in pool.keys.shards if Keys.journal_field(shard) == field}


def _is_beside(finding: Finding) -> bool:
    rule = RULES.get(finding.rule)
    return rule is not None and rule.repair in (Repair.INDEX, Repair.COUNTERS)


def _shards_of(pool: RepairedPool, finding: Finding) -> set[int]:
    """Where the subject of a finding may be: a trade, a ledger or a user. Everywhere, if nothing tells."""
    keys, name = pool.keys, finding.subject
    home = keys.home_shard(name)
    if home is not None:
        return {home}
    owners = {name, *(name[:place] for place, letter in enumerate(name) if letter == "/")}
    found = {shard for owner in owners if _is_user(pool, shard := keys.shard(slot_of_user(owner)), owner)}
    if found:
        return found
    try:
        routed = pool.store.shard_of_trade(name)
    except ValueError:
        routed = None
    # A route may be what is wrong.
    is_there = routed is not None and pool.store.read([(routed, name)])[0] is not None
    return {routed} if routed is not None and is_there else set(keys.shards)


def _is_user(pool: RepairedPool, shard: int, user_id: str) -> bool:
    try:
        return pool.store.known_users(shard, [user_id])[0]
    except Corrupt:
        return True
