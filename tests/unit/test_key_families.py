"""Names of keys: which are the pool's, and which only look like it."""

from __future__ import annotations

import pytest

from tradepool.store.key_families import type_of, user_of
from tradepool.store.keys import BUCKETS, MARK_BUCKETS, Keys

KEYS = Keys(4)
USER = "ann"
SHARD = KEYS.shard_of_user(USER)
OTHER = (SHARD + 1) % 4


def test_every_key_that_the_pool_names_is_known():
    hashes = [KEYS.records(1, bucket) for bucket in range(BUCKETS)]
    hashes += [
        KEYS.digest(3),
        KEYS.counters(SHARD, USER),
        KEYS.archived_counters(SHARD, USER),
        KEYS.routes(0),
    ]
    hashes += [KEYS.idempotency(SHARD, USER), KEYS.fill_claims(SHARD, USER)]
    sets = [KEYS.user_index(SHARD, USER), KEYS.symbol_index(0, "BTC/USDT:USDT"), KEYS.open_trades(2)]
    sets += [KEYS.recent(0), KEYS.expiries(0), KEYS.quarantined(0)]
    others = {KEYS.outbox(1): "stream", KEYS.users(1): "set", KEYS.changed(SHARD, USER): "string"}
    for name, kind in {**dict.fromkeys(hashes, "hash"), **dict.fromkeys(sets, "zset"), **others}.items():
        assert type_of(KEYS, name) == kind, name


def test_what_may_go_has_no_type():
    passing = [KEYS.filling(0)]
    passing += [KEYS.marks(2, bucket) for bucket in range(MARK_BUCKETS)]
    assert {type_of(KEYS, name) for name in passing} == {None}


@pytest.mark.parametrize(
    "name",
    [
        "tp:{04}:digest",
        "tp:{0}:digest",
        "tp:{pool}:meto",
        "tp:{00}:digesu",
        "tp:{00}:digest:1",
        "tp:{00}:r:g",
        "tp:{00}:r:10",
        "tp:{00}:r",
        "tp:{00}:s:",
        "tp:{00}:marks:20",
        "tp:{00}:filling:x",
        "tp:{00}",
        f"tp:{{{OTHER:02x}}}:c:{USER}",
        f"tp:{{{SHARD:02x}}}:x:{USER}",
    ],
)
def test_a_name_that_no_key_has_is_unknown(name):
    assert type_of(KEYS, name) == ""


def test_whose_a_key_is():
    assert user_of(KEYS.counters(SHARD, "a:b")) == "a:b"
    assert user_of(KEYS.symbol_index(SHARD, "BTC/USDT")) is None


def test_without_what_pool_and_journal_say_of_themselves_nobody_may_write():
    assert {type_of(KEYS, name) for name in (Keys.journal, Keys.meta)} == {"hash"}
