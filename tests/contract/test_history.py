"""What a trade was at an earlier time: from the journal's segments, of live and archived trades."""

from __future__ import annotations

import pytest

from tests.archived_trades import DAY_US, applied_at, closed_trade
from tests.loose_trades import buy, entry
from tests.waiting import eventually
from tradepool import TradePool, commanding, errors
from tradepool.clock import now_us
from tradepool.files import history
from tradepool.files.segments import active_header, finished_segments
from tradepool.model.kinds import Status
from tradepool.store.redis_store import RedisStore

START_US = now_us() - 50 * DAY_US


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory):
    """A pool whose journal has some finished segments, and an archive."""
    with TradePool.embedded(
        tmp_path_factory.mktemp("history") / "pool", shard_count=2, segment_bytes=1 << 16
    ) as opened:
        first = closed_trade(opened, trade_id="archived")
        opened.add_trades(buy(user_id=f"user {number}", extra={"x": "y" * 900}) for number in range(150))
        opened.archive_closed_trades()
        assert opened.get_trade(first).status == Status.COMPLETED
        yield opened


@pytest.fixture
def never_scanned(monkeypatch):
    monkeypatch.setattr(history, "_scanned", lambda *_: pytest.fail("the whole journal was read"))


def log_of(pool):
    return pool.settings.data_dir / "trade_pool.log"


def changing_trade(pool, times):
    """A trade that is added at the first of `times` and gets another stop loss at each of the others."""
    trade_id = applied_at(pool, commanding.add_trade(buy(created_at=times[0])), times[0]).trade_id
    for number, at in enumerate(times[1:], 1):
        change = {"stop_loss": str(number)}
        applied_at(pool, commanding.update_trade(trade_id, change, expected_version=None), at)
    return trade_id


def test_between_two_changes_a_trade_is_what_the_first_of_them_made_of_it(pool, never_scanned):
    times = [START_US + 1000 * step for step in range(5)]
    trade_id = changing_trade(pool, times)
    for version, at in enumerate(times, 1):
        for asked in (at, at + 1, at + 999):
            assert pool.get_trade(trade_id, as_of=asked).version == version
    assert pool.get_trade(trade_id, as_of=now_us()) == pool.get_trade(trade_id)


def test_before_its_first_version_a_trade_is_not_known_and_the_error_says_since_when(pool):
    trade_id = changing_trade(pool, [1_700_000_000_000_000])
    with pytest.raises(errors.UnknownTrade, match=r"2023-11-14T22:13:20.*or later"):
        pool.get_trade(trade_id, as_of=1_699_999_999_999_999)
    with pytest.raises(errors.UnknownTrade, match="no such trade"):
        pool.get_trade("nobody", as_of=now_us())


def test_a_change_told_late_does_not_reach_back_before_one_already_made(pool):
    """A version follows the one it was made of: its time is not before that one's."""
    trade_id = changing_trade(pool, [START_US, START_US + 2000])
    late = commanding.update_trade(trade_id, {"strategy": "late"}, expected_version=None)
    applied_at(pool, late, START_US + 1000)
    assert [trade.updated_at - START_US for trade in pool.get_trade_history(trade_id)] == [0, 2000, 2000]
    assert pool.get_trade(trade_id, as_of=START_US + 1500).version == 1
    assert pool.get_trade(trade_id, as_of=START_US + 2000).version == 3


def test_an_archived_trade_has_its_history(pool, never_scanned):
    found = pool.get_trade_history("archived")
    assert [trade.version for trade in found] == [1, 2, 3]
    assert found[-1] == pool.get_trade("archived")
    assert pool.get_trade("archived", as_of=found[0].updated_at) == found[-1]


def test_a_history_reaches_over_segments_and_includes_what_was_just_journaled(pool, never_scanned):
    eventually(lambda: len(finished_segments(log_of(pool))) > 0)
    trade_id = pool.add_trade(buy()).trade_id
    before = active_header(log_of(pool))[0].segment
    number = 0
    while active_header(log_of(pool))[0].segment < before + 2:
        number += 1
        pool.add_trades(buy(user_id=f"other {number} {i}", extra={"x": "y" * 900}) for i in range(60))
    pool.add_fill(trade_id, entry("f1"))
    assert [trade.version for trade in pool.get_trade_history(trade_id)] == [1, 2]


def test_while_the_server_is_away_the_journal_answers(pool, monkeypatch):
    trade_id = changing_trade(pool, [START_US, START_US + 1])
    expected = pool.get_trade_history(trade_id)

    def fail(*_):
        raise errors.StoreUnavailable("away")

    monkeypatch.setattr(RedisStore, "read", fail)
    assert pool.get_trade_history(trade_id) == expected
    with pytest.raises(errors.StoreUnavailable):
        pool.get_trade(trade_id)


def test_of_a_trade_that_never_was_the_journal_is_not_read(pool, never_scanned):
    for ask in (pool.get_trade_history, lambda trade_id: pool.get_trade(trade_id, as_of=now_us())):
        with pytest.raises(errors.UnknownTrade, match="no such trade"):
            ask("nobody")


@pytest.mark.parametrize("generations", [[errors.Fenced("restarted")], ["one", "two"]])
def test_a_trade_that_the_server_may_have_lost_is_looked_for_in_the_journal(pool, monkeypatch, generations):
    trade_id = changing_trade(pool, [START_US, START_US + 1])
    expected, answers = pool.get_trade_history(trade_id), iter(generations)

    def answer(_):
        found = next(answers)
        if isinstance(found, errors.Fenced):
            raise found
        return found

    monkeypatch.setattr(RedisStore, "read", lambda *_: [None])
    monkeypatch.setattr(RedisStore, "generation", answer)
    assert pool.get_trade_history(trade_id) == expected


def test_what_the_archive_cannot_say_the_journal_does(pool, monkeypatch):
    expected = pool.get_trade_history("archived")
    monkeypatch.setattr(
        "tradepool.tiers.Tiers.find", lambda *_: (_ for _ in ()).throw(errors.Corrupt("damaged"))
    )
    assert pool.get_trade_history("archived") == expected
