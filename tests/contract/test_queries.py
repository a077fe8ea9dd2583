"""Every list says the same of the same trades, narrowed by whatever a trade has, live or archived."""

from __future__ import annotations

import base64
import itertools
import json
import random

import pytest

from tests.archived_trades import DAY_US, closed_trade, pages
from tests.loose_trades import buy
from tradepool import TradePool, errors, queries, tiers
from tradepool.archive.reading import Archive
from tradepool.cli import main
from tradepool.clock import now_us
from tradepool.narrowing import place_of
from tradepool.store.redis_store import RedisStore

USERS = ("ann", "bob", "cid")
SYMBOLS = ("BTC/USDT", "ETH/USDT")
STRATEGIES = ("rsi", "trend", None)
SOURCES = ("real", "paper")


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory):
    """A pool with archived, closed, cancelled and open trades of all kinds, which these tests only read."""
    with TradePool.embedded(tmp_path_factory.mktemp("queries") / "pool", shard_count=2) as opened:
        draw = random.Random(11)

        def fields():
            drawn = {
                "user_id": draw.choice(USERS),
                "symbol": draw.choice(SYMBOLS),
                "source": draw.choice(SOURCES),
                "strategy": draw.choice(STRATEGIES),
            }
            return {name: value for name, value in drawn.items() if value is not None}

        for number in range(18):
            closed_trade(opened, days_ago=9 + number % 5, **fields())
        opened.archive_closed_trades()
        for number in range(18):
            closed_trade(opened, days_ago=number % 6, **fields())
        # Some at one and the same moment; open ones older than all that is archived.
        moments = (now_us() - 3 * DAY_US, now_us() - 40 * DAY_US)
        statuses = ("pending", "filled", "cancelled")
        made = [
            buy(created_at=draw.choice(moments) + draw.randrange(2), status=draw.choice(statuses), **fields())
            for _ in range(40)
        ]
        opened.add_trades([trade for trade in made if trade["status"] != "cancelled"])
        for trade in (trade for trade in made if trade["status"] == "cancelled"):
            trade_id = opened.add_trade(trade | {"status": "pending"}).trade_id
            opened.update_trade(trade_id, status="cancelled")
        opened.add_trade(buy(user_id="dan", created_at=now_us() - 60 * DAY_US))
        yield opened


@pytest.fixture(scope="module")
def known(pool):
    """All its trades, newest first."""
    return sorted(pool.get_all_trades(), key=place_of, reverse=True)


def narrowings(known):
    """Some combinations of one or two ways to narrow; some values no trade has."""
    times = sorted(trade.created_at for trade in known)
    ways = [
        *({"source": source} for source in SOURCES),
        *({"status": status} for status in ("completed", "filled", "pending", "cancelled", "expired")),
        *({"strategy": strategy} for strategy in ("rsi", "none")),
        *({"symbol": symbol} for symbol in SYMBOLS),
        {"since": times[len(times) // 3]},
        {"until": times[len(times) // 2]},
        {"since": times[5], "until": times[-5]},
        {},
    ]
    combined = [one | other for one, other in itertools.combinations_with_replacement(ways, 2)]
    return random.Random(2).sample(combined, 20)


def wanted_of(known, **narrowing):
    since, until = narrowing.pop("since", 0), narrowing.pop("until", 1 << 62)
    return [
        trade
        for trade in known
        if since <= trade.created_at < until
        and all(getattr(trade, name) == value for name, value in narrowing.items())
    ]


def test_the_pool_has_some_of_everything(pool, known):
    assert len(known) == 77
    assert {trade.status for trade in known} == {"completed", "pending", "filled", "cancelled"}
    assert pool.sql("SELECT count(*) FROM trades WHERE archived").rows == [(18,)]


def test_a_users_list_is_narrowed_by_all_that_a_trade_has(pool, known):
    for narrowing in narrowings(known):
        expected = wanted_of(known, user_id="ann", **narrowing)
        assert pages(pool.get_trades_by_user, "ann", limit=5, **narrowing) == expected
        assert pool.get_recent_trades(4, "ann", **narrowing) == expected[:4]


def test_a_symbols_list_is_narrowed_by_all_that_a_trade_has(pool, known):
    for narrowing in narrowings(known):
        if "symbol" not in narrowing:
            expected = wanted_of(known, symbol="BTC/USDT", **narrowing)
            assert pages(pool.get_trades_by_symbol, "BTC/USDT", limit=7, **narrowing) == expected


def test_streams_are_narrowed_by_all_that_a_trade_has(pool, known, tmp_path):
    for narrowing in narrowings(known):
        expected = wanted_of(known, **narrowing)
        assert sorted(pool.get_all_trades(**narrowing), key=place_of, reverse=True) == expected
        opened = [trade for trade in expected if trade.is_open]
        assert sorted(pool.get_open_trades(**narrowing), key=place_of, reverse=True) == opened
    file = tmp_path / "some.jsonl"
    assert pool.export(file, strategy="rsi", status="completed", symbol="ETH/USDT") == len(
        wanted_of(known, strategy="rsi", status="completed", symbol="ETH/USDT")
    )


@pytest.mark.parametrize("looked_at", [10_000, 10])
def test_the_newest_of_all_are_narrowed_however_far_back_they_are(pool, known, monkeypatch, looked_at):
    monkeypatch.setattr(queries, "LIMIT_MAX", looked_at)
    for narrowing in narrowings(known):
        assert pool.get_recent_trades(6, **narrowing) == wanted_of(known, **narrowing)[:6]


def test_the_newest_of_all_are_known_beyond_the_list_of_recent_ones(pool, known):
    short = pool.settings.model_copy(update={"recent_max": 3})
    with TradePool.connect(short) as other:
        assert other.get_recent_trades(50) == known[:50]
        assert other.get_recent_trades(2) == known[:2]


def test_the_newest_of_all_are_archived_ones_too_also_while_they_move(server_binary, tmp_path, monkeypatch):
    with TradePool.embedded(tmp_path / "pool", shard_count=2) as pool:
        for days_ago in (9, 10, 30):
            closed_trade(pool, days_ago=days_ago)
        pool.add_trade(buy(user_id="bob", created_at=now_us() - 20 * DAY_US))
        before = pool.get_recent_trades()
        read_live = tiers.Tiers._live_page

        def read_before_they_move(*asked):
            found = read_live(*asked)
            assert pool.archive_closed_trades().archived == 3
            return found

        monkeypatch.setattr(tiers.Tiers, "_live_page", read_before_they_move)
        assert pool.get_recent_trades() == before
        monkeypatch.undo()
        assert pool.get_recent_trades() == before
        assert [pool.get_recent_trades(limit) for limit in (1, 2, 3)] == [before[:n] for n in (1, 2, 3)]


def test_where_there_is_no_archive_live_trades_take_the_place_of_archived_ones(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=1, recent_max=3) as pool:
        pool.add_trades(buy(created_at=now_us() - days * DAY_US) for days in range(40, 44))
        for days_ago in (9, 10, 11):
            closed_trade(pool, days_ago=days_ago)
        expected = sorted(pool.get_open_trades(), key=place_of, reverse=True)
        pool.archive_closed_trades()
        with TradePool.connect(pool.settings.model_copy(update={"data_dir": tmp_path})) as elsewhere:
            assert elsewhere.get_recent_trades(2) == expected[:2]
            assert elsewhere.get_recent_trades() == expected
            assert elsewhere.get_recent_trades(since=expected[1].created_at) == expected[:2]


@pytest.mark.parametrize("few", [0, 1, 100])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_few_open_trades_behind_many_closed_ones_are_found_by_their_own_index(
    pool, known, monkeypatch, limit, few
):
    monkeypatch.setattr(tiers, "_CHUNK", 4)
    monkeypatch.setattr(tiers, "_WALKED_PER_WANTED", 1)
    monkeypatch.setattr(tiers, "_FEW_PER_WANTED", few)
    walked = []
    user_page = RedisStore.user_page

    def counted(store, user_id, window):
        found = user_page(store, user_id, window)
        walked.extend(found)
        return found

    monkeypatch.setattr(RedisStore, "user_page", counted)
    for user_id, status in itertools.product(USERS, ("pending", "filled")):
        expected = wanted_of(known, user_id=user_id, status=status)
        assert pages(pool.get_trades_by_user, user_id, status=status, limit=limit) == expected
    del walked[:]
    pool.get_trades_by_user("ann", status="pending", until=now_us() - 39 * DAY_US, limit=1)
    assert len(walked) <= (0 if few == 100 else 8)


def test_a_question_about_open_trades_never_opens_the_archive(pool, known, monkeypatch):
    for name in ("page", "stream"):
        monkeypatch.setattr(Archive, name, lambda *_: pytest.fail("the archive was read"))
    for status in ("pending", "filled"):
        assert pages(pool.get_trades_by_user, "ann", status=status) == wanted_of(
            known, user_id="ann", status=status
        )
        assert len(list(pool.get_all_trades(status=status))) == len(wanted_of(known, status=status))


def test_for_a_user_without_archived_trades_the_archive_is_not_opened(pool, known, monkeypatch):
    monkeypatch.setattr(Archive, "page", lambda *_: pytest.fail("the archive was read"))
    assert pool.get_trades_by_user("dan").trades == wanted_of(known, user_id="dan")


@pytest.mark.parametrize(
    ("narrowing", "field"),
    [
        ({"strategy": ""}, "strategy"),
        ({"strategy": 5}, "strategy"),
        ({"symbol": "\ud800"}, "symbol"),
        ({"status": "done"}, "status"),
        ({"source": "demo"}, "source"),
        ({"since": "yesterday"}, "since"),
        ({"until": []}, "until"),
    ],
)
def test_what_cannot_narrow_anything_is_named_by_every_list(pool, narrowing, field, tmp_path):
    for ask in (
        lambda: pool.get_all_trades(**narrowing),
        lambda: pool.get_open_trades(**narrowing),
        lambda: pool.get_recent_trades(**narrowing),
        lambda: pool.get_trades_by_user("ann", **narrowing),
        lambda: pool.export(tmp_path / "x.csv", **narrowing),
    ):
        with pytest.raises(errors.InvalidTrade) as refused:
            ask()
        assert refused.value.field == field


@pytest.mark.parametrize("at", [-1, 253_402_300_800_000_000, 10**30])
def test_a_cursor_stands_at_a_time_that_a_trade_can_have(pool, at):
    cursor = base64.urlsafe_b64encode(f'[{at},"x"]'.encode()).decode()
    for read, name in ((pool.get_trades_by_user, "ann"), (pool.get_trades_by_symbol, "BTC/USDT")):
        with pytest.raises(errors.InvalidTrade, match="cursor"):
            read(name, cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 10_001, True, "5", None])
def test_a_page_has_a_size(pool, limit):
    with pytest.raises(errors.InvalidTrade, match="limit"):
        pool.get_trades_by_user("ann", limit=limit)


@pytest.mark.parametrize(
    ("options", "narrowing"),
    [
        (["--source", "paper", "--strategy", "rsi"], {"source": "paper", "strategy": "rsi"}),
        (["--user", "bob", "--symbol", "BTC/USDT"], {"user_id": "bob", "symbol": "BTC/USDT"}),
        (["--open", "--strategy", "trend"], {"strategy": "trend"}),
    ],
)
def test_the_command_lists_what_is_narrowed(pool, known, monkeypatch, capsys, options, narrowing):
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", pool.settings.redis_url)
    monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(pool.settings.data_dir))
    monkeypatch.setenv("TRADEPOOL_SHARD_COUNT", "2")
    assert main(["trades", "--limit", "100", "--json", *options]) == 0
    expected = wanted_of(known, **narrowing)
    if "--open" in options:
        expected = [trade for trade in expected if trade.is_open]
    listed = [trade["trade_id"] for trade in json.loads(capsys.readouterr().out)]
    assert listed == [trade.trade_id for trade in expected]
