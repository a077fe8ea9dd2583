"""Rules for token ledgers: balances, reservations, and the index that has them given back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tradepool.audit.report import Finding, Severity
from tradepool.audit.rules.registry import Fault, Level, Repair, Rule, rule
from tradepool.errors import Rejected
from tradepool.model.ledger import Ledger, broken_rules, checked_name, ledger_id
from tradepool.model.reservations import KEY_CHARS_MAX
from tradepool.model.trade import Trade

__all__ = [
    "BALANCE_MAX_US",
    "EXPIRED_MAX_US",
    "LEDGER_SCHEMA",
    "ORPHAN_AFTER_US",
    "Expiry",
    "Held",
    "balance_conservation",
    "check_ledger",
    "expired_reservation",
    "expiry_extra",
    "expiry_missing",
    "frozen_asset",
    "ledger_schema",
    "orphan_reservation",
    "reservation_key",
    "stale_balance",
]

_MINUTE_US = 60 * 1_000_000
_DAY_US = 24 * 60 * _MINUTE_US
EXPIRED_MAX_US = _DAY_US
"""How long after its time a reservation may still be there; the fleet gives it back every few seconds, a
pool without a fleet with the account's next reserve."""
ORPHAN_AFTER_US = 60 * _MINUTE_US
"""How long a reservation may outlive its trade: a bot closes the trade first, then settles."""
BALANCE_MAX_US = 7 * _DAY_US
"""How old a venue's figure may be while some of it is reserved."""
LEDGER_SCHEMA = 1
"""The newest schema of ledgers that this release knows."""


class Expiry(NamedTuple):
    """When the first open reservation of a ledger expires, µs: as it says itself, and as the index has it."""

    record_id: str
    expires: int | None
    indexed: int | None


class Held(NamedTuple):
    """A ledger, the key of an open reservation that names a trade, and that trade, None: there is none."""

    ledger: Ledger
    key: str
    trade: Trade | None


def check_ledger(ledger: Ledger, *, now_us: int) -> list[Finding]:
    """Every finding about one ledger on its own, as of `now_us` (µs)."""
    found = [finding for each in _OF_LEDGER for finding in each(ledger)]
    return found + [finding for each in _OF_LEDGER_IN_TIME for finding in each(ledger, now_us)]


@rule(Severity.CRITICAL, Level.STANDARD)
def balance_conservation(ledger: Ledger) -> Iterator[Fault]:
    """What is reserved is the sum of the open reservations, nothing is negative, nothing resolved twice,
    nothing spent beyond what was reserved.
    """
    for detail in broken_rules(ledger):
        if not detail.endswith(": frozen"):
            yield _name(ledger), detail
    for key, hold in ledger.resolved.items():
        if not 0 <= hold.spent <= hold.amount:
            yield _name(ledger), f"reservation {key!r}: {hold.spent} spent of {hold.amount}"


@rule(Severity.WARNING, Level.STANDARD)
def frozen_asset(ledger: Ledger) -> Iterator[Fault]:
    """More of an asset is reserved than the venue has: nothing of it can be reserved until that ends."""
    for asset, balance in ledger.assets.items():
        if balance.frozen:
            yield _name(ledger), f"{asset}: {balance.reserved} reserved, {balance.free} there"


@rule(Severity.CRITICAL, Level.STANDARD)
def reservation_key(ledger: Ledger) -> Iterator[Fault]:
    """The key of a reservation is a name that callers can give, or nobody could settle or release it."""
    for key in (*ledger.reservations, *ledger.resolved):
        try:
            checked_name("key", key, KEY_CHARS_MAX)
        except Rejected as refusal:
            yield _name(ledger), str(refusal)


@rule(Severity.CRITICAL, Level.STANDARD)
def ledger_schema(ledger: Ledger) -> Iterator[Fault]:
    """A ledger is of a schema that this release knows; a newer one may mean other things by its fields."""
    if not 1 <= ledger.schema_version <= LEDGER_SCHEMA:
        yield _name(ledger), f"schema {ledger.schema_version}; this release knows up to {LEDGER_SCHEMA}"


@rule(Severity.WARNING, Level.STANDARD, Repair.RELEASE)
def expired_reservation(ledger: Ledger, now_us: int) -> Iterator[Fault]:
    """A reservation whose time is long over has been given back."""
    for key, hold in ledger.reservations.items():
        if hold.expires_at < now_us - EXPIRED_MAX_US:
            yield _name(ledger), f"{key!r} holds {hold.amount} {hold.asset} since {hold.expires_at} (µs)"


@rule(Severity.NOTICE, Level.STANDARD)
def stale_balance(ledger: Ledger, now_us: int) -> Iterator[Fault]:
    """A venue has lately told how much there is of what is reserved."""
    for asset, balance in ledger.assets.items():
        if balance.reserved and balance.as_of is not None and balance.as_of < now_us - BALANCE_MAX_US:
            yield _name(ledger), f"{asset}: last told at {balance.as_of} (µs), {balance.reserved} reserved"


@rule(Severity.WARNING, Level.STANDARD, Repair.RELEASE)
def orphan_reservation(held: Held, now_us: int) -> Iterator[Fault]:
    """The trade that a reservation is for is there and alive."""
    hold = held.ledger.reservations.get(held.key)
    if hold is None or hold.reserved_at > now_us - ORPHAN_AFTER_US:
        return
    if held.trade is None:
        yield _name(held.ledger), f"{held.key!r}: there is no such trade"
    elif not held.trade.is_open and held.trade.updated_at <= now_us - ORPHAN_AFTER_US:
        yield _name(held.ledger), f"{held.key!r}: the trade is {held.trade.status}"


@rule(Severity.CRITICAL, Level.STANDARD, Repair.INDEX)
def expiry_missing(expiry: Expiry) -> Iterator[Fault]:
    """A ledger with open reservations stands in the index at the time when the first of them expires."""
    if expiry.expires is not None and expiry.indexed != int(float(expiry.expires)):
        indexed = f"its first reservation expires at {expiry.expires}, indexed at {expiry.indexed} (µs)"
        yield expiry.record_id, indexed


@rule(Severity.WARNING, Level.STANDARD, Repair.INDEX)
def expiry_extra(expiry: Expiry) -> Iterator[Fault]:
    """The index names no ledger that has nothing to give back."""
    if expiry.expires is None and expiry.indexed is not None:
        yield expiry.record_id, f"indexed at {expiry.indexed} (µs), and has no open reservation"


_OF_LEDGER: tuple[Rule[[Ledger]], ...] = (balance_conservation, frozen_asset, reservation_key, ledger_schema)
_OF_LEDGER_IN_TIME: tuple[Rule[[Ledger, int]], ...] = (expired_reservation, stale_balance)


def _name(ledger: Ledger) -> str:
    return ledger_id(ledger.user_id, ledger.account_id)
