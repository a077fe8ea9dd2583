"""A hundred trades of other projects' tests, by the model's own commands, to the digits they give."""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any

import pytest

from tests.published_cases import TRADES, disagreements, fills_of, ordered_first, same_digits, terms_of
from tests.trade_builders import NOW_US
from tradepool.model.changes import add, change
from tradepool.model.commands import AddFill, AddTrade, TradeCommand, UpdateTrade
from tradepool.model.money import CONTEXT, plain
from tradepool.model.pnl import DERIVED_FIELDS, recompute
from tradepool.model.trade import Role, Trade

CASES = pytest.mark.parametrize("case", TRADES.values(), ids=TRADES)


def applied(trade: Trade, command: TradeCommand) -> Trade:
    done = change(trade, command)
    assert done.outcome == "applied"
    return done.trade


def opened(case: dict[str, Any], **fields: Any) -> Trade:
    told = terms_of(case) | fields
    return add(AddTrade(command_id="add", as_of=NOW_US, trade=told), trade_id="t1", existing=None).trade


def after_fill(trade: Trade, index: int, fill: dict[str, Any]) -> Trade:
    """An entry beyond what was ordered is a further order of the open position."""
    about: dict[str, Any] = {"as_of": NOW_US + index, "trade_id": "t1"}
    filled = trade.filled + Decimal(fill["amount"])
    if fill["role"] == Role.ENTRY and filled > trade.amount:
        ordered = UpdateTrade(command_id=f"order-{index}", changes={"amount": filled}, **about)
        trade = applied(trade, ordered)
    return applied(trade, AddFill(command_id=f"fill-{index}", fill=fill, **about))


def versions(case: dict[str, Any]) -> list[Trade]:
    """The trade after each of its fills."""
    trade, seen = opened(case, amount=ordered_first(case)), []
    for index, fill in enumerate(fills_of(case)):
        trade = after_fill(trade, index, fill)
        seen.append(trade)
    return seen


@CASES
def test_every_published_figure_is_met_after_every_fill(case):
    for trade, published in zip(versions(case), case["after"], strict=True):
        assert disagreements(trade, published) == []
        assert recompute(trade) == trade


@CASES
def test_a_trade_told_at_once_has_the_figures_of_one_told_step_by_step(case):
    last = versions(case)[-1]
    at_once = opened(case, amount=last.amount, fills=fills_of(case))
    for name in set(DERIVED_FIELDS) | {"status"}:
        assert getattr(at_once, name) == getattr(last, name)


@CASES
def test_fills_told_in_parts_come_to_the_same(case):
    parts = [part for fill in fills_of(case) for part in thirds(fill)]
    whole, split = versions(case)[-1], opened(case, fills=parts)
    for name in ("pnl", "pnl_gross", "open_amount", "roi", "fees", "average_entry", "average_exit"):
        assert near(getattr(split, name), getattr(whole, name))


def thirds(fill: dict[str, Any]) -> list[dict[str, Any]]:
    """The same fill in three, whose amounts and fees add up to it."""
    with decimal.localcontext(CONTEXT):
        amount, fee = Decimal(fill["amount"]), Decimal(fill["fee"])
        sizes = [amount / 4, amount / 2, amount - amount / 4 - amount / 2]
        fees = [fee / 4, fee / 2, fee - fee / 4 - fee / 2]
    if min(sizes).as_tuple().exponent < -18 or min(fees).as_tuple().exponent < -18:  # type: ignore[operator]
        return [fill]
    return [
        fill | {"fill_id": f"{fill['fill_id']}.{index}", "amount": plain(size), "fee": plain(share)}
        for index, (size, share) in enumerate(zip(sizes, fees, strict=True))
    ]


def near(one: Any, other: Any) -> bool:
    """Equal, but for the last of 40 places that a quotient inside the fold is kept to."""
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return abs(one - other) <= Decimal("1e-17")
    return bool(one == other)


@pytest.mark.parametrize("case", [case for case in TRADES.values() if "mark" in case], ids=lambda c: c["id"])
def test_a_marked_trade_is_worth_what_is_published(case):
    trade, mark = versions(case)[-1], case["mark"]
    for name, published in case["marked"].items():
        assert same_digits(getattr(trade, name)(mark), published)


LISTED = [(case, method) for case in TRADES.values() for method in case.get("lots", ())]


@pytest.mark.parametrize(("case", "method"), LISTED, ids=[f"{case['id']}-{how}" for case, how in LISTED])
def test_lots_are_matched_as_published(case, method):
    lots = versions(case)[-1].matched_lots(method)
    ours = [[plain(lot.amount), lot.entry_price, lot.exit_price, lot.gross] for lot in lots]
    assert ours == [[lot[0], *map(Decimal, lot[1:])] for lot in case["lots"][method]]
