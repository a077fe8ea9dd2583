"""The check of the book against the store: what differs is named, what merely changes is not."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from decimal import Decimal

import msgspec
import pytest

from tests.loose_trades import buy
from tests.open_books import open_book_of
from tests.pool_at_work import image_of, with_trades
from tests.store_changes import cancelled, change
from tradepool import TradePool
from tradepool.errors import Corrupt, StoreUnavailable
from tradepool.marking import book_check
from tradepool.marking.book_check import BookCheck, check_book
from tradepool.marking.open_book import OpenBook
from tradepool.marking.positions import position_of
from tradepool.model.codec import pack_trade, unpack_trade
from tradepool.store.fence import open_fence

AT = 1_750_000_000_000_000


@pytest.fixture
def pool(redis_client, settings):
    with with_trades(redis_client, settings) as running:
        yield running


@pytest.fixture
def book(pool):
    opened = open_book_of(pool)
    opened.catch_up()
    return opened


def checked(book) -> BookCheck:
    return check_book(book, nullcontext(), AT)


def differences(book) -> list[tuple[str, str]]:
    return [(each.trade_id, each.what) for each in checked(book).differences]


def tamper(pool, trade_id, user_id, **fields):
    """Change a stored record behind everybody's back; its version stays."""
    shard = pool.keys.shard_of_user(user_id)
    key = pool.keys.records(shard, pool.keys.bucket_of(trade_id))
    trade = unpack_trade(pool.client.hget(key, trade_id))
    pool.client.hset(key, trade_id, pack_trade(msgspec.structs.replace(trade, **fields)))


def test_a_book_that_is_the_stores_has_no_differences(pool, book):
    check = checked(book)
    assert check.ok
    assert check.differences == check.undecided == ()
    assert (check.at, check.shards, check.rows) == (AT, 4, len(book.book))
    assert check.rows > 0


def test_the_report_can_be_read_by_any_process(pool, book):
    check = checked(book)
    (kept,) = pool.store.read_book_check()
    assert msgspec.json.decode(kept) == check.to_dict()
    assert check.to_dict()["part"] == 0


def test_reports_of_another_number_of_parts_go(pool):
    for part, parts in ((0, 1), (1, 2), (0, 2)):
        pool.store.write_book_check(part, parts, b"%d of %d" % (part, parts))
    assert pool.store.read_book_check() == [b"0 of 2", b"1 of 2"]
    pool.store.write_book_check(0, 1, b"all")
    assert pool.store.read_book_check() == [b"all"]


def test_a_record_that_was_changed_in_the_store_is_named_with_what_differs(pool, book):
    entered = pool.add("ann")
    pool.drain()
    tamper(pool, entered.trade_id, "ann", open_cost=Decimal(7), filled=Decimal(2))
    (found,) = checked(book).differences
    assert (found.trade_id, found.shard) == (entered.trade_id, pool.keys.shard_of_user("ann"))
    assert found.what == "quantity, cost"
    assert found.store == "quantity 2, cost 7"
    assert found.book == "quantity 1, cost 100"


def test_a_record_that_went_from_the_store_is_extra_in_the_book(pool, book):
    entered = pool.add("ann")
    pool.drain()
    tamper(pool, entered.trade_id, "ann", closed=entered.filled)
    (found,) = checked(book).differences
    assert (found.trade_id, found.what, found.store) == (entered.trade_id, "extra_in_book", None)


def test_a_row_that_was_changed_in_the_book_is_named(pool, book):
    entered = pool.add("ann")
    pool.drain()
    book.catch_up()
    other = msgspec.structs.replace(entered, open_cost=Decimal(8))
    book.book.upsert([position_of(other)], entered.version + 1)
    assert differences(book) == [(entered.trade_id, "cost")]


def test_a_row_that_the_book_lacks_is_named(pool, book):
    entered = pool.add("ann")
    pool.drain()
    book.catch_up()
    book.book.remove([entered.trade_id])
    assert differences(book) == [(entered.trade_id, "missing_in_book")]


def test_a_trade_that_a_check_finds_closed_must_not_be_in_the_book(pool, book):
    entered = pool.add("ann")
    pool.store.commit(pool.keys.shard_of_user("ann"), [change(entered, cancelled(entered))])
    pool.drain()
    book.catch_up()
    book.book.upsert([position_of(entered)], entered.version + 2)
    assert differences(book) == [(entered.trade_id, "extra_in_book")]


def test_a_long_list_is_cut_and_counted(pool, book, monkeypatch):
    monkeypatch.setattr(book_check, "_NAMED_MAX", 2)
    lost = [pool.add("ann").trade_id for _ in range(5)]
    pool.drain()
    book.catch_up()
    book.book.remove(lost)
    check = checked(book)
    assert (check.different, len(check.differences), check.ok) == (5, 2, False)


def test_what_the_journal_does_not_have_in_time_is_undecided(pool, book, monkeypatch):
    monkeypatch.setattr(book_check, "_CATCH_UP_S", 0.01)
    monkeypatch.setattr(book_check, "_BATCH", 1)
    for user_id in ("ann", "ann", "dora"):
        pool.add(user_id)
    check = checked(book)
    shards = {pool.keys.shard_of_user(user_id) for user_id in ("ann", "dora")}
    assert check.undecided == tuple(f"shard {shard:02x}" for shard in sorted(shards))
    assert check.ok


def test_a_trade_that_changes_during_every_look_is_undecided(pool, book, monkeypatch):
    entered = pool.add("ann")
    shard = pool.keys.shard_of_user("ann")
    reached = OpenBook.has_reached
    state = [entered]

    def change_again(self, positions):
        before = state[0]
        state[0] = msgspec.structs.replace(
            before, version=before.version + 1, open_cost=Decimal(before.version)
        )
        pool.store.commit(shard, [change(before, state[0])])
        pool.drain()
        return reached(self, {})

    monkeypatch.setattr(OpenBook, "has_reached", change_again)
    check = checked(book)
    assert check.undecided == (entered.trade_id,)
    assert check.differences == ()


def test_a_record_that_cannot_be_read_is_an_error(pool, book):
    entered = pool.add("ann")
    pool.drain()
    key = pool.keys.records(pool.keys.shard_of_user("ann"), pool.keys.bucket_of(entered.trade_id))
    pool.client.hset(key, entered.trade_id, b"no record")
    with pytest.raises(Corrupt):
        checked(book)


def test_a_check_across_a_recovery_is_made_again(pool, book, monkeypatch):
    run, runs = book_check._Check.run, []

    def recovered_meanwhile(self):
        run(self)
        runs.append(self)
        if len(runs) == 1:
            open_fence(pool.client)

    monkeypatch.setattr(book_check._Check, "run", recovered_meanwhile)
    assert checked(book).ok
    assert len(runs) == 2
    monkeypatch.setattr(book_check._Check, "run", lambda _: open_fence(pool.client))
    with pytest.raises(StoreUnavailable, match="during each of 3 checks"):
        checked(book)


def test_a_book_without_a_journal_is_checked_too(pool, tmp_path):
    elsewhere = pool.settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    book = OpenBook(pool.store, pool.keys.shards, elsewhere)
    entered = pool.add("ann")
    assert checked(book).ok
    book.book.remove([entered.trade_id])
    assert differences(book) == [(entered.trade_id, "missing_in_book")]


def test_what_a_server_lost_is_no_difference_after_its_recovery(pool, book):
    before = image_of(pool.client)
    pool.add("ann")
    other = open_book_of(pool)
    other.catch_up()
    pool.come_back_as(before)
    pool.begin()
    assert checked(other).ok
    assert checked(book).ok


@pytest.mark.parametrize("seconds", [pytest.param(0.5), pytest.param(20, marks=pytest.mark.slow)])
def test_writers_at_work_cause_no_findings(tmp_path, seconds):
    with TradePool.embedded(tmp_path / "pool", shard_count=4) as pool:
        stop = threading.Event()
        timer = threading.Timer(seconds, stop.set)
        writers = [threading.Thread(target=trade, args=(pool, f"user-{n}", stop)) for n in range(3)]
        for thread in (timer, *writers):
            thread.start()
        book = OpenBook(pool.store, pool.store.keys.shards, pool.settings)
        checks = []
        while not stop.is_set():
            checks.append(check_book(book, threading.Lock(), AT))
        for thread in writers:
            thread.join()
        last = check_book(book, nullcontext(), AT)
    assert [check.differences for check in checks] == [()] * len(checks)
    assert (last.differences, last.undecided) == ((), ())
    assert last.rows == len(book.book) > 0


def trade(pool: TradePool, user_id: str, stop: threading.Event) -> None:
    """Open and close trades, some stay open, until `stop` is set."""
    while not stop.is_set():
        first, second = (
            pool.add_trade(buy(user_id=user_id, status="filled", amount="2")).trade_id for _ in range(2)
        )
        pool.close_trade(first, "110")
        pool.close_trade(second, "110", amount="1")
