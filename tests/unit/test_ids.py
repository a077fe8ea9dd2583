"""Trade ids find their user's shard, and a redelivery mints the same one."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from tradepool.model.ids import derive_id, mint_id, short_id, slot_of_id, slot_of_user

users = st.text(min_size=1, max_size=20)
times = st.integers(min_value=0, max_value=2**48 * 1000 - 1)


def test_the_slot_is_crc16_as_redis_cluster_counts_it():
    assert slot_of_user("123456789") == 0x31C3


@given(users, times, st.integers(min_value=0, max_value=2**80))
def test_a_minted_id_carries_the_users_slot_and_the_time(user, at_us, random_bits):
    trade_id = mint_id(user, at_us=at_us, random_bits=random_bits)
    assert slot_of_id(trade_id) == slot_of_user(user)
    parsed = uuid.UUID(trade_id)
    assert parsed.version == 8
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == at_us // 1000


def test_ids_sort_by_time():
    early, late = (mint_id("ann", at_us=at, random_bits=7) for at in (1_000_000, 2_000_000))
    assert early < late


def test_random_bits_tell_ids_of_one_moment_apart():
    assert mint_id("ann", at_us=1, random_bits=1) != mint_id("ann", at_us=1, random_bits=2)


def test_the_same_seed_gives_the_same_id():
    first = derive_id("ann", at_us=1_000, seed="command-1")
    assert derive_id("ann", at_us=1_000, seed="command-1") == first
    assert derive_id("ann", at_us=1_000, seed="command-2") != first
    assert slot_of_id(first) == slot_of_user("ann")


def test_foreign_ids_have_no_slot():
    for foreign in ("trade:a170b338-3926-4059-b28c-105d1fb17c23", str(uuid.UUID(int=5, version=4)), "", "x"):
        assert slot_of_id(foreign) is None


def test_a_users_name_may_be_any_text():
    assert slot_of_user("žofie 🐍\ud800") == slot_of_user("žofie 🐍\ud800")


def test_short_ids_are_16_hex_characters():
    assert len(short_id("c")) == 16
    assert short_id("c") != short_id("d")
    int(short_id("c"), 16)
