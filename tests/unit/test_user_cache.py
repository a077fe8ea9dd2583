"""Values kept per user until his revision changes."""

from __future__ import annotations

import pytest

from tradepool.store.user_cache import UserCache


@pytest.fixture
def revisions():
    return {"ann": "1", "bob": "1"}


@pytest.fixture
def cache(revisions):
    return UserCache(revisions.__getitem__, entries_max=3)


class Counted:
    """Computes a new value each time."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.calls


def test_a_value_is_computed_once_per_revision(cache, revisions):
    compute = Counted()
    assert [cache.get("ann", "summary", compute) for _ in range(3)] == [1, 1, 1]
    revisions["ann"] = "2"
    assert cache.get("ann", "summary", compute) == 2


def test_users_and_questions_are_kept_apart(cache):
    compute = Counted()
    asked = [("ann", "real"), ("ann", "paper"), ("bob", "real")]
    assert [cache.get(user, question, compute) for user, question in asked * 2] == [1, 2, 3, 1, 2, 3]


def test_the_least_used_value_goes_first(cache):
    compute = Counted()
    for question in ("a", "b", "c", "a", "d"):
        cache.get("ann", question, compute)
    assert cache.get("ann", "a", compute) == 1
    assert cache.get("ann", "b", compute) == 5


def test_a_change_while_computing_makes_the_value_old_not_new(cache, revisions):
    def compute():
        revisions["ann"] = "2"
        return "of revision 1"

    cache.get("ann", "summary", compute)
    assert cache.get("ann", "summary", lambda: "of revision 2") == "of revision 2"


def test_a_failed_computation_keeps_nothing(cache):
    with pytest.raises(ZeroDivisionError):
        cache.get("ann", "summary", lambda: 1 // 0)
    assert cache.get("ann", "summary", lambda: "fine") == "fine"
