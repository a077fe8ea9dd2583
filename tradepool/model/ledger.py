"""The token ledger of one account: what the venue says is free, and what is set aside of it.

How a venue's figure becomes total, reserved and available: the venue knows nothing of reservations,
so the free balance it tells is the *total* the pool may hand out, and `available = total - reserved`.
Between snapshots `free` follows the settlements. A venue may tell less than is reserved (it locked
the coins of a placed order itself, or they are gone); the asset is then *frozen*: its total counts
as what is reserved, nothing is available, and it thaws when a snapshot or the resolved reservations
bring `free` above `reserved` again. So 0 ≤ reserved ≤ total holds by construction, and every doubt
makes the available amount smaller, never larger, until the next snapshot.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from tradepool.errors import InvalidTokens
from tradepool.model.money import CONTEXT, ZERO, canonical
from tradepool.model.plain_form import plain_fields, plain_value
from tradepool.model.statistics import exact_sum

__all__ = [
    "NAME_CHARS_MAX",
    "Balance",
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
    "parse_reservation_id",
    "reservation_id",
]

NAME_CHARS_MAX = 256
"""Longest user id and account id."""

_SEPARATOR = "\x1f"


class ReservationStatus(StrEnum):
    """A reservation is open, then resolved once in one of three ways."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class Balance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One asset of a ledger."""

    free: Decimal = ZERO
    """What the venue last told, less what was spent and plus what was received since; ≥ 0."""
    reserved: Decimal = ZERO
    """Sum of the open reservations."""
    as_of: int | None = None
    """Time of the newest snapshot or settlement of this asset, µs; None: nobody ever told an amount."""
    tradable: bool = False
    """Named in the last list of tradable assets."""
    listed_at: int | None = None
    """Time of the newest such list, µs."""

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


class Reservation(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An amount set aside for one purpose; stored as an array because ledgers remember many."""

    reservation_id: str
    """Names user, account and key: `reservation_id()`."""
    asset: str
    amount: Decimal
    status: ReservationStatus
    reserved_at: int
    expires_at: int
    """From then on anybody may expire it; until somebody does it can still be settled."""
    resolved_at: int | None = None
    spent: Decimal = ZERO
    received: dict[str, Decimal] = {}

    @property
    def key(self) -> str:
        """The caller's key."""
        return parse_reservation_id(self.reservation_id).key

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        return plain_fields(self)


class Ledger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Balances and reservations of one account of a user; version 0 is one that was never written."""

    user_id: str
    account_id: str = "default"
    version: int = 0
    assets: dict[str, Balance] = {}
    """By asset; one that is missing is unknown, not zero."""
    reservations: dict[str, Reservation] = {}
    """The open ones by key."""
    resolved: tuple[Reservation, ...] = ()
    """The last resolved ones, newest last."""
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


def available(ledger: Ledger) -> dict[str, Decimal]:
    """The amounts that can be reserved, by asset; only those above 0."""
    amounts = {asset: balance.available for asset, balance in ledger.assets.items()}
    return {asset: amount for asset, amount in amounts.items() if amount > 0}


def find_reservation(ledger: Ledger, key: str) -> Reservation | None:
    """The reservation of `key`, open or among the remembered resolved ones."""
    reservation = ledger.reservations.get(key)
    if reservation is not None:
        return reservation
    wanted = reservation_id(ledger.user_id, ledger.account_id, key)
    return next((past for past in reversed(ledger.resolved) if past.reservation_id == wanted), None)


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
        if balance.reserved != exact_sum(promised.get(asset, ())):
            found.append(f"{asset}: reserved differs from the sum of the open reservations")
        if balance.free < 0 or balance.reserved < 0:
            found.append(f"{asset}: a negative amount")
    return tuple(found)


def ledger_id(user_id: str, account_id: str = "default") -> str:
    """The record id of an account's ledger.

    Raises: InvalidTokens when a name is empty, longer than 256 characters or not printable.
    """
    return _SEPARATOR.join((checked_name("user_id", user_id), checked_name("account_id", account_id)))


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


def checked_name(field: str, value: object, chars_max: int = NAME_CHARS_MAX) -> str:
    """`value`, if it can be a name.

    Raises: InvalidTokens when it is empty, blank, too long or not printable.
    """
    if isinstance(value, str) and value.strip() and len(value) <= chars_max and value.isprintable():
        return value
    cure = f"give 1 to {chars_max} printable characters"
    raise InvalidTokens("not a name", field=field, value=value, cure=cure)
