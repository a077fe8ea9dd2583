"""What one commit writes, worked out before any server is asked.

`plan_commit` turns changed records into the arguments of lua/commit.lua: the checks that must hold, and
every key that follows from the change. It also spells the outbox item from which the journal is written;
`journaling.new_lines` reads it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from tradepool.model.codec import ARCHIVED_KIND, DIGEST, LEDGER_KIND
from tradepool.model.counters import contribution
from tradepool.model.ids import slot_of_user
from tradepool.model.trade import Trade
from tradepool.store.draft import CommitPlan, Draft, OutboxField
from tradepool.store.keys import Keys

__all__ = [
    "CHANGES_MAX",
    "ITEM_SEPARATOR",
    "ITEM_SEPARATORS",
    "RecordChange",
    "claims_of",
    "draft_of",
    "new_claims",
    "plan_commit",
    "routes_of",
]

CHANGES_MAX = 1000
"""Changes in one plan. A commit has `batch_max` at most; recovery may use larger batches."""

ITEM_SEPARATOR = "\x1e"
"""Between the parts of an outbox item: record id, command id, task id, digest before, stored value."""
ITEM_SEPARATORS = 4


class RecordChange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One record from one version to the next."""

    kind: str
    """The kind of `after`, as `codec` names it."""
    record_id: str
    user_id: str
    before: bytes | None
    """The stored value that this change was decided on; None: there is no record yet."""
    after: bytes
    trade_before: Trade | None = None
    """What `before` and `after` hold, where they are trades."""
    trade_after: Trade | None = None
    trade_archived: Trade | None = None
    """Where `after` is what is left of an archived trade: the version that was archived.

    None means `trade_before`, and without that one too that nobody knows it any more: then only the
    record is written, and the user noted.
    """
    next_expiry: int | None = None
    """Of a ledger: when the first of its open reservations expires, µs; None: none is open."""
    command_id: str
    task_id: str = ""
    continues: str | None = None
    """The digest of the version that the journal has before `after`, '' where it has none; None: it has
    `before`, as it does unless somebody wrote past it.
    """

    @property
    def digest_before(self) -> str:
        """The digest of the journaled version that `after` follows; '' for a new record."""
        if self.continues is not None:
            return self.continues
        return "" if self.before is None else self.before[DIGEST].decode()


def new_claims(before: Trade | None, after: Trade) -> list[str]:
    """The venue fills that `after` has booked and `before` had not; in order, named as by `claims_of`."""
    claims = claims_of(after)
    if not claims:
        return []
    return sorted(claims - claims_of(before) if before is not None else claims)


def claims_of(trade: Trade) -> set[str]:
    """The venue fills that the trade has booked, as `Keys.fill_claim` names them.

    Fills the pool made itself (`<trade id>:…`) are nobody else's and need no claim.
    """
    own = f"{trade.trade_id}:"
    claims = set()
    # A loop: most trades have none, and a comprehension is a call.
    for fill in trade.fills:
        if not fill.fill_id.startswith(own):
            claims.add(Keys.fill_claim(trade.exchange, trade.account_id, trade.symbol, fill.fill_id))
    return claims


def routes_of(keys: Keys, changes: Iterable[RecordChange]) -> dict[str, int]:
    """The slots of the users of those trades whose ids carry none, by id."""
    return {
        change.record_id: slot_of_user(change.user_id)
        for change in changes
        if change.kind != LEDGER_KIND and keys.home_shard(change.record_id) is None
    }


def plan_commit(
    keys: Keys,
    shard: int,
    changes: Sequence[RecordChange],
    *,
    recent_max: int,
    with_outbox: bool = True,
    generation: str | None = None,
) -> CommitPlan:
    """Everything one commit of `changes`, all of one shard, compares and writes.

    Changes of the same record follow each other in order: the first one's `before` is compared, the last
    one's `after` is stored, and each is an outbox item. A new record's idempotency key and new fill claims
    must be free. Without outbox the plan writes the same projection and leaves the outbox alone: what
    recovery replays is in the journal already. With `generation` the server refuses it in any other.

    Raises: Corrupt when two records of the batch claim the same key or fill.
    """
    assert 0 < len(changes) <= CHANGES_MAX
    draft = draft_of(keys, shard, changes, recent_max=recent_max)
    if with_outbox:
        draft.outbox = list(_outbox_fields(changes))
    draft.generation = generation
    return draft.plan()


def draft_of(keys: Keys, shard: int, changes: Iterable[RecordChange], *, recent_max: int) -> Draft:
    """What `changes`, all of one shard, write, collected; any number of them, and no outbox.

    Raises: Corrupt when two records claim the same key or fill.
    """
    draft = Draft(keys, shard)
    for change in _merged(changes):
        _plan_record(draft, change)
        if change.kind == LEDGER_KIND:
            draft.set_expiry(change.record_id, change.next_expiry)
        else:
            draft.note_changed(change.user_id, change.record_id)
        if change.trade_after is not None:
            _plan_trade(draft, change.trade_before, change.trade_after)
        elif change.kind == ARCHIVED_KIND:
            _plan_archived(draft, change.trade_before, _archived_version(change))
    draft.trim_recent(recent_max)
    return draft


def _merged(changes: Iterable[RecordChange]) -> Iterable[RecordChange]:
    """One change per record: from the first one's before to the last one's after."""
    merged: dict[str, RecordChange] = {}
    for change in changes:
        first = merged.get(change.record_id)
        if first is None:
            merged[change.record_id] = change
            continue
        assert change.before == first.after, "each change of a record is decided on the one before it"
        merged[change.record_id] = msgspec.structs.replace(
            first,
            kind=change.kind,
            after=change.after,
            trade_after=change.trade_after,
            trade_archived=_archived_version(change) if change.kind == ARCHIVED_KIND else None,
            next_expiry=change.next_expiry,
        )
    return merged.values()


def _archived_version(change: RecordChange) -> Trade | None:
    return change.trade_archived or change.trade_before


def _plan_record(draft: Draft, change: RecordChange) -> None:
    """The record itself: compared, stored, digested; its user is known and has one more revision."""
    draft.record(change.record_id, change.before, change.after, digest_before=change.digest_before)
    draft.touch_user(change.user_id, is_new=change.before is None)


def _plan_trade(draft: Draft, before: Trade | None, after: Trade) -> None:
    """What follows from a trade: indexes, the set of open trades, claims and counters."""
    if before is None:
        draft.index_trade(after)
        if after.idempotency_key is not None:
            draft.claim_idempotency_key(after.user_id, after.idempotency_key, after.trade_id)
    if after.is_open != (before is not None and before.is_open):
        draft.set_open(after)
    if after.quarantine != (None if before is None else before.quarantine):
        draft.set_quarantined(after)
    for claim in new_claims(before, after):
        draft.claim_fill(after.user_id, claim, after.trade_id)
    draft.count(after.user_id, _difference(before, contribution(after)))


def _plan_archived(draft: Draft, before: Trade | None, archived: Trade | None) -> None:
    """What the store forgets of a trade (as it has it, if at all), and what it goes on counting."""
    if before is not None:
        draft.forget_trade(before)
        if before.idempotency_key is not None:
            draft.release_idempotency_key(before.user_id, before.idempotency_key, before.trade_id)
        for claim in sorted(claims_of(before)):
            draft.release_fill(before.user_id, claim, before.trade_id)
    if archived is not None:
        counted = contribution(archived)
        draft.count_archived(archived.user_id, counted)
        draft.count(archived.user_id, _difference(before, counted))


def _difference(before: Trade | None, counted: Mapping[str, int]) -> Mapping[str, int]:
    """What changes where `before` was counted already, and `counted` is to be."""
    if before is None:
        return counted
    changed = dict(counted)
    for name, amount in contribution(before).items():
        changed[name] = changed.get(name, 0) - amount
    return changed


def _outbox_fields(changes: Iterable[RecordChange]) -> Iterator[OutboxField]:
    for index, change in enumerate(changes):
        operation = "u" if change.digest_before else "a"
        parts = (change.record_id, change.command_id, change.task_id, change.digest_before, "")
        prefix = ITEM_SEPARATOR.join(parts)
        assert prefix.count(ITEM_SEPARATOR) == ITEM_SEPARATORS, "ids are checked where they come in"
        yield OutboxField(f"{change.kind}{operation}{index}", prefix, change.after)
