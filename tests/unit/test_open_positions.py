"""What a trade is in the book: the same read from its JSON, and nothing once it is not open."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext

import msgspec
import pytest
from hypothesis import given, settings
from structlog.testing import capture_logs

from tests.trade_builders import new_trade
from tests.trade_histories import histories
from tradepool.errors import Corrupt
from tradepool.marking.positions import position_in, position_of, put
from tradepool.model.codec import encode_trade
from tradepool.pnl.book import Book


@settings(max_examples=25)
@given(trade=histories())
def test_a_row_made_from_the_json_is_the_trades_own(trade):
    position = position_in(encode_trade(trade))
    assert position == position_of(trade)
    assert (position is not None) == bool(trade.is_open and trade.open_amount)
    if position is not None and position.market != "inverse":
        with localcontext(prec=99):
            value = position.amount * position.contract_size * 7
            assert abs(value - position.cost - trade.unrealised_net(7)) <= Decimal("1e-8")


@pytest.mark.parametrize(("side", "cost"), [("buy", "200.3"), ("sell", "-199.7")])
def test_the_entry_fees_that_no_exit_has_matched_are_part_of_a_rows_cost(side, cost):
    entered = new_trade(side=side, market="linear", status="filled", amount="2", price="100")
    position = position_of(msgspec.structs.replace(entered, open_fee=Decimal("0.3")))
    assert position is not None
    assert position.cost == Decimal(cost)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"trade_id":1}', b'{"trade_id":"a\xff"}'])
def test_what_is_no_trade_is_an_error(body):
    with pytest.raises(Corrupt, match="cannot be read"):
        position_in(body)


def test_one_trade_beyond_any_book_keeps_no_other_out():
    size = Decimal("1e70")
    filled = {"status": "filled", "amount": "1"}
    good, other, huge = (new_trade(name, **filled) for name in ("good", "other", "huge"))
    huge = msgspec.structs.replace(huge, filled=size, amount=size)
    book = Book()
    positions = [row for row in map(position_of, (good, huge, other)) if row is not None]
    put(book, positions, [1, 1, 1])
    assert [trade_id in book for trade_id in ("good", "huge", "other")] == [True, False, True]
    # One that fitted before does not stay with the figures it had.
    put(book, [row for row in [position_of(msgspec.structs.replace(huge, trade_id="good"))] if row], [2])
    assert "good" not in book


def test_many_trades_beyond_any_book_are_each_named_and_keep_no_other_out():
    whole = position_of(new_trade("t", status="filled", amount="1"))
    assert whole is not None
    batch = [replace(whole, trade_id=f"t{number}") for number in range(100)]
    bad = {3, 4, 50, 99}
    for number in bad:
        batch[number] = replace(batch[number], cost=Decimal("1e70"))
    book = Book()
    with capture_logs() as messages:
        put(book, batch, range(100))
    assert {number for number in range(100) if book.version(f"t{number}") == number} == set(range(100)) - bad
    assert [each["problem"].split()[2] for each in messages] == [f"t{number}" for number in sorted(bad)]
