"""Whatever bit turns over in a value of the server or in a file, a deep audit finds it, and goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.varied_trades import add_live_and_archived, varied_trades
from tradepool import TradePool
from tradepool.files.snapshot_info import NAMES, SNAPSHOT_NAME, load_snapshot
from tradepool.model import codec

FLIPS, FLIPS_MANY = 30, 3_000
FILE_FLIPS, FILE_FLIPS_MANY = 12, 600
BITS_STEP = 17
BEYOND_AUDITS = {b"epoch", b"generation", b"created"}
"""Fields that only the writers of the journal and of the fence can judge, and one that nobody reads."""


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory):
    """Live and archived trades, ledgers, several segments of the journal and a snapshot."""
    with TradePool.embedded(
        tmp_path_factory.mktemp("rot") / "pool", shard_count=2, segment_bytes=1 << 16
    ) as opened:
        add_live_and_archived(opened, varied_trades(40, 4))
        opened.update_available_tokens("only tokens", {"USDT": 50})
        opened.reserve_tokens("only tokens", "USDT", 1, "key", 3600)
        opened.write_snapshot()
        yield opened


def flipped(value: bytes, draw: random.Random, first: int = 0) -> bytes:
    turned = bytearray(value)
    turned[draw.randrange(first, len(value))] ^= 1 << draw.randrange(8)
    return bytes(turned)


def rot(client, key: bytes, draw: random.Random) -> object:
    """Turn one bit of the key's value over; what it was in."""
    match client.type(key):
        case b"hash":
            field = draw.choice(sorted(set(client.hgetall(key)) - BEYOND_AUDITS))
            value = client.hget(key, field)
            if draw.random() < 0.3:
                client.hdel(key, field)
                client.hset(key, flipped(field, draw), value)
            else:
                client.hset(key, field, flipped(value, draw))
            return field
        case b"zset":
            member, score = draw.choice(client.zrange(key, 0, -1, withscores=True))
            if draw.random() < 0.5:
                client.zrem(key, member)
                client.zadd(key, {flipped(member, draw): score})
            else:
                client.zadd(key, {member: score + 2 ** draw.randrange(40)})
            return member
        case b"set":
            member = draw.choice(sorted(client.smembers(key)))
            client.srem(key, member)
            client.sadd(key, flipped(member, draw))
            return member
        case b"string":
            # One id in place of another, or another revision, means no more than reading it again.
            client.set(key, b"x" + client.get(key)[1:])
            return b""
    return None


def is_found(pool: TradePool) -> bool:
    return not pool.check_all_trades(deep=True).ok


def missed(pool: TradePool, flips: int, seed: int) -> list[object]:
    draw, client, missed = random.Random(seed), pool.redis, []
    keys = sorted(key for key in client.scan_iter("tp:{*") if client.type(key) != b"stream")
    draw.shuffle(keys)
    for number in range(flips):
        key = keys[number % len(keys)]
        before = client.dump(key)
        place = rot(client, key, draw)
        is_missed = not is_found(pool)
        rotten = client.hget(key, place) if b":r:" in key else None
        client.restore(key, 0, before, replace=True)
        # A compressed body may unpack to the same JSON: then nothing has changed.
        if is_missed and not (rotten and codec.split(rotten) == codec.split(client.hget(key, place))):
            missed.append((key, place))
    assert pool.check_all_trades(deep=True).ok
    return missed


def missed_in_files(pool: TradePool, files: list[Path], flips: int, seed: int) -> list[object]:
    draw, missed = random.Random(seed), []
    for number in range(flips):
        path = files[number % len(files)]
        before = path.read_bytes()
        after = flipped(before, draw)
        path.write_bytes(after)
        if not is_found(pool):
            missed.append((path.name, next(i for i, byte in enumerate(before) if byte != after[i])))
        path.write_bytes(before)
    assert pool.check_all_trades(deep=True).ok
    return missed


def files_of(pool: TradePool) -> list[Path]:
    folder = pool.settings.data_dir
    segments = sorted(folder.glob("trade_pool.*log*"))
    archive = sorted((folder / "archive").glob("day=*/*"))
    snapshot = [folder / name for name in NAMES]
    return [*segments, *archive, *snapshot]


def test_a_bit_that_turns_over_in_the_server_is_found(pool):
    assert missed(pool, FLIPS, seed=1) == []


def test_a_bit_that_turns_over_in_a_file_is_found(pool):
    assert missed_in_files(pool, files_of(pool), FILE_FLIPS, seed=1) == []


def test_any_bit_that_turns_over_in_what_vouches_for_the_snapshot_makes_it_none(pool):
    path = pool.settings.data_dir / SNAPSHOT_NAME
    before = path.read_bytes()
    assert load_snapshot(path.parent) is not None
    for number in range(0, 8 * len(before), BITS_STEP):
        turned = bytearray(before)
        turned[number // 8] ^= 1 << number % 8
        path.write_bytes(turned)
        assert load_snapshot(path.parent) is None, (number, bytes(turned))
    assert is_found(pool)
    path.write_bytes(before)
    assert not is_found(pool)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_bits_that_turn_over_in_the_server_are_found(pool):
    assert missed(pool, FLIPS_MANY, seed=2) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_bits_that_turn_over_in_files_are_found(pool):
    assert missed_in_files(pool, files_of(pool), FILE_FLIPS_MANY, seed=2) == []
