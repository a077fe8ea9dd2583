"""The book follows the journal: in order, soon, and through crashes and recoveries."""

from __future__ import annotations

import shutil
from decimal import Decimal

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.loose_trades import buy
from tests.open_books import built_from, held, holds_what_is_open, open_book_of, stored
from tests.pool_at_work import USERS, image_of, with_trades
from tests.store_changes import cancelled, change
from tradepool import TradePool
from tradepool.errors import ChecksumMismatch, Fenced, JournalUnavailable, Unavailable
from tradepool.journaling import writer
from tradepool.marking import following
from tradepool.marking.following import Following
from tradepool.marking.open_book import OpenBook
from tradepool.marking.rereading import Rereading
from tradepool.settings import Durability
from tradepool.store.fence import open_fence


@pytest.fixture
def pool(redis_client, settings):
    with with_trades(redis_client, settings) as running:
        yield running


@pytest.fixture
def book(pool):
    opened = open_book_of(pool)
    opened.catch_up()
    assert isinstance(opened._following, Following)
    return opened


# What happens to trades.


def test_every_change_of_a_trade_is_in_the_book_once_it_is_journaled(pool, book):
    assert holds_what_is_open(book)
    entered = pool.add("bob")
    assert not book.catch_up(), "the journal does not have it yet"
    pool.drain()
    assert book.catch_up()
    assert entered.trade_id in book.book
    pool.store.commit(pool.keys.shard_of_user("bob"), [change(entered, cancelled(entered))])
    pool.drain()
    assert book.catch_up()
    assert entered.trade_id not in book.book
    pool.trade_a_while()
    pool.drain()
    assert book.catch_up()
    assert holds_what_is_open(book)


def test_a_row_has_the_version_of_its_trade(pool, book):
    entered = pool.add("ann")
    pool.drain()
    book.catch_up()
    assert book.book.version(entered.trade_id) == entered.version == 2


def test_an_archived_trade_and_a_ledger_change_nothing(pool, book):
    for user_id in USERS:
        pool.archive_closed(user_id)
        pool.keep_tokens(user_id, version=pool._ledger_version(user_id) + 1)
    pool.drain()
    rows = held(book.book)
    assert book.catch_up()
    assert held(book.book) == rows == stored(pool.store)


def test_a_trade_beyond_any_book_is_left_out_and_said(pool, book):
    size = Decimal("9e30")
    entered = pool.add("ann", amount=size, contract_size=size)
    beside = pool.add("ann")
    pool.drain()
    with capture_logs() as messages:
        book.catch_up()
    assert [each["event"] for each in messages] == ["trade_not_in_the_book"]
    assert entered.trade_id in messages[0]["problem"]
    assert beside.trade_id in book.book
    assert entered.trade_id not in book.book


def test_a_trade_that_was_flat_before_the_book_was_built_stays_in_it(pool, monkeypatch):
    monkeypatch.setattr(writer, "_ENTRIES_PER_READ", 1)
    monkeypatch.setattr(writer, "_GROUP_LINES_MAX", 1)
    entered = pool.add("ann")
    pool.drain()
    flat = msgspec.structs.replace(entered, version=3, closed=entered.filled)
    again = msgspec.structs.replace(flat, version=4, filled=entered.filled + 2)
    shard = pool.keys.shard_of_user("ann")
    pool.store.commit(shard, [change(entered, flat)])
    pool.store.commit(shard, [change(flat, again)])
    book = open_book_of(pool)
    for _ in range(3):
        book.catch_up()
        assert book.book.version(entered.trade_id) == 4
        pool.writer.step(block_ms=None)
    assert book.save()


# What a server may lose.


def test_what_a_server_loses_before_it_was_journaled_does_not_stay(pool):
    open_trade = pool.add("ann")
    pool.drain()
    before = image_of(pool.client)
    lost = pool.add("bob")
    pool.store.commit(pool.keys.shard_of_user("ann"), [change(open_trade, cancelled(open_trade))])
    book = open_book_of(pool)
    book.catch_up()
    assert lost.trade_id in book.book
    assert open_trade.trade_id not in book.book
    assert not book.save(), "what is not journaled yet is not to be started from"

    pool.come_back_as(before)
    with pytest.raises(Fenced):
        book.catch_up()
    pool.begin()
    with capture_logs() as messages:
        book.catch_up()
    assert built_from(messages) == ["store"]
    assert lost.trade_id not in book.book
    assert open_trade.trade_id in book.book
    assert holds_what_is_open(book)


def test_what_was_lost_does_not_hide_what_came_in_its_place(pool):
    entered = pool.add("ann")
    pool.drain()
    before = image_of(pool.client)
    shard = pool.keys.shard_of_user("ann")
    lost = msgspec.structs.replace(entered, version=3, open_cost=Decimal(7))
    pool.store.commit(shard, [change(entered, lost)])
    book = open_book_of(pool)
    book.catch_up()

    pool.come_back_as(before)
    pool.begin()
    # Another third version, and positions beyond the lost one's, before anybody looks again.
    pool.store.commit(
        shard, [change(entered, msgspec.structs.replace(entered, version=3, open_cost=Decimal(8)))]
    )
    pool.drain()
    book.catch_up()
    assert holds_what_is_open(book)


def test_a_book_is_settled_once_the_journal_has_what_it_was_read_from(pool):
    pool.add("ann")
    book = open_book_of(pool)
    book.catch_up()
    assert not book.save()
    pool.drain()
    book.catch_up()
    assert book.save()
    # From here on a recovery is no reason to build it anew.
    open_fence(pool.client)
    with capture_logs() as messages:
        book.catch_up()
    assert messages == []


def test_a_recovery_of_an_older_server_does_not_touch_the_book(pool, book):
    before = image_of(pool.client)
    pool.trade_a_while()
    pool.drain()
    pool.come_back_as(before)
    pool.begin()
    with capture_logs() as messages:
        book.catch_up()
    assert built_from(messages) == []
    assert holds_what_is_open(book)


def test_a_group_that_a_failing_disk_takes_back_does_not_stay(pool, book):
    confirmed = pool.log.read_bytes()
    before = image_of(pool.client)
    lost = pool.add("ann")
    pool.drain()
    book.catch_up()
    assert lost.trade_id in book.book

    # Neither fsynced nor published: the next opener finds the log without it, and so does the server.
    pool.log.write_bytes(confirmed)
    pool.come_back_as(before)
    open_fence(pool.client)
    with capture_logs() as messages:
        book.catch_up()
    assert "not there any more" in messages[0]["reason"]
    assert lost.trade_id not in book.book
    assert holds_what_is_open(book)


# Which journal.


def test_without_the_journal_changed_shards_are_read_again(pool, tmp_path):
    elsewhere = pool.settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    book = OpenBook(pool.store, pool.keys.shards, elsewhere)
    assert book.catch_up()
    assert not book.catch_up()
    assert holds_what_is_open(book)
    pool.add("ann")
    assert book.catch_up()
    assert isinstance(book._rereading, Rereading)
    assert holds_what_is_open(book)
    assert not book.save()
    # A server that waits for its recovery may hold half of it; one set back holds older versions again.
    before = image_of(pool.client)
    entered = pool.add("ann")
    book.catch_up()
    pool.drain()
    pool.come_back_as(before)
    with pytest.raises(Fenced):
        book.catch_up()
    pool.begin()
    book.catch_up()
    assert entered.trade_id in book.book
    assert holds_what_is_open(book)


def test_a_shard_that_was_read_while_the_server_was_being_recovered_is_read_again(
    pool, tmp_path, monkeypatch
):
    elsewhere = pool.settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    book = OpenBook(pool.store, pool.keys.shards, elsewhere)
    whole, positions = image_of(pool.client), pool.store.positions

    def with_all_gone_since(shards):
        found = positions(shards)
        pool.lose_everything()
        return found

    monkeypatch.setattr(pool.store, "positions", with_all_gone_since)
    with pytest.raises(Unavailable):
        book.catch_up()
    monkeypatch.undo()
    pool.come_back_as(whole)
    open_fence(pool.client)
    book.catch_up()
    assert holds_what_is_open(book)


def test_a_journal_that_appears_is_followed(pool):
    away = pool.log.with_name("away")
    pool.log.rename(away)
    book = open_book_of(pool)
    book.catch_up()
    assert book._following is None
    away.rename(pool.log)
    book.catch_up()
    assert book._following is not None
    assert holds_what_is_open(book)


def test_a_journal_that_goes_away_is_no_reason_to_stop(pool, book):
    pool.log.rename(pool.log.with_name("away"))
    pool.add("ann")
    with capture_logs() as messages:
        book.catch_up()
    assert [each["event"] for each in messages] == ["book_given_up"]
    assert holds_what_is_open(book)


def test_the_journal_of_another_pool_is_not_followed(pool, redis_client):
    redis_client.hset(pool.keys.meta, "journal", "of another pool")
    book = open_book_of(pool)
    with capture_logs() as messages:
        book.catch_up()
        book.catch_up()
    assert [each["event"] for each in messages] == ["book_without_journal"]
    assert book._following is None
    assert holds_what_is_open(book)


def test_a_copy_that_nobody_writes_any_more_is_not_followed(pool, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pool.settings.data_dir, copy)
    book = OpenBook(pool.store, pool.keys.shards, pool.settings.model_copy(update={"data_dir": copy}))
    monkeypatch.setattr(following, "ASK_EVERY_S", 0)
    book.catch_up()
    assert book._following is not None
    pool.add("ann")
    pool.drain()
    with capture_logs() as messages:
        book.catch_up()
    assert "are journaled" in messages[0]["reason"]
    assert book._following is None
    assert holds_what_is_open(book)


def test_a_damaged_journal_is_an_error_until_it_is_put_back(pool, book):
    before = pool.log.stat().st_size
    pool.add("ann")
    pool.drain()
    pool.add("bob")
    pool.drain()
    whole = pool.log.read_bytes()
    damaged = bytearray(whole)
    damaged[before + 30] ^= 1
    pool.log.write_bytes(damaged)
    for _ in range(3):
        with pytest.raises(ChecksumMismatch, match="damaged"):
            book.catch_up()
    pool.log.write_bytes(whole)
    book.catch_up()
    assert holds_what_is_open(book)


def test_a_book_that_has_to_be_built_again_and_again_is_an_error(book, monkeypatch):
    monkeypatch.setattr(Following, "catch_up", _always_stale)
    with pytest.raises(JournalUnavailable, match="3 times in a row"):
        book.catch_up()


# How soon.


def test_what_was_acknowledged_to_anybody_is_there_at_the_next_look(tmp_path):
    with (
        TradePool.embedded(tmp_path / "pool", shard_count=4) as owner,
        TradePool.connect(owner.settings) as other,
    ):
        books = [OpenBook(pool.store, pool.store.keys.shards, pool.settings) for pool in (owner, other)]
        for pool in (owner, other, owner, other):
            trade_id = pool.add_trade(buy(status="filled")).trade_id
            for book in books:
                book.catch_up()
                assert trade_id in book.book
            pool.close_trade(trade_id, "110")
            for book in books:
                book.catch_up()
                assert trade_id not in book.book


def test_with_redis_durability_a_call_waits_for_the_journal(pool, monkeypatch):
    weak = pool.settings.model_copy(update={"durability": Durability.REDIS})
    book = OpenBook(pool.store, pool.keys.shards, weak)
    book.catch_up()
    entered = pool.add("ann")
    monkeypatch.setattr(following.time, "sleep", lambda _: pool.drain())
    assert book.catch_up()
    assert entered.trade_id in book.book


def test_it_waits_for_a_bounded_moment_only(pool, monkeypatch):
    weak = pool.settings.model_copy(update={"durability": Durability.REDIS})
    book = OpenBook(pool.store, pool.keys.shards, weak)
    book.catch_up()
    entered = pool.add("ann")
    monkeypatch.setattr(following, "JOURNAL_WAIT_S", 0.01)
    assert not book.catch_up()
    assert entered.trade_id not in book.book


def _always_stale(self):
    raise following.StaleBookError("again")
