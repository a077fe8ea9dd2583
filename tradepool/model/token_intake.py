"""Loose token input, checked: the only place where a token call's values become amounts and names."""

from __future__ import annotations

from decimal import Decimal

from tradepool.errors import InvalidTokens
from tradepool.model.ledger import checked_name
from tradepool.model.money import CONTEXT, parse_decimal

__all__ = [
    "ASSETS_MAX",
    "ASSET_CHARS_MAX",
    "TTL_S_MAX",
    "amount_of",
    "amounts_of",
    "asset_names_of",
    "asset_of",
    "positive_amount_of",
    "ttl_us_of",
]

ASSETS_MAX = 10_000
"""Assets in one ledger, and so in one snapshot."""
ASSET_CHARS_MAX = 64
TTL_S_MAX = 30 * 86_400
"""Longest life of a reservation."""


def amounts_of(field: str, value: object) -> dict[str, Decimal]:
    """`{asset: amount ≥ 0}`.

    Raises: InvalidTokens for anything else.
    """
    if not isinstance(value, dict):
        raise InvalidTokens("not amounts by asset", field=field, value=value, cure="give {asset: amount}")
    _check_count(field, len(value))
    return {asset_of(field, asset): amount_of(f"{field}.{asset}", amount) for asset, amount in value.items()}


def asset_names_of(field: str, value: object) -> tuple[str, ...]:
    """The different assets in a list, in its order.

    Raises: InvalidTokens when it is no list of asset names.
    """
    if not isinstance(value, list | tuple):
        raise InvalidTokens(
            "neither amounts nor assets",
            field=field,
            value=value,
            cure="give {asset: amount} or a list of assets",
        )
    _check_count(field, len(value))
    return tuple(dict.fromkeys(asset_of(field, asset) for asset in value))


def asset_of(field: str, value: object) -> str:
    """An asset's name.

    Raises: InvalidTokens when it is empty, blank, longer than 64 characters or not printable.
    """
    return checked_name(field, value, ASSET_CHARS_MAX)


def amount_of(field: str, value: object) -> Decimal:
    """An amount ≥ 0.

    Raises: InvalidTokens for what is no such number.
    """
    amount = parse_decimal(field, value, error=InvalidTokens)
    if amount < 0:
        raise InvalidTokens("negative", field=field, value=value, cure="give 0 or more")
    return amount


def positive_amount_of(field: str, value: object) -> Decimal:
    """An amount > 0.

    Raises: InvalidTokens for what is no such number.
    """
    amount = amount_of(field, value)
    if not amount:
        raise InvalidTokens("zero", field=field, value=value, cure="give more than 0")
    return amount


def ttl_us_of(field: str, value: object) -> int:
    """Seconds above 0 and up to 30 days, in µs.

    Raises: InvalidTokens for what is no such number.
    """
    seconds = positive_amount_of(field, value)
    if seconds > TTL_S_MAX:
        raise InvalidTokens("too long", field=field, value=value, cure=f"give at most {TTL_S_MAX} seconds")
    return max(int(CONTEXT.multiply(seconds, Decimal(1_000_000))), 1)


def _check_count(field: str, count: int) -> None:
    if count > ASSETS_MAX:
        raise InvalidTokens(
            "too many assets", field=field, value=str(count), cure=f"give at most {ASSETS_MAX}"
        )
