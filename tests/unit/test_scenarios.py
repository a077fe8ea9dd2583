"""Stress tests equal the fractions of the oracle to the last 10⁻⁸, whichever way a net position takes."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mixed_positions import PRICES, random_positions
from tests.pnl_oracle import position
from tests.stress_oracle import expected_risks, figures_of, net_key, price_in, shortfall, value_at_risk
from tradepool.errors import InvalidTrade
from tradepool.pnl.book import Book
from tradepool.pnl.marks import mark
from tradepool.pnl.stress import blocks, numba_matrix, numpy_matrix
from tradepool.pnl.stress.kernels import Kernel, kernel_beside
from tradepool.pnl.stress.netting import net
from tradepool.pnl.stress.risk import Tail, tail_of, tails_of
from tradepool.pnl.stress.scenarios import SCENARIOS_MAX, Scenario, ScenarioPrices
from tradepool.pnl.stress.tables import build_scenario_tables
from tradepool.pnl.stress.valuation import stress
from tradepool.pnl.tables import lane_ratio, lots_max_narrow, lots_max_wide

AT = 1_700_000_000_000_000
KERNELS = [Kernel("numpy", numpy_matrix.add_values, 1), Kernel("numba", numba_matrix.add_values, 2)]


def shock(by="-0.1", symbol="*"):
    return Scenario(shocks={symbol: Decimal(by)})


def stressed(positions, scenarios, *, prices=PRICES, confidence="0.95", users=(), kernel=KERNELS[0]):
    netted = net(Book.from_positions(positions))
    chosen = {"confidence": Decimal(confidence), "users": users, "kernel": kernel}
    return stress(netted, prices, scenarios, AT, **chosen)


def assert_exact(positions, scenarios, *, prices=PRICES, confidence="0.95"):
    """The figures of every kernel are the oracle's; those of the last one."""
    expected = expected_risks(positions, prices, scenarios, confidence)
    for kernel in KERNELS:
        found = stressed(positions, scenarios, prices=prices, confidence=confidence, kernel=kernel)
        assert {key: figures_of(risk) for key, risk in found.users.items()} == expected["users"]
        assert {key: figures_of(risk) for key, risk in found.fleet.items()} == expected["fleet"]
        assert len(found.users) == len(expected["users"])
    return found


def random_scenarios(count, rng):
    for number in range(count):
        shocks = {
            symbol: Decimal(f"{rng.uniform(-0.9, 2):.{rng.choice((1, 4, 17))}f}")
            for symbol in rng.sample(sorted(PRICES), 3)
        }
        prices = {
            symbol: PRICES[symbol] * Decimal(rng.choice(("0.5", "1.25", "0.000001", "3.000000007")))
            for symbol in rng.sample(sorted(PRICES), 2)
            if symbol not in shocks
        }
        if number % 3:
            shocks["*"] = Decimal(f"{rng.uniform(-0.5, 0.5):.3f}")
        yield f"s{number}", Scenario(prices=prices, shocks=shocks)


@pytest.mark.parametrize(
    ("magnitudes", "places"),
    [((-6, 5), (0, 2, 6, 8)), ((-6, 9), (8, 12, 18)), ((0, 20), (0, 4, 18))],
    ids=["everyday", "fine amounts", "every way at once"],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_books_are_exact_in_random_scenarios(magnitudes, places, seed, monkeypatch):
    monkeypatch.setattr(blocks, "_CELLS", 64)
    rng = random.Random(seed)
    rows = list(random_positions(250, rng=rng, users=12, magnitudes=magnitudes, places=places))
    assert_exact(rows, dict(random_scenarios(13, rng)), confidence=rng.choice(("0.95", "0.5", "0.8125")))


def test_more_scenarios_than_a_chunk_of_the_kernel_holds(monkeypatch):
    monkeypatch.setattr(numpy_matrix, "_CELLS", 8)
    rng = random.Random(3)
    rows = list(random_positions(60, rng=rng, users=12, magnitudes=(-3, 5), places=(4,)))
    assert_exact(rows, dict(random_scenarios(40, rng)))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("exponent", [0, 8, 18])
def test_both_sides_of_both_guards_are_exact_in_every_scenario(inverse, exponent):
    rng = random.Random(exponent)
    market = "inverse" if inverse else "spot"
    for digits in (5, 12, 17):
        price = Decimal(rng.randrange(10 ** (digits - 1), 10**digits)).scaleb(rng.randrange(-12, 3))
        scenarios = {
            f"s{n}": Scenario(prices={"X/USDT": price * Decimal(by)})
            for n, by in enumerate(("1.1", "0.9", "0.3333333", "2.0000001"))
        }
        netted = net(Book.from_positions(lot_rows([1], exponent, market)))
        over = ScenarioPrices({"X/USDT": price}, scenarios)
        tables = build_scenario_tables(netted, over, {"X/USDT"}, len(scenarios))
        limits = (int(tables.narrow_max.max()), int(tables.wide_max.max()))
        lots = {min(abs(limit + step), 2**63 - 1) for limit in limits for step in range(-3, 4)}
        lots |= {rng.randrange(1, limit) for limit in limits if limit > 1 for _ in range(20)}
        assert_exact(lot_rows(lots, exponent, market), scenarios, prices={"X/USDT": price})


def lot_rows(lots, exponent, market):
    """Longs and shorts of so many lots, each of a user of its own."""
    sizes = [Decimal(sign * size).scaleb(-exponent) for size in lots for sign in (1, -1)]
    return [
        position(f"t{n}", str(size), symbol="X/USDT", market=market, user_id=f"u{n}", fee_rate="0.0007")
        for n, size in enumerate(sizes)
    ]


def test_a_kernel_is_trusted_with_half_the_lots_of_a_mark():
    price = Decimal("64000.12")
    netted = net(Book.from_positions([position("t", "1")]))
    over = ScenarioPrices({"BTC/USDT": price}, {"a": Scenario(prices={"BTC/USDT": 2 * price})})
    tables = build_scenario_tables(netted, over, {"BTC/USDT"}, 1)
    highest = lane_ratio(netted.lanes[1], 2 * price)
    assert tables.narrow_max.tolist() == [-1, lots_max_narrow(highest) // 2]
    assert tables.wide_max.tolist() == [-1, lots_max_wide(highest) // 2]


def test_a_net_position_of_one_trade_is_worth_what_its_mark_is():
    rng = random.Random(4)
    rows = list(random_positions(300, rng=rng, users=12, magnitudes=(-6, 12), places=(2, 8, 18)))
    rows = list({net_key(row): row for row in rows}.values())
    scenarios = dict(random_scenarios(5, rng))
    found = stressed(rows, scenarios, users={row.user_id for row in rows})
    book = Book.from_positions(rows)
    base = mark(book, PRICES, AT)
    assert {key: risk.base for key, risk in found.users.items()} == {
        key: user.unrealised for key, user in base.users.items()
    }
    over = ScenarioPrices(PRICES, scenarios)
    for place, name in enumerate(scenarios, 1):
        moved = mark(book, {symbol: over.of(symbol).decimals()[place] for symbol in PRICES}, AT)
        for key, user in moved.users.items():
            was = base.users[key].unrealised
            assert Fraction(found.users[key].changes[name]) == Fraction(user.unrealised) - Fraction(was)
        for currency, total in moved.totals.items():
            changed = Fraction(total) - Fraction(base.totals[currency])
            assert Fraction(found.fleet[currency].changes[name]) == changed


@pytest.mark.parametrize("fees", [("0",), ("0.0004", "-0.00025", "1")])
def test_netting_moves_no_figure_by_more_than_its_bound(fees):
    rng = random.Random(5)
    rows = [
        position(f"t{n}", f"{rng.uniform(-9, 9):.8f}", "1", user_id=f"u{n % 7}", fee_rate=rng.choice(fees))
        for n in range(3000)
    ]
    found = stressed(rows, {"a": shock()}, prices=PRICES)
    base = mark(Book.from_positions(rows), PRICES, AT)
    per_rounding = Decimal("0.5e-8") if fees == ("0",) else Decimal("1.5e-8")
    netted = len({net_key(row) for row in rows})
    off = abs(found.fleet["USDT"].base - base.totals["USDT"])
    assert 0 < off <= (len(rows) + netted) * per_rounding


def test_netting_keeps_directions_apart_only_where_there_is_a_fee():
    rows = [position(f"t{n}", amount) for n, amount in enumerate(("5", "-3", "-2"))]
    rows += [position(f"f{n}", amount, fee_rate="0.001") for n, amount in enumerate(("5", "-3", "-2"))]
    netted = net(Book.from_positions(rows))
    assert sorted(zip(netted.lots.tolist(), netted.count.tolist(), strict=True)) == [
        (-5 * 10**8, 2),
        (0, 3),
        (5 * 10**8, 1),
    ]
    assert_exact(rows, {"a": shock()})


def test_a_book_is_netted_with_its_tail_and_without_what_was_removed():
    book = Book(compact_rows_min=10**6)
    rows = [position(f"t{n}", str(n + 1), user_id=f"u{n % 3}") for n in range(50)]
    book.upsert(rows, 1)
    book.compact()
    late = [position(f"late{n}", "1", user_id=f"u{n % 5}", symbol="ETH/USDT") for n in range(20)]
    book.upsert(late, 1)
    book.remove([row.trade_id for row in rows[:10]])
    netted = net(book)
    book.remove([row.trade_id for row in late])
    book.compact()
    chosen = {"confidence": Decimal("0.95"), "kernel": KERNELS[0]}
    found = stress(netted, PRICES, {"a": shock()}, AT, **chosen)
    assert found.missing == ()
    expected = expected_risks(rows[10:] + late, PRICES, {"a": shock()}, "0.95")
    assert {key: figures_of(risk) for key, risk in found.users.items()} == expected["users"]


@pytest.mark.parametrize("sign", ["", "-"])
def test_lots_and_costs_that_leave_int64_together_are_exact(sign):
    rows = [
        position(f"t{n}", f"{sign}{80_000_000_000 + n}", f"{sign}{40_000_000_000}", user_id=f"u{n % 2}")
        for n in range(300)
    ]
    rows += [position(f"s{n}", "0.5", "1", user_id=f"u{n % 3}") for n in range(30)]
    netted = net(Book.from_positions(rows))
    assert sum(row.count for row in netted.rows) == 320
    assert_exact(rows, {"a": shock("-0.1"), "b": shock("0.2")}, prices={"BTC/USDT": Decimal("0.37")})


def test_a_group_whose_positions_fit_alone_and_not_together_is_exact():
    prices = {f"S{n}/USDT": Decimal("99999.5") for n in range(40)}
    rows = [
        position(f"t{n}", "40000", "3", symbol=f"S{n}/USDT", user_id=f"u{n % 2}", fee_rate="0.001")
        for n in range(40)
    ]
    assert_exact(rows, {"a": shock(), "b": shock("0.3")}, prices=prices)


def test_changes_of_a_fleet_that_leave_int64_are_exact():
    rows = [position(f"t{n}", "60000", user_id=f"u{n}") for n in range(200)]
    found = assert_exact(rows, {"a": shock(), "b": shock("0.9")}, prices={"BTC/USDT": Decimal(99999)})
    assert found.fleet["USDT"].changes["b"] * 10**8 > 2**63


def test_the_fleet_changes_by_what_its_users_do():
    rng = random.Random(6)
    rows = list(random_positions(300, rng=rng, users=12, magnitudes=(-6, 20), places=(0, 8, 18)))
    found = stressed(rows, dict(random_scenarios(9, rng)), users={row.user_id for row in rows})
    for currency, fleet in found.fleet.items():
        users = [risk for (_, other), risk in found.users.items() if other == currency]
        assert fleet.base == exact_sum(risk.base for risk in users)
        assert fleet.count == sum(risk.count for risk in users)
        for name, change in fleet.changes.items():
            assert change == exact_sum(risk.changes[name] for risk in users)


def exact_sum(addends):
    return sum(map(Fraction, addends))


def test_the_order_of_scenarios_changes_no_figure():
    rng = random.Random(7)
    rows = list(random_positions(200, rng=rng, users=12, magnitudes=(-3, 6), places=(4, 18)))
    scenarios = dict(random_scenarios(21, rng))
    shuffled = dict(rng.sample(list(scenarios.items()), len(scenarios)))
    one, other = stressed(rows, scenarios), stressed(rows, shuffled)
    assert figures(one.users) == figures(other.users)
    assert figures(one.fleet) == figures(other.fleet)


def figures(risks):
    """All but the name of the worst scenario, which is the first of equal ones."""
    return {key: figures_of(risk)[1:] for key, risk in risks.items()}


def test_only_users_asked_for_have_their_changes():
    rows = [position("a", "1"), position("b", "2", user_id="bob")]
    found = stressed(rows, {"a": shock()}, users={"bob"}, prices={"BTC/USDT": Decimal(100)})
    assert found.users["bob", "USDT"].changes == {"a": Decimal(-20)}
    assert found.users["ann", "USDT"].changes is None
    assert found.to_dict(["bob", "eve"])["users"]["eve"] == {}
    assert found.to_dict(["bob"])["users"]["bob"]["USDT"]["value_at_risk"] == 20
    with pytest.raises(KeyError):
        found.users["eve", "USDT"]


def test_currencies_are_never_added_and_missing_prices_never_zero():
    rows = [
        position("a", "1"),
        position("b", "1", currency="EUR"),
        position("c", "1", symbol="GONE/USDT", user_id="lost"),
        position("d", "1e40", symbol="GONE/USDT", user_id="lost"),
    ]
    scenarios = {"a": Scenario(prices={"GONE/USDT": Decimal(5), "BTC/USTD": Decimal(1)})}
    found = stressed(rows, scenarios | {"b": shock()}, prices={"BTC/USDT": Decimal(10)})
    assert found.missing == ("GONE/USDT",)
    assert found.unheld == ("BTC/USTD",)
    assert {currency: risk.worst_change for currency, risk in found.fleet.items()} == {"USDT": -1, "EUR": -1}
    assert set(found.users) == {("ann", "USDT"), ("ann", "EUR")}


def test_an_empty_book_has_no_risk():
    found = stressed([], {"a": shock()})
    assert (dict(found.fleet), dict(found.users), found.missing, found.unheld) == ({}, {}, (), ())


def test_of_equal_worst_scenarios_the_first_is_named():
    found = stressed([position("a", "1")], {"up": shock("0.1"), "b": shock(), "c": shock()})
    assert found.fleet["USDT"].worst_scenario == "b"


@pytest.mark.parametrize(
    ("base", "shock", "price"),
    [
        ("64000.12", "-0.123456", "56098.92118528"),
        ("64000.12", "0.12345678", "71901.3687348136"),
        ("64000.12", "0.123456789", "71901.3693108"),
        ("64000.12", "0.10000000000000000000", "70400.132"),
        ("64000.12", "0.123456789123456", "71901.3693187"),
        ("123456789", "0.123456", "138698270.342784"),
        ("0.000012345678", "0.123456", "0.000013869826023168"),
        ("0.123456789012345", "0.123456789123456", "0.138698367779301"),
        ("0.000000000000000003", "-0.1", "0.0000000000000000027"),
        ("7", "-0.5", "3.5"),
        ("1E+5", "0.000001", "100000.1"),
        ("6.1907956374E+12", "0.12345678901234567", "6955091388230"),
        ("64000.12", "0E-100000000", "64000.12"),
    ],
)
def test_a_shocked_price_is_exact_unless_the_shock_is_a_quotient(base, shock, price):
    over = ScenarioPrices({"A": Decimal(base)}, {"s": Scenario(shocks={"*": Decimal(shock)})})
    before, after = over.of("A").decimals()
    assert before == Decimal(base)
    assert after == Decimal(price)
    scenario = Scenario(shocks={"*": Decimal(shock) or Decimal(0)})
    assert Fraction(after) == price_in(scenario, "A", Decimal(base))


def test_prices_of_a_symbol_share_no_more_places_than_they_need():
    scenarios = {"a": Scenario(prices={"A": Decimal("5.0000000000000000000")}), "b": shock("-0.50")}
    assert ScenarioPrices({"A": Decimal("64000.10")}, scenarios).of("A") == ([640001 * 10, 500, 3200005], 2)


@pytest.mark.parametrize(
    ("scenarios", "words"),
    [
        ({}, r"scenarios: .*\(got 0\)"),
        ({f"s{n}": shock() for n in range(SCENARIOS_MAX + 1)}, r"scenarios: .*\(got 10001\)"),
        ({"x": shock("-1")}, r"scenarios\[x\].shocks\[\*\]: .*\(got -1\).*above -1"),
        ({"x": shock("NaN", "BTC/USDT")}, r"scenarios\[x\].shocks\[BTC/USDT\]"),
        ({"x": Scenario(prices={"BTC/USDT": Decimal(0)})}, r"scenarios\[x\].prices\[BTC/USDT\]: .*above 0"),
        ({"x": Scenario(prices={"NOBODY/HAS": Decimal(-1)})}, r"prices\[NOBODY/HAS\]"),
        ({"x": Scenario(prices={"BTC/USDT": "5"})}, r"prices\[BTC/USDT\]"),
        (
            {"x": Scenario(prices={"BTC/USDT": Decimal(1)}, shocks={"BTC/USDT": Decimal(1)})},
            r"shocks\[BTC/USDT\]: .*the one or the other",
        ),
        ({"x": shock("-0.99999999999999999")}, r"scenarios\[x\].shocks\[BTC/USDT\]: .*smaller fall"),
    ],
)
def test_a_bad_scenario_is_refused_by_its_name_and_symbol(scenarios, words):
    with pytest.raises(InvalidTrade, match=words):
        stressed([position("a", "1")], scenarios)


@pytest.mark.parametrize("confidence", ["0", "1", "-0.1", "1.5", "NaN"])
def test_a_confidence_is_between_0_and_1(confidence):
    with pytest.raises(InvalidTrade, match="confidence"):
        stressed([position("a", "1")], {"a": shock()}, confidence=confidence)


def risk_of_changes(changes, confidence):
    """Of a position whose value changes by so much, from 1000, in one scenario each."""
    scenarios = {f"s{n}": Scenario(prices={"X": Decimal(1000 + by)}) for n, by in enumerate(changes)}
    row = position("t", "1", "1000", currency="USD", symbol="X")
    return stressed([row], scenarios, prices={"X": Decimal(1000)}, confidence=confidence).fleet["USD"]


def test_of_100_losses_at_95_per_cent_var_is_the_sixth_largest_and_shortfall_the_mean_of_five():
    """The example in the notes of skfolio's `value_at_risk`: skfolio.org, skfolio.measures.value_at_risk."""
    risk = risk_of_changes(random.Random(9).sample([-loss for loss in range(1, 101)], 100), "0.95")
    assert (risk.value_at_risk, risk.expected_shortfall) == (95, 98)


@pytest.mark.parametrize(
    ("share", "value_at_risk", "shortfall"),
    [
        ("0.05", 100, "100"),
        ("0.1", 20, "100"),  # a tenth of the losses is 100, so with 0.9 none above 20 is needed
        ("0.2", 20, "60"),
        ("0.3", 20, "46.66666667"),
        ("0.4", 0, "40"),
        ("0.6", 0, "26.66666667"),
        ("0.9", -50, "12.22222222"),
        ("0.999", -50, "6.05605606"),
    ],
)
def test_risk_of_ten_changes_worked_out_by_hand(share, value_at_risk, shortfall):
    risk = risk_of_changes([-100] + [-20] * 3 + [0] * 4 + [50] * 2, str(1 - Decimal(share)))
    assert risk.value_at_risk == value_at_risk
    assert risk.expected_shortfall == Decimal(shortfall)


@pytest.mark.parametrize("confidence", ["0.000001", "0.5", "0.95", "0.999"])
def test_of_one_scenario_everything_is_its_change(confidence):
    for change in (-7, 0, 7):
        risk = risk_of_changes([change], confidence)
        assert (risk.worst_change, risk.value_at_risk, risk.expected_shortfall) == (change, -change, -change)


def test_where_every_scenario_gains_the_risk_is_negative():
    risk = risk_of_changes([30, 10, 20], "0.5")
    assert (risk.worst_scenario, risk.worst_change) == ("s1", 10)
    assert (risk.value_at_risk, round(risk.expected_shortfall, 4)) == (-20, Decimal("-13.3333"))


def test_fewer_scenarios_than_the_tail_needs_give_the_worst_loss():
    risk = risk_of_changes([-3, -50, 4, -1], "0.999")
    assert (risk.value_at_risk, risk.expected_shortfall) == (50, 50)


def test_an_expected_shortfall_in_between_is_rounded_half_to_even():
    tail = Tail(4, Decimal("0.5"))
    for units, rounded in (((9, -1, -2, 9), 2), ((-2, -3, 9, 9), 2), ((9, 1, 2, 9), -2)):
        assert tail.expected_shortfall(tail_of(units, tail)) == rounded


changes_lists = st.lists(st.integers(-(2**61), 2**61), min_size=1, max_size=60)
confidences = st.integers(1, 9999).map(lambda n: str(Decimal(n).scaleb(-4)))


@settings(max_examples=100, deadline=None)
@given(changes_lists, confidences)
def test_tails_are_those_of_the_definitions(changes, confidence):
    tail = Tail(len(changes), Decimal(confidence))
    one = tail_of(changes, tail)
    assert tails_of(np.array([changes, changes[::-1]]), tail).figures(0) == one
    assert -one.marginal == value_at_risk(changes, confidence)
    assert tail.expected_shortfall(one) == round(shortfall(changes, confidence))
    assert one.worst_change == min(changes) == changes[one.worst]


def test_tails_of_many_changes_are_those_of_each():
    changes = np.random.default_rng(8).integers(-(2**61), 2**61, (3, 3000))
    tail = Tail(3000, Decimal("0.4751"))
    found = tails_of(changes, tail)
    for number, one in enumerate(changes.tolist()):
        assert found.figures(number) == tail_of(one, tail)


def test_stress_tests_are_compiled_unless_marks_are_not():
    assert kernel_beside("numpy").name == "numpy"
    assert kernel_beside("cuda").name == kernel_beside("numba").name == "numba"
