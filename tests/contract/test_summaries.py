"""A summary is never older than the call, whoever changed what, and reads again only what has changed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from itertools import count

import msgspec
import pytest

from tests.archived_trades import changed, closed_trade
from tests.loose_trades import buy
from tradepool import Settings, TradePool, errors, summaries
from tradepool.archive.columns import stored
from tradepool.archive.reading import Archive
from tradepool.cli import main
from tradepool.model.summary import summarise
from tradepool.store.redis_store import RedisStore

_users = count()


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory):
    with TradePool.embedded(tmp_path_factory.mktemp("summaries") / "pool", shard_count=2) as opened:
        # The first trade that is archived makes the archive, and whoever sees one appear reads it whole.
        closed_trade(opened)
        opened.archive_closed_trades()
        yield opened


@pytest.fixture(scope="module")
def other(pool):
    """What another process on this machine has of the pool: a cache of its own."""
    with TradePool.connect(settings_of(pool)) as opened:
        yield opened


@pytest.fixture(scope="module")
def elsewhere(pool, tmp_path_factory):
    """The same on a machine without the archive."""
    with TradePool.connect(settings_of(pool, data_dir=tmp_path_factory.mktemp("elsewhere"))) as opened:
        yield opened


@pytest.fixture
def user():
    return f"user-{next(_users)}"


@pytest.fixture
def read_whole(monkeypatch):
    """The users of whom everything was read, in order."""
    users, read = [], summaries.Summaries._read

    def noting(self, user_id):
        users.append(user_id)
        return read(self, user_id)

    monkeypatch.setattr(summaries.Summaries, "_read", noting)
    return users


def settings_of(pool, **fields):
    given = {"redis_url": pool.settings.redis_url, "data_dir": pool.settings.data_dir, "shard_count": 2}
    return Settings(**given | fields)


def folded(pool, user, **asked):
    """The summary by its definition: of all trades that can be read."""
    trades = [trade for trade in pool.get_all_trades() if trade.user_id == user]
    return summarise(trades, user_id=user, **asked)


def assert_same(pools, user):
    for asked in ({}, {"source": "all"}, {"source": "paper", "currency": "BTC"}):
        expected = folded(pools[0], user, **asked)
        for pool in pools:
            assert pool.get_user_summary(user, **asked) == expected
            counted = pool.get_user_summary(user, **asked, statistics=False)
            assert bare(counted) == bare(expected)


def bare(summary):
    blocks = {
        name: msgspec.structs.replace(block, statistics=None) for name, block in summary.by_currency.items()
    }
    return msgspec.structs.replace(summary, statistics=None, by_currency=blocks)


def random_step(draw, pools, user, open_ids, old_ids):
    pool = draw.choice(pools)
    match draw.randrange(6):
        case 0 | 1:
            source, symbol = draw.choice(["real", "paper"]), draw.choice(["BTC/USDT", "ETH/BTC"])
            given = {"user_id": user, "source": source, "symbol": symbol, "status": "filled"}
            trades = [buy(**given) for _ in range(draw.randrange(1, 4))]
            open_ids += [receipt.trade_id for receipt in pool.add_trades(trades)]
        case 2 if open_ids:
            pool.close_trade(open_ids.pop(draw.randrange(len(open_ids))), draw.choice(["90", "100", "120"]))
        case 3 if open_ids:
            pool.update_trade_pnl(open_ids[0], draw.choice(["5", "-2"]), status="filled")
        case 4:
            old_ids.append(closed_trade(pool, user, days_ago=draw.randrange(8, 30)))
        case 5:
            pools[0].archive_closed_trades()
        case _:
            pool.update_available_tokens(user, {"USDT": draw.randrange(9)})


@pytest.mark.parametrize("seed", range(2))
def test_whatever_two_processes_do_both_say_what_the_trades_say(pool, other, user, seed):
    draw, open_ids, old_ids = random.Random(seed), [], []
    for _ in range(8):
        for _ in range(draw.randrange(1, 4)):
            random_step(draw, (pool, other), user, open_ids, old_ids)
        assert_same((pool, other), user)


def test_only_what_has_changed_is_read_again(pool, other, user, read_whole):
    ids = [pool.add_trade(buy(user_id=user, status="filled")).trade_id for _ in range(3)]
    assert pool.get_user_summary(user).open == 3
    other.close_trade(ids[1], "110")
    other.update_available_tokens(user, {"USDT": 1})
    closed_trade(other, user)
    assert pool.get_user_summary(user) == folded(pool, user)
    pool.archive_closed_trades()
    assert pool.get_user_summary(user) == folded(pool, user)
    assert read_whole == [user]


def test_one_look_is_enough_where_nothing_has_changed_and_two_where_something_has(
    pool, other, user, monkeypatch
):
    pool.get_user_summary(user)
    looks, look = [], RedisStore.changes_since
    monkeypatch.setattr(RedisStore, "changes_since", lambda *given: looks.append(1) or look(*given))
    pool.get_user_summary(user)
    assert len(looks) == 1
    other.add_trade(buy(user_id=user))
    pool.get_user_summary(user)
    assert len(looks) == 3
    pool.get_user_summary(user)
    assert len(looks) == 4


def test_more_changes_than_are_remembered_are_all_seen(pool, other, user):
    assert pool.get_user_summary(user).trade_count == 0
    other.add_trades(buy(user_id=user) for _ in range(700))
    for _ in range(70):
        other.add_trade(buy(user_id=user))
    assert pool.get_user_summary(user).statistics.pairs["BTC/USDT"].trade_count == 770


def test_a_trade_that_changed_and_was_archived_unseen_is_counted_as_it_was_archived(pool, other, user):
    trade_id = closed_trade(pool, user)
    assert list(pool.get_user_summary(user).statistics.strategies) == ["(none)"]
    changed(other, trade_id)
    other_report = pool.archive_closed_trades()
    assert other_report.archived >= 1
    assert list(pool.get_user_summary(user).statistics.strategies) == ["late"]


def test_an_archived_row_of_a_trade_that_is_live_does_not_count(pool, user, monkeypatch):
    trade_id = pool.add_trade(buy(user_id=user, strategy="old")).trade_id
    left_over = stored(pool.store.read([(pool.store.shard_of_trade(trade_id), trade_id)])[0])
    pool.update_trade(trade_id, strategy="new")
    monkeypatch.setattr(Archive, "stream", lambda *_: iter([left_over]))
    assert list(pool.get_user_summary(user).statistics.strategies) == ["new"]


def test_where_there_is_no_archive_the_statistics_say_what_they_lack(pool, elsewhere, user):
    closed_trade(pool, user)
    pool.add_trade(buy(user_id=user))
    assert elsewhere.get_user_summary(user).archived_left_out == 0
    pool.archive_closed_trades()
    for _ in range(2):
        found = elsewhere.get_user_summary(user)
        assert (found.trade_count, found.archived_left_out, found.pnl) == (2, 1, 10)
        assert found.statistics.pairs["BTC/USDT"].trade_count == 1
    assert elsewhere.get_user_summary(user, statistics=False).archived_left_out == 0


def test_an_archive_that_comes_to_this_machine_is_read(pool, user, tmp_path):
    closed_trade(pool, user)
    pool.archive_closed_trades()
    with TradePool.connect(settings_of(pool, data_dir=tmp_path)) as late:
        assert late.get_user_summary(user).archived_left_out == 1
        (tmp_path / "archive").symlink_to(pool.settings.data_dir / "archive")
        assert late.get_user_summary(user) == folded(pool, user)


@pytest.mark.parametrize("change", ["add", "close", "archive"])
def test_what_changes_while_everything_is_read_is_in_the_answer(pool, other, user, monkeypatch, change):
    old_id = closed_trade(pool, user)
    open_id = pool.add_trade(buy(user_id=user, status="filled")).trade_id
    read, changes = RedisStore.read_all, [change]

    def overtaken(self, shard, ids):
        yield from read(self, shard, ids)
        if changes:
            match changes.pop():
                case "add":
                    other.add_trade(buy(user_id=user))
                case "close":
                    other.close_trade(open_id, "120")
                case "archive":
                    changed(other, old_id)
                    pool.archive_closed_trades()

    monkeypatch.setattr(RedisStore, "read_all", overtaken)
    found = pool.get_user_summary(user)
    assert not changes
    assert found == folded(pool, user)


def test_what_fits_no_cache_is_read_each_time(pool, user, read_whole):
    pool.add_trade(buy(user_id=user))
    with TradePool.connect(settings_of(pool, summary_trades_max=0)) as forgetful:
        for _ in range(2):
            assert forgetful.get_user_summary(user) == folded(pool, user)
    assert read_whole == [user, user]


def test_sources_that_were_mixed_count_in_the_cache(pool, user, read_whole):
    pool.add_trades(buy(user_id=user) for _ in range(40))
    with TradePool.connect(settings_of(pool, summary_trades_max=60)) as narrow:
        for source in ("real", "real", "all", "all"):
            narrow.get_user_summary(user, source=source)
    assert read_whole == [user, user]


def test_a_user_without_trades_has_statistics_of_nothing(pool, user):
    assert pool.get_user_summary(user).statistics.best is None
    pool.add_trade(buy(user_id=user, source="paper"))
    for asked in ({"source": "real"}, {"currency": "BTC"}, {}):
        found = pool.get_user_summary(user, **asked)
        assert found.statistics.durations.average_s is None
        assert found.to_dict()["drawdown"]["by_amount"]["amount"] == "0"
    assert pool.get_user_summary(user, statistics=False).statistics is None


def test_a_user_who_changes_during_every_look_is_still_answered(pool, other, user, monkeypatch):
    read = summaries.Summaries._newer

    def while_he_trades(self, user_id, known):
        other.add_trade(buy(user_id=user))
        return read(self, user_id, known)

    monkeypatch.setattr(summaries.Summaries, "_newer", while_he_trades)
    found = pool.get_user_summary(user)
    monkeypatch.undo()
    assert found.statistics.pairs["BTC/USDT"].trade_count >= summaries._LOOKS_MAX
    assert pool.get_user_summary(user) == folded(pool, user)


def test_a_user_who_changes_faster_than_is_remembered_is_read_twice_at_most(
    pool, user, monkeypatch, read_whole
):
    pool.add_trade(buy(user_id=user))
    monkeypatch.setattr(RedisStore, "changes_since", lambda *_: None)
    for turn in (1, 2):
        found = pool.get_user_summary(user)
        assert (found.trade_count, found.statistics.pairs["BTC/USDT"].trade_count) == (1, 1)
        assert read_whole == [user, user] * turn


def test_figures_of_one_answer_are_of_one_moment_and_after_what_was_acknowledged(
    pool, other, user, monkeypatch
):
    monkeypatch.setattr(summaries, "_LOOKS_MAX", 10_000)
    acknowledged, done = [0], threading.Event()

    def trade() -> None:
        for _ in range(60):
            trade_id = other.add_trade(buy(user_id=user, status="filled")).trade_id
            acknowledged[0] += 1
            other.close_trade(trade_id, "110")
        done.set()

    writer = threading.Thread(target=trade)
    writer.start()
    while not done.is_set():
        before = acknowledged[0]
        found = pool.get_user_summary(user)
        assert found.trade_count >= before
        if found.statistics is not None:
            assert found.statistics.pairs["BTC/USDT"].trade_count == found.trade_count
            assert found.statistics.pairs["BTC/USDT"].pnl == found.pnl
    writer.join()
    assert pool.get_user_summary(user).pnl == 600


@pytest.mark.parametrize(
    "asked",
    [{"source": "live"}, {"source": ["real"]}, {"source": 1}, {"currency": 5}, {"currency": ["USDT"]}],
)
@pytest.mark.parametrize("statistics", [True, False])
def test_what_there_can_be_no_summary_of_is_refused(pool, user, asked, statistics):
    with pytest.raises(errors.InvalidTrade, match=next(iter(asked))):
        pool.get_user_summary(user, **asked, statistics=statistics)


def test_the_command_shows_statistics_unless_only_counters_are_asked_for(pool, user, monkeypatch, capsys):
    closed_trade(pool, user)
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", pool.settings.redis_url)
    monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(pool.settings.data_dir))
    monkeypatch.setenv("TRADEPOOL_SHARD_COUNT", "2")
    told = {}
    for option in ("--json", "--counters"):
        assert main(["summary", user, option]) == 0
        told[option] = capsys.readouterr().out
    assert json.loads(told["--json"])["max_consecutive_wins"] == 1
    assert "win rate" in told["--counters"]
    assert "drawdown" not in told["--counters"]


def test_a_refused_question_costs_no_reading(pool, user, read_whole):
    pool.get_user_summary(user)
    with pytest.raises(errors.InvalidTrade):
        pool.get_user_summary(user, source="live")
    pool.get_user_summary(user)
    assert read_whole == [user]


_WRITER = """
import sys
from tradepool import Settings, TradePool
url, folder, user, number = sys.argv[1:]
with TradePool.connect(Settings(redis_url=url, data_dir=folder, shard_count=2)) as pool:
    for turn in range(150):
        trade = {"user_id": user, "symbol": "BTC/USDT", "side": "buy", "amount": 1, "price": 100}
        trade_id = pool.add_trade(trade | {"status": "filled", "strategy": number}).trade_id
        pool.close_trade(trade_id, 100 + turn % 7 - 3)
        print(turn, flush=True)
"""


@pytest.mark.slow
def test_processes_that_trade_for_one_user_are_all_seen_at_once(pool, other, user):
    arguments = [pool.settings.redis_url, str(pool.settings.data_dir), user]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, *arguments, f"s{number}"], stdout=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    turns = dict.fromkeys(range(len(writers)), -1)
    for _ in range(150):
        for number, writer in enumerate(writers):
            turns[number] = int(writer.stdout.readline())
        for reader in (pool, other):
            strategies = reader.get_user_summary(user).statistics.strategies
            for number, turn in turns.items():
                assert strategies[f"s{number}"].closed > turn
    for writer in writers:
        assert writer.wait() == 0
        writer.stdout.close()
    assert_same((pool, other), user)
