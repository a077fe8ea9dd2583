"""The token ledger of one account: what the venue says is free, and what is set aside of it.

How a venue's figure becomes total, reserved and available: the venue knows nothing of reservations,
so the free balance it tells is the *total* the pool may hand out, and `available = total - reserved`.
Between snapshots `free` follows the settlements. A venue may tell less than is reserved (it locked
the coins of a placed order itself, or they are gone); the asset is then *frozen*: its total counts
as what is reserved, nothing is available, and it thaws when a snapshot or the resolved reservations
bring `free` above `reserved` again. What a settlement received is not added to a snapshot that was
taken while its order could have been filled already: the venue may have counted it. So
0 ≤ reserved ≤ total holds by construction, and every doubt makes the available amount smaller, never
larger, until the next snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from functools import reduce
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from tradepool.errors import InvalidTokens, InvalidTrade
from tradepool.model.fields import text
from tradepool.model.money import CONTEXT, ZERO, canonical
from tradepool.model.plain_form import plain_fields, plain_value

__all__ = [
    "USER_ID_CHARS_MAX",
    "Balance",
    "Hold",
    "Ledger",
    "Reservation",
    "ReservationName",
    "ReservationStatus",
    "available",
    "broken_rules",
    "checked_name",
    "find_reservation",
    "ledger_id",
    "next_expiry",
    "open_reservations",
    "owner_of_ledger",
    "parse_reservation_id",
    "reservation_id",
]

USER_ID_CHARS_MAX = 128
"""Longest user id, of trades and ledgers."""

_SEPARATOR = "\x1f"
_account_name = text()


class ReservationStatus(StrEnum):
    """A reservation is open, then resolved once in one of three ways: settled, released or expired."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"
    FORGOTTEN = "forgotten"
    """Resolved so long ago that the ledger no longer says how: an answer to a repeat, never stored."""


class Balance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One asset of a ledger."""

    free: Decimal = ZERO
    """What the venue last told, less what was spent and plus what was surely received since; ≥ 0."""
    reserved: Decimal = ZERO
    """Sum of the open reservations."""
    as_of: int | None = None
    """Time of the newest snapshot or settlement of this asset, µs; None: nobody ever told an amount."""
    told_at: int | None = None
    """Time of the newest snapshot of this asset, µs; 0: there was none; None: `as_of` may be that of one."""
    tradable: bool = False
    """Named in the last list of tradable assets."""
    listed_at: int | None = None
    """Time of the newest such list, µs."""

    @property
    def last_told_at(self) -> int:
        """When the newest snapshot of this asset was taken at the latest, µs; 0: there was none."""
        return (self.as_of or 0) if self.told_at is None else self.told_at

    @property
    def total(self) -> Decimal:
        """What is free or reserved, never below `reserved`."""
        return max(self.free, self.reserved)

    @property
    def available(self) -> Decimal:
        """What can be reserved: `total` less `reserved`."""
        return canonical(CONTEXT.subtract(self.total, self.reserved))

    @property
    def frozen(self) -> bool:
        """Whether more is reserved than the venue has: an audit finding."""
        return self.reserved > self.free

    def to_dict(self) -> dict[str, Any]:
        """Fields and derived amounts as JSON-able values."""
        derived = {"total": self.total, "available": self.available, "frozen": self.frozen}
        return plain_fields(self) | {name: plain_value(value) for name, value in derived.items()}


class Hold(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An amount set aside for one purpose, as a ledger stores it: an array, for ledgers have many."""

    asset: str
    amount: Decimal
    reserved_at: int
    expires_at: int
    """From then on anybody may expire it; until somebody does it can still be settled."""
    status: ReservationStatus = ReservationStatus.OPEN
    resolved_at: int | None = None
    spent: Decimal = ZERO
    received: dict[str, Decimal] = {}


class Reservation(Hold, frozen=True, kw_only=True, array_like=False):
    """A hold under the name by which everybody knows it."""

    reservation_id: str
    """Names user, account and key: `reservation_id()`."""

    @property
    def key(self) -> str:
        """The caller's key."""
        return parse_reservation_id(self.reservation_id).key

    @property
    def hold(self) -> Hold:
        """What a ledger stores of it."""
        fields = {name: getattr(self, name) for name in Hold.__struct_fields__}
        return Hold(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        return {"reservation_id": self.reservation_id} | plain_fields(self)


class Ledger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Balances and reservations of one account of a user; version 0 is one that was never written."""

    user_id: str
    account_id: str = "default"
    version: int = 0
    assets: dict[str, Balance] = {}
    """By asset; one that is missing is unknown, not zero."""
    reservations: dict[str, Hold] = {}
    """The open ones by key."""
    resolved: dict[str, Hold] = {}
    """The last resolved ones by key, newest last."""
    forgotten: str = ""
    """Short ids of keys that `resolved` has lost while their time was not over, newest last."""
    applied: str = ""
    """Short ids of the last applied commands, 16 hex each, newest last."""
    updated_at: int = 0
    schema_version: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values, derived amounts included."""
        balances = {asset: balance.to_dict() for asset, balance in self.assets.items()}
        return plain_fields(self) | {"assets": balances}


class ReservationName(NamedTuple):
    """What a reservation's id says."""

    user_id: str
    account_id: str
    key: str


def available(ledger: Ledger, *, now_us: int) -> dict[str, Decimal]:
    """The amounts that can be reserved at `now_us`, by asset; only those above 0.

    What is held by reservations whose time is over counts as given back, as `reserve` does.
    """
    over: dict[str, list[Decimal]] = {}
    for reservation in ledger.reservations.values():
        if reservation.expires_at <= now_us:
            over.setdefault(reservation.asset, []).append(reservation.amount)
    balances = ledger.assets | {
        asset: msgspec.structs.replace(
            balance, reserved=CONTEXT.subtract(balance.reserved, _sum(over[asset]))
        )
        for asset, balance in ledger.assets.items()
        if asset in over
    }
    amounts = {asset: balance.available for asset, balance in balances.items()}
    return {asset: amount for asset, amount in amounts.items() if amount > 0}


def find_reservation(ledger: Ledger, key: str) -> Reservation | None:
    """The reservation of `key`, open or among the remembered resolved ones."""
    hold = ledger.reservations.get(key) or ledger.resolved.get(key)
    return None if hold is None else reservation_of(ledger, key, hold)


def open_reservations(ledger: Ledger, now_us: int) -> list[Reservation]:
    """What is set aside, oldest first; one whose time is over, but not given back yet, is `expired`."""
    found = [reservation_of(ledger, key, hold) for key, hold in ledger.reservations.items()]
    expired = ReservationStatus.EXPIRED
    return [
        each if each.expires_at > now_us else msgspec.structs.replace(each, status=expired) for each in found
    ]


def reservation_of(ledger: Ledger, key: str, hold: Hold) -> Reservation:
    """A hold of the ledger under its full name."""
    fields = {name: getattr(hold, name) for name in Hold.__struct_fields__}
    return Reservation(reservation_id=reservation_id(ledger.user_id, ledger.account_id, key), **fields)


def next_expiry(ledger: Ledger) -> int | None:
    """When the first of the open reservations expires, µs; None: none is open."""
    return min((reservation.expires_at for reservation in ledger.reservations.values()), default=None)


def broken_rules(ledger: Ledger) -> tuple[str, ...]:
    """What an audit must report: contradictions inside the ledger, and frozen assets."""
    found = [f"{asset}: frozen" for asset, balance in ledger.assets.items() if balance.frozen]
    promised: dict[str, list[Decimal]] = {}
    for reservation in ledger.reservations.values():
        promised.setdefault(reservation.asset, []).append(reservation.amount)
    for asset in sorted(ledger.assets.keys() | promised.keys()):
        balance = ledger.assets.get(asset, Balance())
        if balance.reserved != _sum(promised.get(asset, ())):
            found.append(f"{asset}: reserved differs from the sum of the open reservations")
        if balance.free < 0 or balance.reserved < 0:
            found.append(f"{asset}: a negative amount")
    twice = sorted(ledger.reservations.keys() & ledger.resolved.keys())
    return (*found, *(f"reservation {key!r}: open, and resolved as well" for key in twice))


def ledger_id(user_id: str, account_id: str = "default") -> str:
    """The record id of an account's ledger; users and accounts are named as in trades.

    Raises: InvalidTokens for what names no user (1 to 128 printable characters) or no account.
    """
    return _SEPARATOR.join(
        (checked_name("user_id", user_id, USER_ID_CHARS_MAX), _checked_account("account_id", account_id))
    )


def owner_of_ledger(record_id: str) -> tuple[str, str]:
    """The user and the account of a `ledger_id`."""
    user_id, _, account_id = record_id.partition(_SEPARATOR)
    return user_id, account_id


def reservation_id(user_id: str, account_id: str, key: str) -> str:
    """The id that `key` always gets, so that a bare id finds its ledger: percent-encoded parts, by ":"."""
    return ":".join(quote(part, safe="") for part in (user_id, account_id, key))


def parse_reservation_id(text: object) -> ReservationName:
    """Whose reservation `text` names.

    Raises: InvalidTokens when it is not a reservation id.
    """
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) == len(ReservationName._fields):
        name = ReservationName(*map(unquote, parts))
        # Only the one spelling is an id, so that a reservation cannot go by two of them.
        if all(name) and reservation_id(*name) == text:
            return name
    raise InvalidTokens(
        "not a reservation id",
        field="reservation_id",
        value=text,
        cure="give the id that reserve_tokens returned",
    )


def checked_name(field: str, value: object, chars_max: int) -> str:
    """`value`, if it can be a name.

    Raises: InvalidTokens when it is empty, blank, too long or not printable.
    """
    if isinstance(value, str) and value.strip() and len(value) <= chars_max and value.isprintable():
        return value
    cure = f"give 1 to {chars_max} printable characters"
    raise InvalidTokens("not a name", field=field, value=value, cure=cure)


def _checked_account(field: str, value: object) -> str:
    try:
        return _account_name(field, value)
    except InvalidTrade as refusal:
        raise InvalidTokens(refusal.problem, field=field, value=value, cure=refusal.cure) from None


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return reduce(CONTEXT.add, amounts, ZERO)
