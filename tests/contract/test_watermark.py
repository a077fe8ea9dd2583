"""Waiting for the journal's positions."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.waiting import eventually
from tradepool.errors import JournalUnavailable
from tradepool.settings import Settings
from tradepool.store import watermark as watermarking
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
from tradepool.store.watermark import Watermark, parse_watermark

SOON_S, LONG_S = 0.05, 20.0


@pytest.fixture
def watermark(redis_client, store):
    return Watermark(redis_client, store.keys)


@pytest.fixture
def publish(redis_client):
    """What the journal writes after its fsync."""

    def publish(**positions: str) -> None:
        fields = {shard[1:]: f"{position} {'0' * 16} 7" for shard, position in positions.items()}
        redis_client.hset(Keys.journal, mapping=fields | {"epoch": "3"})

    return publish


def test_what_is_journaled_needs_no_waiting(watermark, publish):
    publish(s00="5-1", s02="7-0")
    watermark.wait({0: "5-1", 2: "6-9"}, LONG_S)
    watermark.wait({}, LONG_S)


def test_positions_are_compared_as_numbers(watermark, publish):
    publish(s00="9-0", s01="10-10")
    watermark.wait({1: "10-9"}, LONG_S)
    with pytest.raises(JournalUnavailable):
        watermark.wait({0: "10-0"}, SOON_S)


def test_a_journal_that_stands_still_is_unavailable(watermark, publish):
    publish(s00="5-1")
    with pytest.raises(JournalUnavailable, match="1 shards"):
        watermark.wait({0: "5-1", 3: "1-0"}, SOON_S)


def test_many_waiting_threads_share_one_poller_and_all_wake(watermark, publish):
    with ThreadPoolExecutor(20) as threads:
        waiting = [
            threads.submit(watermark.wait, {shard % 4: f"{n}-0"}, LONG_S)
            for shard, n in enumerate(range(1, 21))
        ]
        eventually(lambda: sum(thread.name == "watermark" for thread in threading.enumerate()) == 1)
        publish(s00="99-0", s01="99-0", s02="99-0", s03="99-0")
        assert [future.result(LONG_S) for future in waiting] == [None] * 20
    eventually(lambda: "watermark" not in {thread.name for thread in threading.enumerate()})
    publish(s00="100-0")
    watermark.wait({0: "100-0"}, LONG_S)


def test_only_shards_that_somebody_waits_for_are_read(watermark, publish, redis_client, monkeypatch):
    asked = []

    def hmget(key, fields):
        asked.append(fields)
        return redis_client.execute_command("HMGET", key, *fields)

    monkeypatch.setattr(redis_client, "hmget", hmget)
    publish(s01="5-1", s03="1-0")
    watermark.wait({1: "5-1"}, LONG_S)
    watermark.wait({1: "5-0", 3: "1-0"}, LONG_S)
    assert {tuple(fields) for fields in asked} == {("01",), ("03",)}


def test_a_process_that_runs_the_journal_is_told_and_never_asks(redis_client, store, publish):
    publish(s00="99-0")
    told = Watermark(redis_client, store.keys, poll_s=None)
    with pytest.raises(JournalUnavailable):
        told.wait({0: "5-0"}, SOON_S)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(told.wait, {0: "5-0", 1: "2-0"}, LONG_S)
        told.notify({0: "5-0"})
        told.notify({0: "4-0", 1: "2-0"})
        waiting.result(LONG_S)


def test_an_unreachable_server_is_a_journal_that_does_not_confirm(store, tmp_path):
    with connect(Settings(redis_url=f"unix://{tmp_path}/nobody.sock")) as away:
        with pytest.raises(JournalUnavailable, match=r"cannot be reached|within"):
            Watermark(away, store.keys).wait({0: "1-0"}, SOON_S)
        eventually(lambda: "watermark" not in {thread.name for thread in threading.enumerate()})


def test_a_published_field_has_position_digest_and_count():
    known = parse_watermark(b"17-3 00000000000000ff 12")
    assert (known.position, known.digest, known.count) == ("17-3", "00000000000000ff", 12)
    assert (parse_watermark(None).position, parse_watermark(None).count) == ("0-0", 0)


def test_a_journal_that_stands_still_is_asked_rarely_and_often_again_when_it_goes_on(
    watermark, publish, monkeypatch: pytest.MonkeyPatch
):
    pauses: list[float] = []
    pause = threading.Event()

    def noted(pause_s: float) -> None:
        pauses.append(pause_s)
        pause.wait(pause_s)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=noted)
    monkeypatch.setattr(watermarking, "time", clock)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(watermark.wait, {0: "5-0"}, LONG_S)
        eventually(lambda: pauses.count(watermarking._POLL_STILL_S) > 2)
        assert pauses[0] == watermarking.POLL_S
        publish(s00="4-0")
        eventually(lambda: pauses[-1] == watermarking.POLL_S)
        publish(s00="5-0")
        waiting.result()
