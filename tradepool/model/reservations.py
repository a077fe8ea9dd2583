"""Reservations of tokens: set aside, then settled, released or expired, each once."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from tradepool.errors import IdempotencyConflict, IllegalTransition, InsufficientTokens, InvalidTokens
from tradepool.model.ledger import (
    Ledger,
    Reservation,
    ReservationStatus,
    checked_name,
    find_reservation,
    parse_reservation_id,
    reservation_id,
)
from tradepool.model.ledger_change import LedgerChange, balance_of, is_applied, next_version, with_balance
from tradepool.model.money import CONTEXT, ZERO, canonical, plain
from tradepool.model.token_commands import ExpireTokens, ReleaseTokens, ReserveTokens, SettleTokens
from tradepool.model.token_intake import amount_of, amounts_of, asset_of, positive_amount_of, ttl_us_of

__all__ = ["KEY_CHARS_MAX", "OPEN_RESERVATIONS_MAX", "RESOLVED_MAX", "expire", "release", "reserve", "settle"]

OPEN_RESERVATIONS_MAX = 1000
"""Open reservations of one account."""
KEY_CHARS_MAX = 128
"""Longest key of a reservation."""
RESOLVED_MAX = 256
"""Resolved reservations a ledger remembers, so that a repeat is told from a new request."""


def reserve(ledger: Ledger, command: ReserveTokens, *, now_us: int) -> LedgerChange:
    """Set an amount aside until `as_of` + `ttl_s`; the key makes a repeat a `duplicate`.

    Reservations whose time is over at `now_us` are given back first. A command that arrives after its
    own time is over is `stale` and reserves nothing.

    Raises: InsufficientTokens when less is available, IdempotencyConflict when the key stands for
    another asset or amount, InvalidTokens for a value that is none or with 1000 open reservations.
    """
    key = checked_name("key", command.key, KEY_CHARS_MAX)
    asset, amount = asset_of("asset", command.asset), positive_amount_of("amount", command.amount)
    # A bot whose clock runs ahead must not hold tokens for longer than it asked.
    expires_at = min(command.as_of, now_us) + ttl_us_of("ttl_s", command.ttl_s)
    known = find_reservation(ledger, key)
    if is_applied(ledger, command.command_id):
        return LedgerChange(outcome="duplicate", ledger=ledger, reservation=known)
    if known is not None:
        return _reserved_again(ledger, known, asset, amount)
    if expires_at <= now_us:
        return LedgerChange(outcome="stale", ledger=ledger)
    made = Reservation(
        reservation_id=reservation_id(ledger.user_id, ledger.account_id, key),
        asset=asset,
        amount=amount,
        status=ReservationStatus.OPEN,
        reserved_at=command.as_of,
        expires_at=expires_at,
    )
    after = next_version(_set_aside(_without_expired(ledger, now_us), made, key), command)
    return LedgerChange(outcome="applied", ledger=after, reservation=made)


def settle(ledger: Ledger, command: SettleTokens) -> LedgerChange:
    """Spend up to the reserved amount, return the rest, add what was received; once.

    An open reservation whose time is over can still be settled, for the tokens were really spent. The
    same settlement again is a `duplicate`.

    Raises: InvalidTokens for an unknown reservation, `spent` beyond it or a value that is none,
    IllegalTransition when it was released or expired, IdempotencyConflict when it was settled
    with other amounts.
    """
    spent, received = amount_of("spent", command.spent), amounts_of("received", command.received)
    if is_applied(ledger, command.command_id):
        return _repeated(ledger, command.reservation_id)
    reservation = _named(ledger, command.reservation_id)
    if reservation.status is ReservationStatus.SETTLED:
        return _settled_again(ledger, reservation, spent, received)
    if reservation.status is not ReservationStatus.OPEN:
        raise _resolved_otherwise(reservation, "cannot be settled")
    if spent > reservation.amount:
        raise InvalidTokens(
            "more than reserved", field="spent", value=plain(spent), cure=_at_most(reservation)
        )
    done = msgspec.structs.replace(
        reservation,
        status=ReservationStatus.SETTLED,
        resolved_at=command.as_of,
        spent=spent,
        received=received,
    )
    return LedgerChange(
        outcome="applied", ledger=next_version(_resolve(ledger, done), command), reservation=done
    )


def release(ledger: Ledger, command: ReleaseTokens) -> LedgerChange:
    """Give a reservation back unspent; one already given back or expired is a `duplicate`.

    Raises: InvalidTokens for an unknown reservation, IllegalTransition when it was settled.
    """
    if is_applied(ledger, command.command_id):
        return _repeated(ledger, command.reservation_id)
    reservation = _named(ledger, command.reservation_id)
    if reservation.status is ReservationStatus.SETTLED:
        raise _resolved_otherwise(reservation, "cannot be released")
    if reservation.status is not ReservationStatus.OPEN:
        return LedgerChange(outcome="duplicate", ledger=ledger, reservation=reservation)
    done = msgspec.structs.replace(reservation, status=ReservationStatus.RELEASED, resolved_at=command.as_of)
    return LedgerChange(
        outcome="applied", ledger=next_version(_resolve(ledger, done), command), reservation=done
    )


def expire(ledger: Ledger, command: ExpireTokens, *, now_us: int) -> LedgerChange:
    """Give back every reservation whose time is over at `now_us`; `duplicate` when there is none."""
    after = _without_expired(ledger, now_us)
    if after is ledger:
        return LedgerChange(outcome="duplicate", ledger=ledger)
    return LedgerChange(outcome="applied", ledger=next_version(after, command))


def _set_aside(ledger: Ledger, made: Reservation, key: str) -> Ledger:
    if len(ledger.reservations) >= OPEN_RESERVATIONS_MAX:
        cure = f"settle, release or expire some of the {OPEN_RESERVATIONS_MAX} open ones"
        raise InvalidTokens("too many open reservations", field="key", value=key, cure=cure)
    balance = balance_of(ledger, made.asset)
    if balance.available < made.amount:
        state = "frozen until the venue has what is reserved" if balance.frozen else "available"
        cure = f"{plain(balance.available)} {made.asset} {state}"
        raise InsufficientTokens("not enough tokens", field="amount", value=plain(made.amount), cure=cure)
    reserved = _sum(balance.reserved, made.amount)
    ledger = with_balance(ledger, made.asset, msgspec.structs.replace(balance, reserved=reserved))
    return msgspec.structs.replace(ledger, reservations={**ledger.reservations, key: made})


def _resolve(ledger: Ledger, done: Reservation) -> Ledger:
    """Take `done` out of the open ones and book what it spent and received."""
    assert done.resolved_at is not None
    balance = balance_of(ledger, done.asset)
    reserved = _sum(balance.reserved, -done.amount)
    ledger = with_balance(ledger, done.asset, msgspec.structs.replace(balance, reserved=reserved))
    if done.spent:
        ledger = _booked(ledger, done.asset, -done.spent, done.resolved_at)
    for asset, amount in done.received.items():
        ledger = _booked(ledger, asset, amount, done.resolved_at)
    still_open = dict(ledger.reservations)
    del still_open[done.key]
    resolved = (*ledger.resolved, done)[-RESOLVED_MAX:]
    return msgspec.structs.replace(ledger, reservations=still_open, resolved=resolved)


def _booked(ledger: Ledger, asset: str, amount: Decimal, at_us: int) -> Ledger:
    """`free` moved by `amount`, not below 0: a venue that has told less may have deducted it already.

    A snapshot older than this no longer says what is free, so `as_of` moves on as well.
    """
    balance = balance_of(ledger, asset)
    as_of = at_us if balance.as_of is None else max(at_us, balance.as_of)
    free = max(_sum(balance.free, amount), ZERO)
    return with_balance(ledger, asset, msgspec.structs.replace(balance, free=free, as_of=as_of))


def _without_expired(ledger: Ledger, now_us: int) -> Ledger:
    for reservation in tuple(ledger.reservations.values()):
        if reservation.expires_at <= now_us:
            expired = msgspec.structs.replace(
                reservation, status=ReservationStatus.EXPIRED, resolved_at=now_us
            )
            ledger = _resolve(ledger, expired)
    return ledger


def _reserved_again(ledger: Ledger, known: Reservation, asset: str, amount: Decimal) -> LedgerChange:
    if (known.asset, known.amount) != (asset, amount):
        cure = f"it stands for {plain(known.amount)} {known.asset}; use another key"
        raise IdempotencyConflict("the key is taken", field="key", value=known.key, cure=cure)
    return LedgerChange(outcome="duplicate", ledger=ledger, reservation=known)


def _settled_again(
    ledger: Ledger, known: Reservation, spent: Decimal, received: Mapping[str, Decimal]
) -> LedgerChange:
    if (known.spent, known.received) != (spent, received):
        raise IdempotencyConflict(
            "settled before with other amounts",
            field="reservation_id",
            value=known.reservation_id,
            cure="a reservation is settled once",
        )
    return LedgerChange(outcome="duplicate", ledger=ledger, reservation=known)


def _repeated(ledger: Ledger, reservation_id: str) -> LedgerChange:
    known = find_reservation(ledger, parse_reservation_id(reservation_id).key)
    return LedgerChange(outcome="duplicate", ledger=ledger, reservation=known)


def _named(ledger: Ledger, reservation_id: str) -> Reservation:
    user_id, account_id, key = parse_reservation_id(reservation_id)
    assert (user_id, account_id) == (ledger.user_id, ledger.account_id)
    found = find_reservation(ledger, key)
    if found is None:
        raise InvalidTokens(
            "no such reservation",
            field="reservation_id",
            value=reservation_id,
            cure=f"it was never made, or resolved before the last {RESOLVED_MAX}",
        )
    return found


def _resolved_otherwise(reservation: Reservation, refusal: str) -> IllegalTransition:
    return IllegalTransition(
        f"already {reservation.status}, {refusal}",
        field="reservation_id",
        value=reservation.reservation_id,
        cure="the venue's next snapshot tells what is left",
    )


def _at_most(reservation: Reservation) -> str:
    return f"at most {plain(reservation.amount)} {reservation.asset} are reserved"


def _sum(left: Decimal, right: Decimal) -> Decimal:
    return canonical(CONTEXT.add(left, right))
