"""Stress tests of a real pool: through the library, the task and the command line."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tasks.app import app
from tasks.pnl import stress_test
from tests.loose_trades import buy
from tradepool import TradePool, wire, wiring
from tradepool.cli import main
from tradepool.errors import InvalidTrade
from tradepool.marking.stress import stress_question
from tradepool.model.money import parse_decimal
from tradepool.pnl.stress.scenarios import Scenario

FALL = {"shocks": {"*": "-0.1"}}
BTC_ALONE = {"prices": {"BTC/USDT": "120"}, "shocks": {"ETH/USDT": 0}}


def stocked(folder, **settings):
    """A pool in which ann has bought 2 BTC and 3 ETH and bob 1 BTC, at 100 each, with prices stored."""
    with TradePool.embedded(folder, **settings) as pool:
        pool.add_trade(buy(user_id="ann", status="filled", amount="2", price="100"))
        pool.add_trade(buy(user_id="ann", symbol="ETH/USDT", status="filled", amount="3", price="100"))
        pool.add_trade(buy(user_id="bob", status="filled", amount="1", price="100"))
        pool.set_prices({"BTC/USDT": "110", "ETH/USDT": "100"})
    return folder


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory):
    folder = stocked(tmp_path_factory.mktemp("stress") / "pool", shard_count=4)
    with TradePool.embedded(folder, shard_count=4) as opened:
        yield opened


def test_a_pool_is_put_to_scenarios_at_its_stored_prices(pool):
    test = pool.stress_test({"fall": FALL, "btc": BTC_ALONE}, confidence=0.5, users=["bob"])
    fleet = test.fleet["USDT"]
    assert fleet.changes == {"fall": Decimal(-63), "btc": Decimal(30)}
    assert (fleet.base, fleet.value_at_risk, fleet.expected_shortfall) == (30, -30, 63)
    assert (fleet.worst_scenario, fleet.worst_change, fleet.count) == ("fall", -63, 3)
    assert test.users["bob", "USDT"].changes == {"fall": Decimal(-11), "btc": Decimal(10)}
    assert test.users["ann", "USDT"].worst_change == -52
    assert (test.missing, test.unheld) == ((), ())


def test_scenarios_of_a_list_are_named_by_their_place(pool):
    prices = {"BTC/USDT": 100, "ETH/USDT": 100}
    history = [{"prices": {"BTC/USDT": 90, "ETH/USDT": 95}}, Scenario(shocks={"*": Decimal("0.5")})]
    test = pool.stress_test(history, prices=prices)
    assert test.fleet["USDT"].changes == {"1": Decimal(-45), "2": Decimal(300)}


def test_trades_that_come_and_go_count_at_once(pool):
    trade_id = pool.add_trade(buy(user_id="eve", status="filled", amount="5", price="100")).trade_id
    assert pool.stress_test([FALL]).users["eve", "USDT"].worst_change == -55
    pool.close_trade(trade_id, "110")
    assert ("eve", "USDT") not in pool.stress_test([FALL]).users


def test_a_stress_test_leaves_marks_alone(pool):
    before = pool.get_mark_totals()
    pool.stress_test([FALL])
    assert pool.get_mark_totals() == before


@pytest.mark.parametrize(
    ("scenarios", "more", "words"),
    [
        ("crash", {}, "scenarios: not scenarios"),
        ({"crash": {"BTC/USDT": 5}}, {}, r"scenarios\[crash\]: not a scenario .*'prices'"),
        ({"crash": {}}, {}, r"scenarios\[crash\]: not a scenario"),
        ([{"shocks": [1]}], {}, r"scenarios\[1\].shocks: not numbers by symbol"),
        ([{"shocks": {"*": "much"}}], {}, r"scenarios\[1\].shocks\[\*\]: not a number \(got much\)"),
        ([{"shocks": {"*": -1}}], {}, r"scenarios\[1\].shocks\[\*\]: .*above -1"),
        ([{"prices": {"*": 5, "": 1}}], {}, "symbol in scenarios"),
        (
            [{"prices": {"*": 5}}],
            {},
            r"scenarios\[1\].prices\[\*\]",
        ),
        ([{"prices": {"BTC/USDT": 0}}], {}, r"scenarios\[1\].prices\[BTC/USDT\]"),
        ({5: FALL}, {}, "name of a scenario"),
        ([], {}, "scenarios: .*got 0"),
        ([FALL], {"confidence": 1}, "confidence"),
        ([FALL], {"confidence": "high"}, "confidence"),
        ([FALL], {"users": "ann"}, "users: not a list"),
        ([FALL], {"users": [""]}, "user_id"),
        ([FALL] * 3, {"users": [f"u{n}" for n in range(70_000)]}, "users: .*70000.*200000"),
        ([FALL], {"prices": {"BTC/USDT": -5}}, "price of BTC/USDT"),
    ],
)
def test_a_bad_question_is_refused_in_one_line(pool, scenarios, more, words):
    with pytest.raises(InvalidTrade, match=words) as refused:
        pool.stress_test(scenarios, **more)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["5", "-0.05", "+.5", "7.", "0.000000000000000001", "123456789012345678.5", "1e-3", " 1 ", "00012", "-0"],
)
def test_numbers_of_a_scenario_are_read_as_everywhere(text):
    (scenario,) = stress_question(
        [{"prices": {"BTC/USDT": text, "ETH/USDT": "1"}}], "0.5", ()
    ).scenarios.values()
    assert scenario.prices == {"BTC/USDT": parse_decimal("price", text), "ETH/USDT": 1}


@pytest.mark.parametrize(
    "text", ["", "-", "1.2.3", "1_0", "Infinity", "0.0000000000000000001", "1" * 25, "\uff15"]
)
def test_text_that_is_no_number_is_refused_by_its_symbol(text):
    with pytest.raises(InvalidTrade, match=r"scenarios\[1\].shocks\[BTC/USDT\]"):
        stress_question([{"shocks": {"ETH/USDT": "0.1", "BTC/USDT": text}}], "0.5", ())


def test_the_task_answers_in_plain_values_with_the_users_asked_for(pool, monkeypatch):
    monkeypatch.setattr(app, "_services", pool._services)
    answer = stress_test({"fall": FALL, "btc": BTC_ALONE}, confidence="0.5", users=["bob"])
    sent = json.loads(wire.encode(answer))
    assert sent["fleet"]["USDT"]["expected_shortfall"] == "63.00000000"
    assert sent["fleet"]["USDT"]["changes"] == {"fall": "-63.00000000", "btc": "30.00000000"}
    assert list(sent["users"]) == ["bob"]
    assert sent["users"]["bob"]["USDT"]["worst_change"] == "-11.00000000"


def test_the_answer_of_the_task_is_kept_for_whoever_waits_for_it():
    assert app.conf.task_ignore_result
    assert not stress_test.ignore_result


def test_of_several_devices_each_answers_for_the_whole_pool(pool, monkeypatch):
    settings = pool.settings.model_copy(update={"pnl_devices": 2, "pnl_device": 1})
    marking = wiring._marking(pool._services.store, settings)
    test = marking.stress_test([FALL], prices={"BTC/USDT": 110, "ETH/USDT": 100})
    assert test.fleet["USDT"].worst_change == -63
    assert len(marking._open_book.shards) == 2


@pytest.fixture(scope="module")
def closed_pool(server_binary, tmp_path_factory):
    return stocked(tmp_path_factory.mktemp("stressed") / "pool")


@pytest.fixture
def run(closed_pool, capsys):
    """Runs `tradepool stress`: exit code, what it printed, what it complained about."""

    def run(*words):
        code = main(["stress", *map(str, words), "--embedded", str(closed_pool)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_shows_what_a_shock_costs(run):
    code, out, _ = run(
        "--shock",
        "-0.1",
        "--shock",
        "BTC/USDT=-0.5",
        "--shock",
        "GONE/USDT=1",
        "--user",
        "bob",
        "--user",
        "eve",
    )
    assert code == 0
    assert "3 scenarios, confidence 0.95" in out
    assert "BTC/USDT=-0.5" in out
    assert "-165.00000000" in out
    assert "-55.00000000" in out
    assert "of no open trade: GONE/USDT" in out
    assert "users without a priced open trade: eve" in out


def test_the_command_reads_scenarios_and_base_prices_from_files(run, tmp_path):
    scenarios, prices = tmp_path / "scenarios.json", tmp_path / "prices.json"
    scenarios.write_text('{"crash": {"shocks": {"*": -0.25}, "prices": {"ETH/USDT": "40"}}}')
    prices.write_text('{"BTC/USDT": 100.5, "ETH/USDT": 100}')
    code, out, _ = run(scenarios, "--prices", prices, "--json", "--confidence", "0.99")
    assert code == 0
    fleet = json.loads(out)["fleet"]["USDT"]
    assert Decimal(fleet["base"]) == Decimal("1.5")
    assert Decimal(fleet["changes"]["crash"]) == Decimal("-255.375")


def test_the_command_refuses_in_one_line(run, tmp_path):
    wrong = {
        "got neither": [],
        "got all.json and 1 --shock": ["all.json", "--shock", "-0.1"],
        "none.json": [tmp_path / "none.json"],
        "shocks[*]": ["--shock", "-2"],
        "shocks[BTC/USDT]": ["--shock", "BTC/USDT="],
    }
    for complaint, words in wrong.items():
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert err.startswith("tradepool: ")
        assert complaint in err
        assert err.count("\n") == 1
