"""The pool as a script uses it: one process, a real server, real files."""

from __future__ import annotations

import subprocess
import sys
import threading
from decimal import Decimal

import pytest

from tests.loose_trades import buy, entry
from tradepool import Receipt, TradePool, errors
from tradepool.model.commands import AddFill, AddTrade, UpdateTrade
from tradepool.model.ids import slot_of_id, slot_of_user


@pytest.fixture
def pool(tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=4) as opened:
        yield opened


def test_a_spot_trade_goes_from_order_to_profit(pool):
    added = pool.add_trade(buy(amount="2", price="100"))
    pool.add_fill(added.trade_id, entry("f1", amount="1", price="100", fee="0.1"))
    pool.add_fill(added.trade_id, entry("f2", amount="1", price="90", fee="0.09"))
    closed = pool.close_trade(added.trade_id, "110", fee="0.22")

    trade = pool.get_trade(added.trade_id)
    assert (trade.status, trade.outcome, trade.version) == ("completed", "win", closed.version)
    assert trade.pnl == Decimal("29.59")
    assert trade.average_entry == Decimal(95)
    assert closed.durable
    assert [t.status for t in pool.get_trade_history(added.trade_id)] == [
        "pending",
        "partially_filled",
        "filled",
        "completed",
    ]


def test_a_minted_id_carries_its_users_slot(pool):
    trade_id = pool.add_trade(buy(user_id="ann")).trade_id

    assert slot_of_id(trade_id) == slot_of_user("ann")


def test_a_trade_given_twice_is_a_duplicate_and_changes_nothing(pool):
    first = pool.add_trade(buy(trade_id="trade:1"))
    again = pool.add_trade(buy(trade_id="trade:1"))

    assert (first.outcome, again.outcome) == ("applied", "duplicate")
    assert again.version == 1
    assert len(list(pool.get_all_trades())) == 1


def test_the_same_id_with_another_payload_is_a_conflict(pool):
    pool.add_trade(buy(trade_id="trade:1"))

    with pytest.raises(errors.IdempotencyConflict, match="trade_id"):
        pool.add_trade(buy(trade_id="trade:1", amount="7"))


# The slot of u22302 is 0.
@pytest.mark.parametrize("user_id", ["ann", "u22302"])
def test_an_id_belongs_to_one_user(pool, user_id):
    pool.add_trade(buy(user_id=user_id, trade_id="trade:1"))

    with pytest.raises(errors.IdempotencyConflict, match="another user"):
        pool.add_trade(buy(user_id="bob", trade_id="trade:1"))
    assert [t.user_id for t in pool.get_all_trades()] == [user_id]


def test_a_minted_id_of_another_user_is_refused(pool):
    foreign = pool.add_trade(buy(user_id="ann")).trade_id

    with pytest.raises(errors.InvalidTrade, match="another user's slot"):
        pool.add_trade(buy(user_id="bob", trade_id=foreign))


def test_an_idempotency_key_names_one_trade(pool):
    first = pool.add_trade(buy(idempotency_key="k"))
    again = pool.add_trade(buy(idempotency_key="k"))

    assert (again.outcome, again.trade_id) == ("duplicate", first.trade_id)
    with pytest.raises(errors.IdempotencyConflict):
        pool.add_trade(buy(idempotency_key="k", amount="9"))
    assert pool.add_trade(buy(user_id="bob", idempotency_key="k")).outcome == "applied"


def test_two_adds_of_one_key_in_one_batch_are_one_trade(pool):
    receipts = pool.add_trades([buy(idempotency_key="k"), buy(idempotency_key="k")])

    assert [r.outcome for r in receipts] == ["applied", "duplicate"]
    assert len({r.trade_id for r in receipts}) == 1


def test_a_fill_of_the_venue_is_booked_on_one_trade_only(pool):
    one, other = (pool.add_trade(buy()).trade_id for _ in range(2))
    pool.add_fill(one, entry("f1"))

    assert pool.add_fill(one, entry("f1")).outcome == "duplicate"
    with pytest.raises(errors.IdempotencyConflict, match=f"fill_id.*{one}"):
        pool.add_fill(other, entry("f1"))
    assert pool.get_trade(other).filled == 0


def test_a_batch_sees_its_own_changes_in_order(pool):
    add = AddTrade(command_id="c1", as_of=1_700_000_000_000_000, trade=buy(trade_id="t-1"))
    fill = AddFill(command_id="c2", as_of=1_700_000_000_000_001, trade_id="t-1", fill=entry("f1"))

    results = pool.apply([add, fill, add])

    assert [r.outcome for r in results] == ["applied", "applied", "duplicate"]
    assert pool.get_trade("t-1").status == "filled"


def test_a_refused_command_leaves_the_rest_of_its_batch_applied(pool):
    add = AddTrade(command_id="c1", as_of=1, trade=buy(trade_id="t-1"))
    bad = AddTrade(command_id="c2", as_of=1, trade=buy(amount="-1"))
    unknown = UpdateTrade(command_id="c3", as_of=1, trade_id="nobody's", changes={"strategy": "s"})

    results = pool.apply([add, bad, unknown])

    assert results[0].outcome == "applied"
    assert (results[1].field, type(results[2])) == ("amount", errors.UnknownTrade)
    assert len(list(pool.get_all_trades())) == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("no dict", "trade"),
        ({"symbol": "BTC/USDT"}, "user_id"),
        (buy(user_id=""), "user_id"),
        (buy(user_id="a\x1fb"), "user_id"),
        (buy(user_id="\ud800"), "user_id"),
        (buy(amount=float("nan")), "amount"),
        (buy(amount="-1"), "amount"),
        (buy(trade_id="another system's", amount="-1"), "amount"),
        (buy(status="dancing"), "status"),
        (buy(symbol="BTCUSDT"), "symbol"),
        (buy(signals={"s": "x" * 17_000}), "signals"),
        (buy(trade_id="x" * 65), "trade_id"),
        (buy(side="sell", market="spot"), "side"),
    ],
)
def test_bad_input_names_the_field_and_writes_nothing(pool, given, field):
    with pytest.raises(errors.Rejected) as refusal:
        pool.add_trade(given)

    assert refusal.value.field == field
    assert "\n" not in str(refusal.value)
    assert list(pool.redis.scan_iter("tp:{??}:*")) == []
    assert list(pool.get_all_trades()) == []


def test_add_trades_applies_the_good_and_names_the_bad(pool):
    with pytest.raises(errors.BatchRejected) as refusal:
        pool.add_trades([buy(), buy(amount="0"), "junk", buy()])

    assert [place for place, _ in refusal.value.rejections] == [1, 2]
    assert len(refusal.value.receipts) == len(list(pool.get_all_trades())) == 2


def test_unknown_trades_are_named(pool):
    for call in (
        lambda: pool.get_trade("nobody's"),
        lambda: pool.get_trade_history("nobody's"),
        lambda: pool.add_fill("nobody's", entry("f1")),
        lambda: pool.close_trade("nobody's", 1),
    ):
        with pytest.raises(errors.UnknownTrade, match="nobody's"):
            call()


def test_a_page_goes_on_where_the_last_one_ended(pool):
    pool.add_trades(buy(timestamp=1_700_000_000 + n, strategy=str(n)) for n in range(5))
    pool.add_trade(buy(user_id="bob"))

    first = pool.get_trades_by_user("ann", limit=2)
    pool.add_trade(buy(timestamp=1_700_000_100))
    second = pool.get_trades_by_user("ann", limit=2, cursor=first.cursor)
    third = pool.get_trades_by_user("ann", limit=2, cursor=second.cursor)

    assert [t.strategy for p in (first, second, third) for t in p.trades] == ["4", "3", "2", "1", "0"]
    assert third.cursor is None


def test_lists_narrow_by_status_source_and_time(pool):
    pool.add_trade(buy(timestamp=1_700_000_000, status="filled"))
    pool.add_trade(buy(timestamp=1_700_000_001, source="paper"))
    pool.add_trade(buy(timestamp=1_700_000_002, symbol="ETH/USDT"))

    assert [t.status for t in pool.get_trades_by_user("ann", status="filled").trades] == ["filled"]
    assert [t.source for t in pool.get_trades_by_user("ann", "paper").trades] == ["paper"]
    assert len(pool.get_trades_by_user("ann", since=1_700_000_001, until=1_700_000_002).trades) == 1
    assert [t.symbol for t in pool.get_trades_by_symbol("ETH/USDT").trades] == ["ETH/USDT"]
    assert len(pool.get_recent_trades(2)) == 2
    assert len(list(pool.get_open_trades("ann"))) == len(list(pool.get_open_trades())) == 3


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"status": "x"}, "status"),
        ({"cursor": "?"}, "cursor"),
        ({"since": "x"}, "since"),
    ],
)
def test_a_wrong_query_names_its_argument(pool, arguments, field):
    with pytest.raises(errors.InvalidTrade) as refusal:
        pool.get_trades_by_user("ann", **arguments)
    assert refusal.value.field == field


def test_a_summary_is_new_after_every_change(pool):
    trade_id = pool.add_trade(buy(status="filled", amount="1", price="100")).trade_id
    assert pool.get_user_summary("ann").open == 1

    pool.close_trade(trade_id, "120")

    summary = pool.get_user_summary("ann")
    assert (summary.open, summary.wins, summary.pnl) == (0, 1, Decimal(20))


def test_balances_are_free_amounts_above_zero(pool):
    pool.update_available_tokens("ann", {"USDT": "12.5", "BTC": 0}, as_of="2026-01-02T00:00:00Z")
    late = pool.update_available_tokens("ann", {"USDT": "99"}, as_of="2026-01-01T00:00:00Z")

    assert late.outcome == "stale"
    assert pool.get_available_tokens("ann") == {"USDT": Decimal("12.5")}
    assert pool.get_available_tokens("stranger") == {}
    with pytest.raises(errors.InvalidTokens, match="USDT"):
        pool.update_available_tokens("ann", {"USDT": "-1"})


def test_marks_value_the_open_part_and_name_missing_prices(pool):
    trade_id = pool.add_trade(buy(status="filled", amount="2", price="100")).trade_id
    pool.add_trade(buy(status="filled", symbol="ETH/BTC", amount="1", price="0.05"))
    pool.set_prices({"BTC/USDT": "110"})

    marks = pool.mark_to_market(at="2026-01-01T00:00:00Z", rows=True)

    assert marks.totals == {"USDT": Decimal(20)}
    assert marks.missing == ("ETH/BTC",)
    assert marks.rows == {trade_id: pool.get_trade(trade_id).unrealised_net("110")}
    assert pool.get_marks("ann")["by_currency"]["USDT"]["unrealised"] == "20.00000000"
    pool.close_trade(trade_id, "110")
    assert pool.mark_to_market().totals == {}
    with pytest.raises(errors.InvalidTrade, match="BTC/USDT"):
        pool.mark_to_market({"BTC/USDT": 0})


def test_everything_is_there_after_a_restart(tmp_path):
    with TradePool.embedded(tmp_path) as pool:
        trade_id = pool.add_trade(buy()).trade_id
        pool.update_available_tokens("ann", {"USDT": 5})
    with TradePool.embedded(tmp_path) as pool:
        assert pool.get_trade(trade_id).user_id == "ann"
        assert pool.get_available_tokens("ann") == {"USDT": Decimal(5)}
        assert pool.check_all_trades(deep=True).ok


def test_a_killed_process_loses_nothing_it_was_told_is_durable(tmp_path):
    code = (
        "import sys; from tradepool import TradePool\n"
        f"pool = TradePool.embedded({str(tmp_path)!r})\n"
        "while True:\n"
        f"    print(pool.add_trade({buy()!r}).trade_id, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        told = [process.stdout.readline().strip() for _ in range(50)]
        process.kill()
        told += process.stdout.read().split("\n")[:-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

    with TradePool.embedded(tmp_path) as pool:
        assert set(told) <= {t.trade_id for t in pool.get_all_trades()}
        assert pool.check_all_trades(deep=True).ok


def test_a_second_opener_is_told_who_it_is_not(pool, tmp_path):
    with pytest.raises(errors.PoolLocked, match=str(tmp_path)):
        TradePool.embedded(tmp_path / "pool")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ResourceUnavailable, match="file"):
        TradePool.embedded(tmp_path / "file")


def test_threads_may_share_a_pool(pool):
    trade_id = pool.add_trade(buy(amount=40, price=1)).trade_id
    fills = [
        threading.Thread(target=pool.add_fill, args=(trade_id, entry(f"f{n}", amount=1))) for n in range(40)
    ]
    for thread in fills:
        thread.start()
    for thread in fills:
        thread.join()

    trade = pool.get_trade(trade_id)
    assert (trade.filled, trade.status, trade.version) == (Decimal(40), "filled", 41)
    assert pool.check_trades("ann").ok


def test_places_count_through_all_batches(tmp_path):
    with TradePool.embedded(tmp_path, batch_max=2) as pool:
        given = [buy(strategy=str(n)) for n in range(13)]
        given[4], given[11] = "junk", buy(amount=0)

        with pytest.raises(errors.BatchRejected) as refusal:
            pool.add_trades(iter(given))

        assert [place for place, _ in refusal.value.rejections] == [4, 11]
        receipts = refusal.value.receipts
        assert [pool.get_trade(r.trade_id).strategy for r in receipts] == [
            str(n) for n in range(13) if n not in (4, 11)
        ]
        assert all(receipt.durable for receipt in receipts)


def users_of_two_shards(pool):
    ann = pool.store.keys.shard_of_user("ann")
    return "ann", next(f"user-{n}" for n in range(99) if pool.store.keys.shard_of_user(f"user-{n}") != ann)


def add_of(user_id, trade_id):
    return AddTrade(
        command_id=f"{user_id} {trade_id}", as_of=1, trade=buy(user_id=user_id, trade_id=trade_id)
    )


def test_one_id_of_two_users_in_one_batch_belongs_to_the_first(pool):
    ann, bob = users_of_two_shards(pool)

    first, second = pool.apply([add_of(ann, "7"), add_of(bob, "7")])

    assert (first.outcome, type(second)) == ("applied", errors.IdempotencyConflict)
    assert [trade.user_id for trade in pool.get_all_trades()] == [ann]
    assert pool.check_all_trades(deep=True).ok


def test_one_id_of_two_users_at_once_belongs_to_one_of_them(pool, monkeypatch):
    ann, bob = users_of_two_shards(pool)
    commit, results = pool.store.commit_all, []

    def bob_comes_between(changes):
        monkeypatch.setattr(pool.store, "commit_all", commit)
        results.extend(pool.apply([add_of(bob, "7")]))
        return commit(changes)

    monkeypatch.setattr(pool.store, "commit_all", bob_comes_between)
    results.extend(pool.apply([add_of(ann, "7")]))

    assert [type(result) for result in results] == [errors.IdempotencyConflict, Receipt]
    pool.add_fill("7", entry("f1"))
    assert [(trade.user_id, trade.filled) for trade in pool.get_all_trades()] == [(ann, Decimal(1))]
    assert pool.check_all_trades(deep=True).ok


def test_any_task_id_is_fit_for_the_journal(pool):
    for number, task_id in enumerate(["a\x1eb", "x" * 5000, "\ud800"]):
        assert pool.apply([add_of("ann", f"t-{number}")], task_id=task_id)[0].durable
    assert pool.check_all_trades(deep=True).ok


def test_more_commands_than_a_batch_holds_are_applied_in_order(pool):
    results = pool.apply([add_of("ann", f"t-{n}") for n in range(1001)])

    assert [result.trade_id for result in results] == [f"t-{n}" for n in range(1001)]


def test_a_repeat_of_more_changes_than_a_record_remembers_undoes_nothing(pool):
    add = add_of("ann", "t-1")
    updates = [
        UpdateTrade(command_id=f"u{n}", as_of=2 + n, trade_id="t-1", changes={"strategy": f"s{n}"})
        for n in range(40)
    ]
    pool.apply([add, *updates])

    repeated = pool.apply(updates[:8])

    assert {result.outcome for result in repeated} == {"stale"}
    assert pool.get_trade("t-1").strategy == "s39"


def test_writers_are_told_at_once_why_the_journal_has_stopped(pool):
    pool.add_trade(buy())
    with (pool.settings.data_dir / "trade_pool.log").open("ab") as log:
        log.write(b"somebody else was here\n")

    for _ in range(2):
        with pytest.raises(errors.JournalUnavailable, match=r"has stopped: .*trade_pool\.log"):
            pool.add_trade(buy())
