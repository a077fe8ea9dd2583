"""A trade may name another one of its user, and never itself by way of others."""

from __future__ import annotations

import pytest

from tests.trade_builders import NOW_US, new_trade, trade_fields
from tradepool.errors import InvalidTrade
from tradepool.model.archived import archived
from tradepool.model.ids import mint_id
from tradepool.model.intake import trade_from_dict
from tradepool.model.relations import CHAIN_MAX, check_relation
from tradepool.model.trade import Trade


def related(trade_id: str, named: str | None, user_id: str = "ann") -> Trade:
    return new_trade(trade_id, related_trade_id=named, user_id=user_id)


def check(trade: Trade, *others: Trade, before: Trade | None = None) -> None:
    check_relation(before, trade, {other.trade_id: other for other in others}.get)


def test_a_trade_of_the_user_may_be_named_and_so_may_one_that_is_not_there_yet():
    check(related("b", "a"), related("a", None))
    check(related("b", "a"))
    check_relation(None, related("b", "a"), lambda _: archived(related("a", None), "2026-11-22"))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_way_back_to_the_trade_itself_is_refused(length):
    chain = [related(f"t{index}", f"t{index + 1}") for index in range(length)]
    last = related(f"t{length}", "t0")
    with pytest.raises(InvalidTrade, match="leads back") as refusal:
        check(last, *chain)
    assert refusal.value.field == "related_trade_id"


def test_a_trade_that_names_itself_is_refused_at_once():
    with pytest.raises(InvalidTrade, match="the trade itself"):
        trade_from_dict(trade_fields(related_trade_id="t1"), now_us=NOW_US, trade_id="t1")


@pytest.mark.parametrize("named", [mint_id("bob", at_us=NOW_US, random_bits=7), "bobs"])
def test_another_users_trade_is_refused(named):
    with pytest.raises(InvalidTrade, match="another user's"):
        check(related("b", named), related(named, None, user_id="bob"))


def test_a_long_chain_and_a_ring_of_others_end_the_search():
    check(related("new", "t0"), *[related(f"t{index}", f"t{index + 1}") for index in range(2 * CHAIN_MAX)])
    check(related("new", "a"), related("a", "b"), related("b", "a"))


def test_nothing_is_looked_up_for_what_was_named_before():
    def no_look_up(trade_id: str) -> None:
        raise AssertionError(trade_id)

    check_relation(related("b", "a"), related("b", "a"), no_look_up)
    check_relation(None, related("b", None), no_look_up)


def test_of_a_new_trade_under_an_id_of_the_pool_no_way_back_is_looked_for():
    looked_up: list[str] = []
    minted = related(mint_id("ann", at_us=NOW_US, random_bits=7), "t0")
    check_relation(None, minted, lambda trade_id: looked_up.append(trade_id) or related(trade_id, "t1"))
    assert looked_up == ["t0"]
    with pytest.raises(InvalidTrade, match="leads back"):
        check(
            minted, related("t0", "t1"), related("t1", minted.trade_id), before=related(minted.trade_id, None)
        )
