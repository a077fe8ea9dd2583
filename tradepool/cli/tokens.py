"""`tokens`, `reserve`, `settle` and `release`: what is free, and what is set aside."""

from __future__ import annotations

from typing import Annotated

import typer

from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.opening import AsJson, Embedded, User, open_pool
from tradepool.cli.output import (
    counted,
    figures_table,
    print_json,
    print_rows,
    print_table,
    rows_table,
    time_text,
)
from tradepool.errors import InvalidTokens
from tradepool.model.ledger import Reservation, ReservationStatus
from tradepool.model.money import plain

__all__ = ["release", "reserve", "settle", "tokens"]

_COLUMNS = ("reservation", "asset", "amount", "reserved", "expires")

Account = Annotated[str, typer.Option("--account", help="Which of the user's accounts.")]
ReservationId = Annotated[
    str, typer.Argument(metavar="RESERVATION", help="Its id, as reserve or tokens --reservations shows it.")
]


def tokens(
    user: User,
    *,
    account: Account = "default",
    reservations: Annotated[
        bool, typer.Option("--reservations", help="Show the open reservations instead.")
    ] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Show a user's available tokens, or what is set aside of them."""
    with open_pool(embedded) as pool:
        if reservations:
            _show_open(pool.get_reservations(user, account_id=account), as_json=as_json)
            return OK
        available = pool.get_available_tokens(user, account_id=account)
    if as_json:
        print_json({asset: plain(amount) for asset, amount in available.items()})
    else:
        print_table(f"available to {user}", rows_table(("asset", "amount"), sorted(available.items())))
    return OK


def reserve(
    user: User,
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="Which token, like USDT.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="How much of it.")],
    *,
    key: Annotated[str, typer.Option(help="Names the request: asked twice, it is reserved once.")],
    ttl: Annotated[str, typer.Option(metavar="SECONDS", help="When it is given back by itself.")] = "60",
    account: Account = "default",
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Set tokens aside, so that nobody else can; exit 1 where the key stands for what is resolved already."""
    with open_pool(embedded) as pool:
        found = pool.reserve_tokens(user, asset, amount, key, ttl, account_id=account)
    _show(found, as_json=as_json)
    return OK if found.status is ReservationStatus.OPEN else FINDINGS


def settle(
    reservation: ReservationId,
    spent: Annotated[str, typer.Argument(metavar="SPENT", help="How much of it was spent.")],
    *,
    received: Annotated[
        list[str] | None, typer.Option(metavar="ASSET=AMOUNT", help="What came in for it; may be repeated.")
    ] = None,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Book what was spent of a reservation, and give its rest back."""
    amounts = dict(_asset_and_amount(text) for text in received or ())
    with open_pool(embedded) as pool:
        _show(pool.settle_tokens(reservation, spent, amounts), as_json=as_json)
    return OK


def release(reservation: ReservationId, *, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Give a reservation back unspent."""
    with open_pool(embedded) as pool:
        _show(pool.release_tokens(reservation), as_json=as_json)
    return OK


def _asset_and_amount(text: str) -> tuple[str, str]:
    asset, separator, amount = text.rpartition("=")
    if not separator:
        raise InvalidTokens("not ASSET=AMOUNT", field="--received", value=text, cure="like BTC=0.5")
    return asset, amount


def _show_open(found: list[Reservation], *, as_json: bool) -> None:
    if as_json:
        print_json([reservation.to_dict() for reservation in found])
        return
    rows = [
        (one.reservation_id, one.asset, one.amount, time_text(one.reserved_at), time_text(one.expires_at))
        for one in found
    ]
    print_rows(counted(len(rows), "open reservation"), _COLUMNS, rows)


def _show(found: Reservation, *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict())
        return
    received = ", ".join(f"{plain(amount)} {asset}" for asset, amount in found.received.items())
    figures = {
        "status": found.status,
        "asset": found.asset,
        "amount": found.amount,
        "reserved": time_text(found.reserved_at),
        "expires": time_text(found.expires_at),
        "resolved": time_text(found.resolved_at),
        "spent": found.spent or None,
        "received": received or None,
    }
    print_table(found.reservation_id, figures_table(figures))
