"""The token ledger: snapshots of a venue, reservations, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepool.errors import (
    IdempotencyConflict,
    IllegalTransition,
    InsufficientTokens,
    InvalidTokens,
    Rejected,
)
from tradepool.model import codec
from tradepool.model.token_commands import UpdateTokens
from tradepool.model.tokens import (
    APPLIED_MAX,
    ASSETS_MAX,
    OPEN_RESERVATIONS_MAX,
    RESOLVED_MAX,
    ExpireTokens,
    Ledger,
    LedgerChange,
    ReleaseTokens,
    ReservationName,
    ReservationStatus,
    ReserveTokens,
    SettleTokens,
    TokenCommand,
    available,
    broken_rules,
    change,
    find_reservation,
    ledger_id,
    owner_of,
    parse_reservation_id,
    reservation_id,
)

US_PER_S = 1_000_000
EMPTY = Ledger(user_id="u")

_ids = count()


def command_id() -> str:
    return f"c{next(_ids)}"


def snapshot(tokens: Any, at: int = 0, *, complete: bool = False) -> UpdateTokens:
    return UpdateTokens(command_id=command_id(), as_of=at, user_id="u", tokens=tokens, complete=complete)


def reserving(
    amount: Any, key: Any = "k", *, asset: Any = "USDT", ttl_s: Any = 60, at: int = 0
) -> ReserveTokens:
    return ReserveTokens(
        command_id=command_id(), as_of=at, user_id="u", asset=asset, amount=amount, key=key, ttl_s=ttl_s
    )


def settling(spent: Any, key: str = "k", *, received: Any = None, at: int = 0) -> SettleTokens:
    return SettleTokens(
        command_id=command_id(),
        as_of=at,
        reservation_id=reservation_id("u", "default", key),
        spent=spent,
        received={} if received is None else received,
    )


def releasing(key: str = "k") -> ReleaseTokens:
    return ReleaseTokens(command_id=command_id(), as_of=0, reservation_id=reservation_id("u", "default", key))


def expiring() -> ExpireTokens:
    return ExpireTokens(command_id=command_id(), as_of=0, user_id="u")


def after(*commands: TokenCommand, ledger: Ledger = EMPTY) -> Ledger:
    for command in commands:
        ledger = change(ledger, command).ledger
    return ledger


def funded(amount: Any = 100) -> Ledger:
    return after(snapshot({"USDT": amount}))


def figures(ledger: Ledger, asset: str = "USDT") -> tuple[Decimal, Decimal, Decimal]:
    balance = ledger.assets[asset]
    return balance.total, balance.reserved, balance.available


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
    "tokens",
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
def test_loose_tokens_that_mean_nothing_are_refused(tokens):
    with pytest.raises(InvalidTokens):
        change(EMPTY, snapshot(tokens))


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(anything)
def test_only_rejections_come_out_of_any_tokens(tokens):
    outcome = _outcome_or_refusal(snapshot(tokens))
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


def test_a_reservation_lowers_what_is_available():
    result = change(funded(), reserving("40.5", at=3, ttl_s="1.5"))
    assert figures(result.ledger) == (100, Decimal("40.5"), Decimal("59.5"))
    made = result.reservation
    assert made is not None
    assert (made.key, made.asset, made.status) == ("k", "USDT", "open")
    assert made.expires_at == 3 + 1_500_000


def test_more_than_available_cannot_be_reserved():
    ledger = after(reserving(60), ledger=funded())
    with pytest.raises(InsufficientTokens, match="40 USDT available"):
        change(ledger, reserving(41, "k2"))
    with pytest.raises(InsufficientTokens):
        change(ledger, reserving(1, "k3", asset="NEVER SEEN"))
    assert figures(after(reserving(40, "k4"), ledger=ledger)) == (100, 100, 0)


def test_the_key_makes_a_repeated_reserve_a_duplicate():
    ledger = after(reserving(60), ledger=funded())
    result = change(ledger, reserving("60.0"))
    assert (result.outcome, result.ledger) == ("duplicate", ledger)
    assert result.reservation == ledger.reservations["k"]
    with pytest.raises(IdempotencyConflict):
        change(ledger, reserving(61))
    with pytest.raises(IdempotencyConflict):
        change(ledger, reserving(60, asset="BTC"))


def test_a_reserve_delivered_again_after_its_settlement_reserves_nothing():
    first = reserving(60)
    ledger = after(first, settling(60), ledger=funded())
    for repeat in (first, reserving(60)):
        result = change(ledger, repeat)
        assert (result.outcome, result.ledger) == ("duplicate", ledger)
        assert result.reservation is not None
        assert result.reservation.status is ReservationStatus.SETTLED


def test_settling_spends_returns_the_rest_and_books_what_was_received():
    ledger = after(reserving(40), ledger=funded())
    result = change(ledger, settling("30.5", received={"BTC": "0.001", "USDT": 1}, at=5))
    assert figures(result.ledger) == (Decimal("70.5"), 0, Decimal("70.5"))
    assert figures(result.ledger, "BTC") == (Decimal("0.001"), 0, Decimal("0.001"))
    assert result.reservation is not None
    assert (result.reservation.status, result.reservation.resolved_at) == ("settled", 5)
    assert result.ledger.reservations == {}


def test_a_reservation_is_settled_once():
    ledger = after(reserving(40), settling(30), ledger=funded())
    assert change(ledger, settling(30)).outcome == "duplicate"
    with pytest.raises(IdempotencyConflict):
        change(ledger, settling(31))
    with pytest.raises(IllegalTransition, match="already settled"):
        change(ledger, releasing())


def test_no_more_than_reserved_can_be_spent():
    ledger = after(reserving(40), ledger=funded())
    with pytest.raises(InvalidTokens, match="at most 40 USDT"):
        change(ledger, settling("40.00000001"))
    with pytest.raises(InvalidTokens):
        change(ledger, settling(-1))
    with pytest.raises(InvalidTokens):
        change(ledger, settling(1, received=["BTC"]))


def test_a_reservation_is_released_once():
    ledger = after(reserving(40), releasing(), ledger=funded())
    assert figures(ledger) == (100, 0, 100)
    assert change(ledger, releasing()).outcome == "duplicate"
    with pytest.raises(IllegalTransition, match="already released"):
        change(ledger, settling(1))


def test_expiry_gives_back_what_is_over_and_only_once():
    ledger = after(reserving(40, ttl_s=1), reserving(10, "long", ttl_s=9), ledger=funded())
    assert change(ledger, expiring(), now_us=US_PER_S - 1).outcome == "duplicate"
    result = change(ledger, expiring(), now_us=US_PER_S)
    assert figures(result.ledger) == (100, 10, 90)
    assert change(result.ledger, expiring(), now_us=US_PER_S).outcome == "duplicate"
    with pytest.raises(IllegalTransition, match="already expired"):
        change(result.ledger, settling(1))
    assert change(result.ledger, releasing()).outcome == "duplicate"


def test_a_reserve_expires_what_is_over_first():
    ledger = after(reserving(100, ttl_s=1), ledger=funded())
    result = change(ledger, reserving(100, "k2", at=2 * US_PER_S), now_us=2 * US_PER_S)
    assert figures(result.ledger) == (100, 100, 0)
    assert list(result.ledger.reservations) == ["k2"]


def test_tokens_spent_after_the_time_was_over_are_still_settled():
    ledger = after(reserving(40, ttl_s=1), ledger=funded())
    assert figures(change(ledger, settling(40, at=US_PER_S * 9), now_us=US_PER_S * 9).ledger) == (60, 0, 60)


def test_a_reserve_that_arrives_after_its_own_time_is_stale():
    result = change(funded(), reserving(40, ttl_s=1), now_us=US_PER_S)
    assert (result.outcome, result.reservation) == ("stale", None)


def test_a_clock_that_runs_ahead_does_not_hold_tokens_for_longer():
    made = change(funded(), reserving(40, ttl_s=1, at=10**15), now_us=5).reservation
    assert made is not None
    assert made.expires_at == 5 + US_PER_S


def test_a_snapshot_from_before_a_settlement_is_stale():
    ledger = after(reserving(40), settling(40, at=10), ledger=funded())
    assert change(ledger, snapshot({"USDT": 100}, 9)).outcome == "stale"
    assert figures(after(snapshot({"USDT": 60}, 11), ledger=ledger)) == (60, 0, 60)


@pytest.mark.parametrize(
    "command",
    [
        reserving(0),
        reserving(-1),
        reserving("much"),
        reserving(1, ""),
        reserving(1, "k" * 129),
        reserving(1, None),
        reserving(1, asset=""),
        reserving(1, ttl_s=0),
        reserving(1, ttl_s=31 * 86_400),
        reserving(1, ttl_s="soon"),
    ],
)
def test_loose_reservations_that_mean_nothing_are_refused(command):
    with pytest.raises(InvalidTokens):
        change(funded(), command)


def test_an_unknown_reservation_is_refused():
    for command in (settling(1, "never"), releasing("never")):
        with pytest.raises(InvalidTokens, match="no such reservation"):
            change(funded(), command)


def test_open_reservations_are_bounded():
    ledger = after(
        *(reserving(1, f"k{number}") for number in range(OPEN_RESERVATIONS_MAX)), ledger=funded(2000)
    )
    with pytest.raises(InvalidTokens, match="too many open reservations"):
        change(ledger, reserving(1, "one more"))


def test_a_bounded_number_of_resolved_reservations_and_commands_is_remembered():
    ledger = funded()
    for number in range(RESOLVED_MAX + 1):
        ledger = after(reserving(1, f"k{number}"), releasing(f"k{number}"), ledger=ledger)
    assert len(ledger.resolved) == RESOLVED_MAX
    assert find_reservation(ledger, "k0") is None
    assert find_reservation(ledger, "k1") == ledger.resolved[0]
    assert len(ledger.applied) == 16 * APPLIED_MAX


def test_a_settle_delivered_again_is_a_duplicate_after_its_reservation_is_forgotten():
    settle = settling(1)
    ledger = msgspec.structs.replace(after(reserving(1), settle, ledger=funded()), resolved=())
    result = change(ledger, settle)
    assert (result.outcome, result.reservation) == ("duplicate", None)


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
