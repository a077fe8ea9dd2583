"""Reservations of tokens: set aside, then settled, released or expired, each once."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from tradepool.errors import IdempotencyConflict, IllegalTransition, InsufficientTokens, InvalidTokens
from tradepool.model.ids import SHORT_ID_CHARS, short_id
from tradepool.model.ledger import (
    Hold,
    Ledger,
    Reservation,
    ReservationStatus,
    checked_name,
    find_reservation,
    parse_reservation_id,
    reservation_id,
)
from tradepool.model.ledger_change import (
    LedgerChange,
    balance_of,
    is_applied,
    is_forgotten,
    next_version,
    with_balance,
)
from tradepool.model.money import CONTEXT, ZERO, canonical, plain
from tradepool.model.receipt import CommandOutcome
from tradepool.model.token_commands import ExpireTokens, ReleaseTokens, ReserveTokens, SettleTokens
from tradepool.model.token_intake import amount_of, amounts_of, asset_of, positive_amount_of, ttl_us_of

__all__ = [
    "FORGOTTEN_MAX",
    "KEY_CHARS_MAX",
    "OPEN_RESERVATIONS_MAX",
    "RESOLVED_MAX",
    "asked_for",
    "expire",
    "release",
    "reserve",
    "settle",
]

OPEN_RESERVATIONS_MAX = 1000
"""Open reservations of one account."""
KEY_CHARS_MAX = 128
"""Longest key of a reservation."""
RESOLVED_MAX = 64
"""Resolved reservations a ledger remembers, so that a repeat is told from a new request; expired ones go
first, for a repeat of their reserve comes too late by itself."""
FORGOTTEN_MAX = 256
"""Keys of others that it remembers: with them alone a repeated reserve is still told, and holds nothing."""


def reserve(ledger: Ledger, command: ReserveTokens, *, now_us: int) -> LedgerChange:
    """Set an amount aside until `as_of` + `ttl_s`; the key makes a repeat a `duplicate`.

    Reservations whose time is over at `now_us` are given back first. A command that arrives after its
    own time is over is `stale`: nothing is reserved. Only what is held has a reservation that is `open`.

    Raises: InsufficientTokens when less is available, IdempotencyConflict when the key stands for
    another asset or amount, InvalidTokens for a value that is none or with 1000 open reservations.
    """
    asked = asked_for(ledger, command)
    known = find_reservation(ledger, asked.key)
    if known is not None:
        return _reserved_again(ledger, known, asked, now_us)
    if is_applied(ledger, command.command_id) or is_forgotten(ledger, asked.key):
        return _not_reserved(ledger, asked, "duplicate", ReservationStatus.FORGOTTEN)
    if asked.expires_at <= now_us:
        return _not_reserved(ledger, asked, "stale", ReservationStatus.EXPIRED)
    freed = _without_expired(ledger, now_us)
    after = next_version(_set_aside(freed, asked), command)
    expired = len(ledger.reservations) - len(freed.reservations)
    return LedgerChange(outcome="applied", ledger=after, reservation=asked, expired=expired)


def settle(ledger: Ledger, command: SettleTokens, *, now_us: int) -> LedgerChange:
    """Spend up to the reserved amount, return the rest, add what was received; once.

    Of an asset whose balance the venue has told since the reservation was made, what was received is not
    added: the venue may have counted it, and its next snapshot tells. An open reservation whose time is
    over can still be settled, for the tokens were really spent. The same settlement again is a `duplicate`.

    Raises: InvalidTokens for an unknown reservation, `spent` beyond it or a value that is none,
    IllegalTransition when it was released or expired, IdempotencyConflict when it was settled
    with other amounts.
    """
    spent = amount_of("spent", command.spent)
    received = {} if command.received is None else amounts_of("received", command.received)
    reservation = _named(ledger, command.reservation_id)
    if is_applied(ledger, command.command_id):
        return LedgerChange(outcome="duplicate", ledger=ledger, reservation=reservation)
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
    after = next_version(_resolved(ledger, {done.key: done.hold}, now_us), command)
    return LedgerChange(outcome="applied", ledger=after, reservation=done)


def release(ledger: Ledger, command: ReleaseTokens, *, now_us: int) -> LedgerChange:
    """Give a reservation back unspent; one already given back or expired is a `duplicate`.

    Raises: InvalidTokens for an unknown reservation, IllegalTransition when it was settled.
    """
    reservation = _named(ledger, command.reservation_id)
    if is_applied(ledger, command.command_id):
        return LedgerChange(outcome="duplicate", ledger=ledger, reservation=reservation)
    if reservation.status is ReservationStatus.SETTLED:
        raise _resolved_otherwise(reservation, "cannot be released")
    if reservation.status is not ReservationStatus.OPEN:
        return LedgerChange(outcome="duplicate", ledger=ledger, reservation=reservation)
    done = msgspec.structs.replace(reservation, status=ReservationStatus.RELEASED, resolved_at=command.as_of)
    after = next_version(_resolved(ledger, {done.key: done.hold}, now_us), command)
    return LedgerChange(outcome="applied", ledger=after, reservation=done)


def expire(ledger: Ledger, command: ExpireTokens, *, now_us: int) -> LedgerChange:
    """Give back every reservation whose time is over at `now_us`; `duplicate` when there is none."""
    after = _without_expired(ledger, now_us)
    if after is ledger:
        return LedgerChange(outcome="duplicate", ledger=ledger)
    expired = len(ledger.reservations) - len(after.reservations)
    return LedgerChange(outcome="applied", ledger=next_version(after, command), expired=expired)


def asked_for(ledger: Ledger, command: ReserveTokens) -> Reservation:
    """The open reservation that `command` asks for. Raises: InvalidTokens for a value that is none."""
    key = checked_name("key", command.key, KEY_CHARS_MAX)
    return Reservation(
        reservation_id=reservation_id(ledger.user_id, ledger.account_id, key),
        asset=asset_of("asset", command.asset),
        amount=positive_amount_of("amount", command.amount),
        status=ReservationStatus.OPEN,
        reserved_at=command.as_of,
        expires_at=command.as_of + ttl_us_of("ttl_s", command.ttl_s),
    )


def _reserved_again(ledger: Ledger, known: Reservation, asked: Reservation, now_us: int) -> LedgerChange:
    if (known.asset, known.amount) != (asked.asset, asked.amount):
        cure = f"it stands for {plain(known.amount)} {known.asset}; use another key"
        raise IdempotencyConflict("the key is taken", field="key", value=known.key, cure=cure)
    if known.status is ReservationStatus.OPEN and known.expires_at <= now_us:
        # Anybody may have it now, though nobody has taken it yet.
        return _not_reserved(ledger, known, "duplicate", ReservationStatus.EXPIRED)
    return LedgerChange(outcome="duplicate", ledger=ledger, reservation=known)


def _not_reserved(
    ledger: Ledger, asked: Reservation, outcome: CommandOutcome, status: ReservationStatus
) -> LedgerChange:
    answer = msgspec.structs.replace(asked, status=status)
    return LedgerChange(outcome=outcome, ledger=ledger, reservation=answer)


def _set_aside(ledger: Ledger, made: Reservation) -> Ledger:
    key = made.key
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
    return msgspec.structs.replace(ledger, reservations={**ledger.reservations, key: made.hold})


def _without_expired(ledger: Ledger, now_us: int) -> Ledger:
    """The ledger with everything given back whose time is over; itself when there is nothing."""
    over = {
        key: msgspec.structs.replace(hold, status=ReservationStatus.EXPIRED, resolved_at=now_us)
        for key, hold in ledger.reservations.items()
        if hold.expires_at <= now_us
    }
    return _resolved(ledger, over, now_us) if over else ledger


def _resolved(ledger: Ledger, done: Mapping[str, Hold], now_us: int) -> Ledger:
    """Take `done` out of the open ones, and book what they spent and received."""
    still_open = {key: hold for key, hold in ledger.reservations.items() if key not in done}
    assets = dict(ledger.assets)
    for hold in done.values():
        balance = assets[hold.asset]
        reserved = _difference(balance.reserved, hold.amount)
        assets[hold.asset] = msgspec.structs.replace(balance, reserved=reserved)
    ledger = msgspec.structs.replace(ledger, assets=assets, reservations=still_open)
    for hold in done.values():
        ledger = _settled(ledger, hold)
    return _remembering(ledger, done, now_us)


def _settled(ledger: Ledger, done: Hold) -> Ledger:
    """The ledger with what `done` spent and received booked."""
    assert done.resolved_at is not None
    if done.spent:
        ledger = _booked(ledger, done.asset, CONTEXT.minus(done.spent), done.resolved_at)
    for asset, amount in done.received.items():
        # A snapshot that is younger than the reservation may have been taken after the order was filled, and
        # have it already. Then the next one tells.
        if balance_of(ledger, asset).last_told_at <= done.reserved_at:
            ledger = _booked(ledger, asset, amount, done.resolved_at)
    return ledger


def _remembering(ledger: Ledger, done: Mapping[str, Hold], now_us: int) -> Ledger:
    """The ledger with `done` among the last resolved ones, and with the keys of what had to go too early."""
    resolved = {**ledger.resolved, **done}
    excess = len(resolved) - RESOLVED_MAX
    if excess <= 0:
        return msgspec.structs.replace(ledger, resolved=resolved)
    # Those that were settled or released last are kept, so that a repeat of a command in `applied` is told.
    in_order = sorted(resolved, key=lambda key: resolved[key].status is not ReservationStatus.EXPIRED)
    dropped = {key: resolved.pop(key) for key in in_order[:excess]}
    early = "".join(short_id(key) for key, hold in dropped.items() if hold.expires_at > now_us)
    forgotten = (ledger.forgotten + early)[-FORGOTTEN_MAX * SHORT_ID_CHARS :]
    return msgspec.structs.replace(ledger, resolved=resolved, forgotten=forgotten)


def _booked(ledger: Ledger, asset: str, amount: Decimal, at_us: int) -> Ledger:
    """`free` moved by `amount`, not below 0: a venue that has told less may have deducted it already.

    A snapshot older than this no longer says what is free, so `as_of` moves on as well.
    """
    balance = balance_of(ledger, asset)
    as_of = at_us if balance.as_of is None else max(at_us, balance.as_of)
    booked = msgspec.structs.replace(
        balance, free=max(_sum(balance.free, amount), ZERO), as_of=as_of, told_at=balance.last_told_at
    )
    return with_balance(ledger, asset, booked)


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


def _difference(left: Decimal, right: Decimal) -> Decimal:
    return canonical(CONTEXT.subtract(left, right))
