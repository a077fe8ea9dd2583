"""The token ledger: snapshots of a venue, what it holds, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.token_steps import (
    EMPTY,
    after,
    available,
    change,
    expiring,
    figures,
    funded,
    releasing,
    reserving,
    settling,
    snapshot,
)
from tradepool.errors import (
    InsufficientTokens,
    InvalidTokens,
    Rejected,
)
from tradepool.model import codec
from tradepool.model.ledger import (
    ReservationName,
    broken_rules,
    ledger_id,
    parse_reservation_id,
    reservation_id,
)
from tradepool.model.ledger_change import LedgerChange
from tradepool.model.token_commands import TokenCommand, owner_of
from tradepool.model.token_intake import ASSETS_MAX


def test_a_snapshot_tells_what_is_available():
    result = change(EMPTY, snapshot({"USDT": "12.5", "BTC": 0, "ETH": 0.1}, 7))
    assert (result.outcome, result.ledger.version, result.ledger.updated_at) == ("applied", 1, 7)
    assert available(result.ledger) == {"USDT": Decimal("12.5"), "ETH": Decimal("0.1")}


def test_an_older_snapshot_is_stale():
    ledger = after(snapshot({"USDT": 5}, 10))
    result = change(ledger, snapshot({"USDT": 9}, 9))
    assert (result.outcome, result.ledger) == ("stale", ledger)


def test_each_asset_keeps_its_own_newest_figure():
    ledger = after(snapshot({"USDT": 5}, 10), snapshot({"USDT": 9, "BTC": 1}, 9))
    assert available(ledger) == {"USDT": 5, "BTC": 1}


def test_a_snapshot_leaves_assets_it_does_not_name():
    assert available(after(snapshot({"USDT": 5, "BTC": 1}), snapshot({"BTC": 2}, 1))) == {"USDT": 5, "BTC": 2}


def test_a_complete_snapshot_empties_the_others():
    ledger = after(snapshot({"USDT": 5, "BTC": 1}), snapshot({"BTC": 2}, 1, complete=True))
    assert available(ledger) == {"BTC": 2}
    assert ledger.assets["USDT"].free == 0


def test_a_redelivered_snapshot_is_a_duplicate_even_after_others():
    first, second = snapshot({"USDT": 5}, 1), snapshot({"USDT": 6}, 1)
    ledger = after(first, second)
    result = change(ledger, first)
    assert (result.outcome, result.ledger) == ("duplicate", ledger)


def test_the_same_figures_of_the_same_time_change_nothing():
    ledger = after(snapshot({"USDT": 5}, 1))
    assert change(ledger, snapshot({"USDT": "5.0"}, 1)).outcome == "duplicate"
    assert change(EMPTY, snapshot({})).outcome == "duplicate"


def test_a_list_of_assets_marks_them_tradable_and_invents_no_amount():
    ledger = after(snapshot({"BTC": 2}), snapshot(["USDT", "BTC", "USDT"], 5))
    assert available(ledger) == {"BTC": 2}
    assert ledger.assets["USDT"].as_of is None
    assert [asset for asset, balance in ledger.assets.items() if balance.tradable] == ["BTC", "USDT"]


def test_a_later_list_adds_and_a_complete_one_replaces():
    ledger = after(snapshot(["A", "B"], 1), snapshot(["C"], 2))
    assert all(ledger.assets[asset].tradable for asset in "ABC")
    ledger = after(snapshot(["C"], 3, complete=True), ledger=ledger)
    assert [asset for asset in "ABC" if ledger.assets[asset].tradable] == ["C"]
    assert change(ledger, snapshot(["A"], 2)).outcome == "stale"


def test_a_snapshot_below_what_is_reserved_freezes_the_asset():
    ledger = after(reserving(40), ledger=funded())
    result = change(ledger, snapshot({"USDT": 30}, 1))
    assert result.frozen == ("USDT",)
    assert figures(result.ledger) == (40, 40, 0)
    assert result.ledger.assets["USDT"].frozen
    assert broken_rules(result.ledger) == ("USDT: frozen",)
    with pytest.raises(InsufficientTokens, match="frozen"):
        change(result.ledger, reserving(1, "k2"))
    thawed = change(result.ledger, snapshot({"USDT": 50}, 2))
    assert figures(thawed.ledger) == (50, 40, 10)
    assert broken_rules(thawed.ledger) == thawed.frozen == ()


def test_a_frozen_asset_never_promises_more_than_the_venue_has():
    ledger = after(reserving(40), snapshot({"USDT": 30}, 1), ledger=funded())
    assert figures(after(releasing(), ledger=ledger)) == (30, 0, 30)
    spent = after(settling(40), ledger=ledger)
    assert (figures(spent), spent.assets["USDT"].free) == ((0, 0, 0), 0)


@pytest.mark.parametrize(
    "told",
    [
        {"USDT": -1},
        {"USDT": "NaN"},
        {"USDT": float("inf")},
        {"USDT": True},
        {"USDT": None},
        {"USDT": "1e30"},
        {"USDT": 10**5000},
        {"USDT": "0.0000000000000000001"},
        {"USDT": {"free": 1}},
        {"": 1},
        {"  ": 1},
        {"A" * 65: 1},
        {"A\x1f": 1},
        {"\ud800": 1},
        {3: 1},
        [""],
        [None],
        ["A" * 65],
        "USDT",
        5,
        None,
    ],
)
def test_loose_tokens_that_mean_nothing_are_refused(told):
    with pytest.raises(InvalidTokens):
        change(EMPTY, snapshot(told))


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(anything)
def test_only_rejections_come_out_of_any_tokens(told):
    outcome = _outcome_or_refusal(snapshot(told))
    assert outcome in ("applied", "duplicate", "refused in one line")


@given(anything, anything, anything)
def test_only_rejections_come_out_of_any_reservation(amount, asset, key):
    outcome = _outcome_or_refusal(reserving(amount, key, asset=asset, ttl_s=amount))
    assert outcome == "refused in one line"


def _outcome_or_refusal(command):
    try:
        return change(EMPTY, command).outcome
    except Rejected as refusal:
        return f"refused in {len(str(refusal).splitlines())} line".replace(" 1 ", " one ")


def test_a_ledger_holds_a_bounded_number_of_assets():
    full = after(snapshot({f"A{number}": 1 for number in range(ASSETS_MAX)}))
    with pytest.raises(InvalidTokens, match="too many assets"):
        change(full, snapshot({"ONE MORE": 1}))
    with pytest.raises(InvalidTokens, match="too many assets"):
        change(EMPTY, snapshot([f"A{number}" for number in range(ASSETS_MAX + 1)]))


@given(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1)] * 3)
def test_a_reservation_id_says_whose_it_is(user, account, key):
    assert parse_reservation_id(reservation_id(user, account, key)) == ReservationName(user, account, key)


@pytest.mark.parametrize(
    "text", ["", "a:b", "a:b:c:d", ":b:c", "a:b:", "a b:c:d", "%61:b:c", "a:b:%zz", None, 7]
)
def test_what_is_no_reservation_id_is_refused(text):
    with pytest.raises(InvalidTokens, match="reservation_id"):
        parse_reservation_id(text)


def test_every_token_command_names_its_ledger():
    commands: list[TokenCommand] = [snapshot({}), reserving(1), settling(1), releasing(), expiring()]
    assert {owner_of(command) for command in commands} == {("u", "default")}
    assert ledger_id("u") == "u\x1fdefault"
    for user in ("", "a\x1fb", "x" * 257, None):
        with pytest.raises(InvalidTokens):
            ledger_id(user)


def test_a_command_survives_json():
    settle = settling("1.5", received={"BTC": "2"})
    assert msgspec.json.decode(msgspec.json.encode(settle), type=TokenCommand) == settle


def test_a_ledger_survives_its_record():
    ledger = after(
        reserving(40),
        reserving(1, "k2"),
        settling("0.5", received={"B": 1}),
        snapshot(["C"], 1),
        ledger=funded(),
    )
    assert codec.unpack_ledger(codec.pack_ledger(ledger)) == ledger
    shown = ledger.to_dict()
    assert shown["assets"]["USDT"]["available"] == "98.5"
    assert shown["reservations"]["k2"]["amount"] == "1"


def test_an_audit_sees_a_ledger_that_contradicts_itself():
    ledger = after(reserving(40), ledger=funded())
    assert broken_rules(ledger) == ()
    lost = msgspec.structs.replace(ledger, reservations={})
    assert broken_rules(lost) == ("USDT: reserved differs from the sum of the open reservations",)
    twice = msgspec.structs.replace(ledger, resolved=ledger.reservations)
    assert broken_rules(twice) == ("reservation 'k': open, and resolved as well",)


def test_a_change_that_is_refused_leaves_the_ledger_as_it_was():
    ledger = after(reserving(40), ledger=funded())
    untouched = codec.pack_ledger(ledger)
    for command in (reserving(100, "k2"), settling(41), snapshot({"USDT": 1, "BTC": -1}, 9)):
        with pytest.raises(Rejected):
            change(ledger, command)
    assert codec.pack_ledger(ledger) == untouched


def test_amounts_beyond_the_default_precision_stay_exact():
    ledger = funded("999999999999999999999999.000000000000000001")
    ledger = after(reserving("0.000000000000000001"), ledger=ledger)
    assert figures(ledger)[2] == 10**24 - 1


def test_a_change_says_what_it_did():
    result = change(EMPTY, snapshot({"USDT": 1}))
    assert isinstance(result, LedgerChange)
    assert result.reservation is None
