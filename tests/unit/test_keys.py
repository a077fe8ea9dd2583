"""Every key of a shard carries its hash tag, and no two things share a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepool.model.ids import mint_id, slot_of_user
from tradepool.store.keys import BUCKETS, MARK_BUCKETS, Keys

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
KEYS = Keys(256)


def keys_of_shard(keys: Keys, shard: int, name: str) -> list[str]:
    return [
        *(keys.records(shard, bucket) for bucket in range(BUCKETS)),
        keys.digest(shard),
        keys.outbox(shard),
        keys.user_index(shard, name),
        keys.symbol_index(shard, name),
        keys.open_trades(shard),
        keys.recent(shard),
        keys.counters(shard, name),
        keys.idempotency(shard, name),
        keys.fill_claims(shard, name),
        keys.users(shard),
        keys.routes(shard),
        *(keys.marks(shard, bucket) for bucket in range(MARK_BUCKETS)),
    ]


@given(shard=st.integers(0, 255), name=TEXT)
def test_all_keys_of_a_shard_share_its_hash_tag(shard, name):
    tags = {key[key.index("{") + 1 : key.index("}")] for key in keys_of_shard(KEYS, shard, name)}
    assert tags == {f"{shard:02x}"}


@given(one=TEXT, other=TEXT)
def test_no_two_things_share_a_key_whatever_they_are_called(one, other):
    ones, others = keys_of_shard(KEYS, 0, one), keys_of_shard(KEYS, 0, other)
    shared = [(i, j) for i, key in enumerate(ones) for j, key2 in enumerate(others) if key == key2]
    assert all(i == j for i, j in shared)
    named = [i for i, key in enumerate(ones) if key != keys_of_shard(KEYS, 0, f"{one}.")[i]]
    assert one == other or not {i for i, _ in shared} & set(named)


@given(user_id=TEXT, at_us=st.integers(0, 2**52), random_bits=st.integers(0, 2**64))
def test_a_minted_id_leads_to_its_users_shard(user_id, at_us, random_bits):
    keys = Keys(64)
    assert keys.home_shard(mint_id(user_id, at_us=at_us, random_bits=random_bits)) == keys.shard_of_user(
        user_id
    )


@pytest.mark.parametrize("trade_id", ["42", "trade:3f2c", "018f2b3c-0000-7000-8000-000000000000", ""])
def test_a_foreign_id_has_no_home_shard_but_a_place_for_its_route(trade_id):
    keys = Keys(64)
    assert keys.home_shard(trade_id) is None
    assert 0 <= keys.route_shard(trade_id) < 64


def test_the_layout_on_the_server_stays_as_it_is():
    keys = Keys(64)
    shard = keys.shard_of_user("ann")
    assert shard == slot_of_user("ann") % 64
    assert keys.records(10, 11) == "tp:{0a}:r:b"
    assert keys.user_index(10, "ann") == "tp:{0a}:u:ann"
    assert keys.outbox(63) == "tp:{3f}:outbox"
    assert keys.marks(10, 31) == "tp:{0a}:marks:1f"
    assert keys.bucket_of("42") == 0


def test_an_open_trade_is_found_again_in_its_member():
    assert Keys.trade_of_open_member(Keys.open_member("ann", "42")) == "42"


@pytest.mark.parametrize("shard_count", [1, 4, 64, 256])
def test_users_of_a_shard_are_spread_over_all_buckets_of_marks(shard_count):
    keys = Keys(shard_count)
    found = {(keys.shard(slot), keys.mark_bucket(slot)) for slot in range(2**16)}
    wanted = min(MARK_BUCKETS, 2**16 // shard_count)
    assert found == {(shard, bucket) for shard in keys.shards for bucket in range(wanted)}
