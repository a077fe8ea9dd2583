"""One value per user, bounded by what all of them count for."""

from __future__ import annotations

import threading

import pytest

from tradepool.store.user_cache import UserCache


@pytest.fixture
def cache():
    return UserCache(size_max=10)


def put(cache, user, value, size):
    with cache.borrow(user) as kept:
        kept.value, kept.size = value, size


def value_of(cache, user):
    with cache.borrow(user) as kept:
        return kept.value


def test_a_value_is_there_for_the_next_who_asks(cache):
    assert value_of(cache, "ann") is None
    put(cache, "ann", "hers", 3)
    put(cache, "bob", "his", 3)
    assert (value_of(cache, "ann"), value_of(cache, "bob")) == ("hers", "his")


def test_the_least_used_user_goes_first(cache):
    for user in ("ann", "bob", "eve"):
        put(cache, user, user, 2)
    assert value_of(cache, "ann") == "ann"
    put(cache, "dan", "dan", 2)
    assert [value_of(cache, user) for user in ("ann", "dan", "eve")] == ["ann", "dan", "eve"]
    assert value_of(cache, "bob") is None


def test_what_is_too_large_is_not_kept(cache):
    put(cache, "ann", "hers", 10)
    assert value_of(cache, "ann") is None
    put(cache, "ann", "hers", 9)
    assert value_of(cache, "ann") == "hers"


def test_a_value_that_grows_pushes_others_out_and_one_that_shrinks_makes_room(cache):
    put(cache, "ann", "hers", 2)
    put(cache, "bob", "his", 2)
    put(cache, "bob", "his", 7)
    assert value_of(cache, "ann") is None
    put(cache, "bob", "his", 0)
    put(cache, "ann", "hers", 7)
    assert (value_of(cache, "bob"), value_of(cache, "ann")) == ("his", "hers")


def test_users_without_a_value_are_forgotten_as_well(cache):
    for number in range(100):
        value_of(cache, f"nobody-{number}")
    assert len(cache._users) == len(cache._counted) == cache._total == 10


def test_an_error_leaves_nothing_that_may_be_half_changed(cache):
    put(cache, "ann", "hers", 1)
    with pytest.raises(ZeroDivisionError), cache.borrow("ann"):
        1 // 0  # noqa: B018
    assert value_of(cache, "ann") is None


def test_one_thread_at_a_time_has_a_users_value(cache):
    put(cache, "ann", 0, 1)

    def count() -> None:
        for _ in range(200):
            with cache.borrow("ann") as kept:
                kept.value += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(cache, "ann") == 800


def test_a_value_pushed_out_while_it_is_borrowed_is_not_counted(cache):
    with cache.borrow("ann") as kept:
        kept.value, kept.size = "hers", 5
        for user in ("bob", "eve", "dan"):
            put(cache, user, user, 4)
    assert cache._users.keys() == {"eve", "dan"}
    assert cache._users.keys() == cache._counted.keys()
    assert cache._total == sum(cache._counted.values()) <= 10
