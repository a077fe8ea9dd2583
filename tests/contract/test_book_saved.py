"""A book is saved and the next process starts from it, unless it cannot be trusted: the log says why."""

from __future__ import annotations

import errno
import os
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from tests.open_books import built_from, held, holds_what_is_open, open_book_of, stored
from tests.pool_at_work import USERS, image_of, with_trades
from tradepool.errors import ResourceUnavailable
from tradepool.files.durable import FileLock
from tradepool.files.segments import finished_segments
from tradepool.marking.open_book import OpenBook
from tradepool.store.fence import open_fence
from tradepool.store.redis_store import RedisStore


@pytest.fixture
def pool(redis_client, settings):
    with with_trades(redis_client, settings) as running:
        yield running


@pytest.fixture
def book(pool):
    opened = open_book_of(pool)
    opened.catch_up()
    return opened


def forget_nothing(pool, **given):
    """A book that was built, saved, and is now opened by the next process."""
    before = open_book_of(pool)
    before.catch_up()
    assert before.save()
    return open_book_of(pool, **given)


def refuse_the_store(monkeypatch):
    def refused(*_):
        raise AssertionError("the store's open trades were read")

    monkeypatch.setattr(RedisStore, "open_ids", refused)


def test_the_saved_book_and_the_journal_since_are_enough_to_start(pool, monkeypatch):
    book = forget_nothing(pool)
    pool.trade_a_while()
    pool.drain()
    expected = stored(pool.store)
    refuse_the_store(monkeypatch)
    with capture_logs() as messages:
        book.catch_up()
    assert built_from(messages) == ["file"]
    assert held(book.book) == expected


def test_a_saved_book_is_found_again_after_many_segments(pool):
    book = forget_nothing(pool)
    finish_segments(pool)
    with capture_logs() as messages:
        book.catch_up()
    assert built_from(messages) == ["file"]
    assert holds_what_is_open(book)


def finish_segments(pool):
    """Have the journal go on in further segments."""
    while len(finished_segments(pool.log)) < 3:
        pool.add("ann")
        pool.journal._rotate_at = 0
        pool.drain()


def truncate(pool, path):
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(pool, path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(pool, path):
    path.write_bytes(b"")


def move_the_next_segment_away(pool, path):
    finish_segments(pool)
    # Else a compressed copy may appear when the file is gone.
    pool.journal._sealer.close()
    for file in finished_segments(pool.log)[2]:
        file.unlink()


def have_another_format(pool, path):
    path.write_bytes(path.read_bytes().replace(b'"rows_format":1', b'"rows_format":0'))


@pytest.mark.parametrize(
    "spoil", [truncate, flip_a_bit, empty, move_the_next_segment_away, have_another_format]
)
def test_a_saved_book_that_cannot_be_started_from_is_left_with_a_reason(pool, spoil):
    book = forget_nothing(pool)
    spoil(pool, book._saved.path)
    with capture_logs() as messages:
        book.catch_up()
    (built,) = [each for each in messages if each["event"] == "book_built"]
    assert (built["read_from"], bool(built["reason"])) == ("store", True)
    assert holds_what_is_open(book)
    assert book.save()
    again = open_book_of(pool)
    with capture_logs() as messages:
        again.catch_up()
    assert built_from(messages) == ["file"]


@pytest.mark.parametrize("part", [{"part": 0, "parts": 2}, {}])
def test_a_book_of_some_shards_has_those_and_is_not_started_from_one_of_others(pool, part):
    forget_nothing(pool)
    shards = [2, 3]
    book = OpenBook(pool.store, shards, pool.settings, **part)
    with capture_logs() as messages:
        book.catch_up()
    assert built_from(messages) == ["store"]
    for user_id in USERS:
        pool.add(user_id)
    pool.drain()
    book.catch_up()
    expected = stored(pool.store)
    assert {pool.keys.shard_of_user(row.user_id) for row in expected.values()} > set(shards)
    assert held(book.book) == {
        trade_id: row for trade_id, row in expected.items() if pool.keys.shard_of_user(row.user_id) in shards
    }


def test_of_two_processes_that_save_one_does_and_the_other_goes_on(pool, book):
    assert book.save()
    before = book._saved.path.read_bytes()
    with closing(FileLock(book._saved.path.with_suffix(".lock"))):
        assert not book.save()
    assert book._saved.path.read_bytes() == before
    pool.add("ann")
    pool.drain()
    other = open_book_of(pool)
    other.catch_up()
    assert other.save()
    assert book.save()
    third = open_book_of(pool)
    third.catch_up()
    assert holds_what_is_open(third)


def test_a_full_disk_leaves_the_saved_book_as_it_was(pool, book, monkeypatch):
    assert book.save()
    before = book._saved.path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tradepool.marking.saved_book.dump", full)
    with pytest.raises(ResourceUnavailable, match="No space left"):
        book.save()
    assert [path.read_bytes() for path in book._saved.path.parent.glob("*.columns*")] == [before]


def test_the_lock_is_held_only_while_the_book_is_read(pool, book, monkeypatch):
    held_at = []

    class Lock:
        is_held = False

        def __enter__(self):
            self.is_held = True

        def __exit__(self, *_):
            self.is_held = False

    lock = Lock()
    monkeypatch.setattr(
        "tradepool.marking.saved_book.dump", lambda *_: [held_at.append(lock.is_held) or b"x"]
    )
    monkeypatch.setattr("tradepool.files.durable.put_in_place", lambda *_: held_at.append(lock.is_held))
    assert book.save(lock)
    assert held_at == [True, False]


def test_a_saved_book_of_a_group_that_was_taken_back_is_left(pool):
    confirmed = pool.log.read_bytes()
    before = image_of(pool.client)
    lost = pool.add("ann")
    pool.drain()
    book = forget_nothing(pool)
    pool.log.write_bytes(confirmed)
    pool.come_back_as(before)
    open_fence(pool.client)
    with capture_logs() as messages:
        book.catch_up()
    assert built_from(messages) == ["store"]
    assert lost.trade_id not in book.book
