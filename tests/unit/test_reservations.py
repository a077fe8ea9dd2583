"""Reservations of a token ledger: set aside, and resolved once, whatever comes again or too late."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from tests.token_steps import (
    US_PER_S,
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
from tests.trade_builders import new_trade
from tradepool import wire
from tradepool.errors import (
    IdempotencyConflict,
    IllegalTransition,
    InsufficientTokens,
    InvalidTokens,
    InvalidTrade,
)
from tradepool.model.commands import AddTrade
from tradepool.model.ids import SHORT_ID_CHARS, short_id
from tradepool.model.ledger import Balance, Ledger, ReservationStatus, find_reservation
from tradepool.model.ledger_change import APPLIED_MAX
from tradepool.model.reservations import FORGOTTEN_MAX, OPEN_RESERVATIONS_MAX, RESOLVED_MAX
from tradepool.model.trade_reservations import reserve_again


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
    assert result.reservation == find_reservation(ledger, "k")
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


def test_what_was_received_is_not_added_to_a_snapshot_that_may_have_it():
    """The order was filled between 1 and 5, and nobody knows whether the venue told before or after that."""
    reserved = after(reserving(40, at=1), ledger=funded())
    told = after(snapshot({"BTC": "0.001"}, 2), snapshot({"USDT": 60}, 2), ledger=reserved)
    ledger = after(settling(40, received={"BTC": "0.001", "ETH": 1}, at=5), ledger=told)
    assert available(ledger) == {"BTC": Decimal("0.001"), "ETH": 1, "USDT": 20}
    assert available(after(snapshot({"BTC": "0.003"}, 4), ledger=ledger))["BTC"] == Decimal("0.003")


def test_what_was_received_is_added_to_other_settlements_and_to_a_snapshot_from_before():
    """Settlements that overtake one another are no news of the venue's."""
    ledger = after(snapshot({"ETH": 1}), reserving(40, at=1), reserving(40, "k2", at=2), ledger=funded())
    for key, at in (("k2", 9), ("k", 8)):
        ledger = after(settling(40, key, received={"BTC": 1, "ETH": 1}, at=at), ledger=ledger)
    assert available(ledger) == {"BTC": 2, "ETH": 3, "USDT": 20}


def test_a_balance_of_an_earlier_release_counts_as_told_when_it_last_changed():
    balances = {"BTC": Balance(free=Decimal(1), as_of=5), "ETH": Balance(free=Decimal(1), as_of=4)}
    older = msgspec.structs.replace(funded(), assets=funded().assets | balances)
    ledger = after(reserving(40, at=4), settling(40, received={"BTC": 1, "ETH": 1}, at=6), ledger=older)
    assert available(ledger) == {"BTC": 1, "ETH": 2, "USDT": 60}


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


def test_a_reserve_that_arrives_after_its_own_time_is_stale_and_holds_nothing():
    ledger = funded()
    result = change(ledger, reserving(40, ttl_s=1), now_us=US_PER_S)
    assert (result.outcome, result.ledger) == ("stale", ledger)
    assert result.reservation is not None
    assert result.reservation.status is ReservationStatus.EXPIRED


def test_a_repeated_reserve_whose_time_is_over_is_not_taken_for_an_open_one():
    first = reserving(40, ttl_s=1)
    ledger = after(first, ledger=funded())
    for repeat in (first, reserving(40, ttl_s=1)):
        assert change(ledger, repeat, now_us=US_PER_S - 1).reservation == find_reservation(ledger, "k")
        late = change(ledger, repeat, now_us=US_PER_S)
        assert late.outcome == "duplicate"
        assert late.reservation is not None
        assert late.reservation.status is ReservationStatus.EXPIRED


def test_what_is_held_beyond_its_time_counts_as_available():
    ledger = after(reserving(40, ttl_s=1), reserving(10, "long", ttl_s=9), ledger=funded())
    assert available(ledger, now_us=US_PER_S - 1) == {"USDT": 50}
    assert available(ledger, now_us=US_PER_S) == {"USDT": 90}
    frozen = after(snapshot({"USDT": 30}, 1), ledger=ledger)
    assert available(frozen) == {}
    assert available(frozen, now_us=US_PER_S) == {"USDT": 20}


def test_a_clock_that_runs_ahead_does_not_hold_tokens_for_longer():
    made = change(funded(), reserving(40, ttl_s=1, at=10**15), now_us=5).reservation
    assert made is not None
    assert made.expires_at == 5 + US_PER_S


def test_a_clock_that_runs_ahead_does_not_make_later_news_stale():
    ledger = change(funded(), snapshot({"USDT": 5}, 10**15), now_us=5).ledger
    ledger = change(ledger, reserving(4, at=10**15), now_us=6).ledger
    ledger = change(ledger, settling(1, at=10**15), now_us=7).ledger
    assert ledger.updated_at == 7
    assert available(after(snapshot({"USDT": 9}, 8), ledger=ledger)) == {"USDT": 9}


@pytest.mark.parametrize("at", [-1, 10**18, 2**63])
def test_a_time_that_is_none_is_refused_with_any_command(at):
    for command in (snapshot({"USDT": 1}), reserving(1), settling(1), releasing(), expiring()):
        with pytest.raises(InvalidTokens, match="as_of"):
            change(funded(), msgspec.structs.replace(command, as_of=at), now_us=0)


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
    assert next(iter(ledger.resolved)) == "k1"
    assert len(ledger.applied) == 16 * APPLIED_MAX


def crowded(ledger: Ledger) -> Ledger:
    """With more reservations than a ledger remembers, made at 0 for a second and then expired at once."""
    many = (reserving(1, f"n{number}", ttl_s=1) for number in range(RESOLVED_MAX + 100))
    ledger = after(*many, ledger=ledger)
    return change(ledger, expiring(), now_us=US_PER_S).ledger


def test_expired_reservations_are_forgotten_before_those_that_bots_resolved():
    settle, release = settling(1), releasing("freed")
    ledger = after(reserving(1), reserving(1, "freed"), settle, release, ledger=funded(1000))
    ledger = crowded(ledger)
    assert len(ledger.resolved) == RESOLVED_MAX
    assert ledger.forgotten == ""
    for again in (settle, settling(1), release, releasing("freed")):
        result = change(ledger, again)
        assert (result.outcome, result.ledger) == ("duplicate", ledger)
        assert result.reservation is not None


def test_a_reserve_whose_expired_reservation_is_forgotten_holds_nothing_when_it_comes_again():
    first = reserving(1, ttl_s=1)
    ledger = crowded(after(first, ledger=funded(1000)))
    assert find_reservation(ledger, "k") is None
    again = change(ledger, first, now_us=US_PER_S)
    assert (again.outcome, again.ledger) == ("stale", ledger)
    at_once = change(msgspec.structs.replace(ledger, applied=short_id(first.command_id)), first)
    assert at_once.outcome == "duplicate"
    for result in (again, at_once):
        assert result.reservation is not None
        assert result.reservation.status in ("expired", "forgotten")


def test_a_reserve_whose_reservation_is_forgotten_holds_nothing_when_it_comes_again():
    """It was released, and so many after it that only its key is known, all within its time."""
    first = reserving(1)
    ledger = after(first, releasing(), ledger=funded())
    for number in range(RESOLVED_MAX + FORGOTTEN_MAX):
        last = ledger
        ledger = after(reserving(1, f"k{number}"), releasing(f"k{number}"), ledger=ledger)
    assert find_reservation(last, "k") is None
    for repeat in (first, reserving(1)):
        result = change(last, repeat)
        assert (result.outcome, result.ledger) == ("duplicate", last)
        assert result.reservation is not None
        assert result.reservation.status is ReservationStatus.FORGOTTEN
    with pytest.raises(InvalidTokens, match="no such reservation"):
        change(last, settling(1))
    assert len(ledger.forgotten) == FORGOTTEN_MAX * SHORT_ID_CHARS
    assert change(ledger, reserving(1)).outcome == "applied"


def test_nothing_received_may_be_said_in_two_ways():
    ledger = after(reserving(40), ledger=funded())
    settle = msgspec.structs.replace(settling(30), received=None)
    assert change(ledger, settle).ledger.assets.keys() == {"USDT"}
    assert change(after(settle, ledger=ledger), settling(30)).outcome == "duplicate"


def test_an_add_with_a_reservation_survives_the_wire():
    reserve = {"asset": "USDT", "amount": Decimal("1.50"), "ttl_s": 60}
    command = AddTrade(command_id="c", as_of=1, trade={"user_id": "u"}, reserve=reserve)
    sent = wire.command_from_wire(wire.decode(wire.encode(wire.command_to_wire(command))))
    assert sent == msgspec.structs.replace(command, reserve=reserve | {"amount": "1.50"})
    for reserve in ("USDT", 5, ["USDT", 1]):
        with pytest.raises(InvalidTrade, match="reserve"):
            wire.command_from_wire(wire.command_to_wire(command) | {"reserve": reserve})


@pytest.mark.parametrize(
    "amount", ["123456789012345.123456789012345678", "1000000000000000.000000000000000001"]
)
def test_an_amount_of_more_digits_than_a_plain_decimal_keeps_comes_back_whole(amount):
    reserved = after(snapshot({"PEPE": amount}), reserving(amount, asset="PEPE"))
    assert figures(after(releasing(), ledger=reserved), "PEPE") == (Decimal(amount), 0, Decimal(amount))
    assert figures(change(reserved, expiring(), now_us=60 * US_PER_S).ledger, "PEPE")[1] == 0
    spent = after(settling(amount), ledger=reserved)
    assert figures(spent, "PEPE") == (0, 0, 0)


def test_an_add_that_comes_again_after_its_reservation_was_forgotten_is_a_duplicate():
    reserve = {"asset": "USDT", "amount": 1, "ttl_s": 60}
    again = AddTrade(command_id="again", as_of=0, trade={}, reserve=reserve)
    ledger = after(reserving(1, "t1"), releasing("t1"), ledger=funded())
    for number in range(RESOLVED_MAX):
        ledger = after(reserving(1, f"k{number}"), releasing(f"k{number}"), ledger=ledger)
    assert find_reservation(ledger, "t1") is None
    answer = reserve_again(ledger, again, new_trade("t1", user_id="u"), is_same=False)
    assert answer.reservation is not None
    assert (answer.outcome, answer.reservation.status) == ("duplicate", "forgotten")
    with pytest.raises(IdempotencyConflict, match="not with this reservation"):
        reserve_again(ledger, again, new_trade("t2", user_id="u"), is_same=False)
