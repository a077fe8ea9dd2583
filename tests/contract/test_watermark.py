"""Waiting for the journal's positions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import eventually
from tradepool.errors import JournalUnavailable
from tradepool.settings import Settings
from tradepool.store import watermark as watermarking
from tradepool.store.connection import connect
from tradepool.store.durability import await_durable
from tradepool.store.fence import GENERATION_FIELD, open_fence
from tradepool.store.keys import Keys
from tradepool.store.watermark import Watermark, parse_watermark

SOON_S, LONG_S = 0.05, 10.0
PATIENT_MS = 14_000


@pytest.fixture
def watermark(redis_client, store):
    return Watermark(redis_client, store.keys)


@pytest.fixture
def patient_bell(monkeypatch: pytest.MonkeyPatch):
    """Whoever misses the bell waits for longer than these tests do."""
    monkeypatch.setattr(watermarking, "_LISTEN_MS", PATIENT_MS)


def ring(redis_client, at: str = "*") -> None:
    """As the journal's writer rings after it has published."""
    redis_client.xadd(Keys.journal_bell, {"moved": ""}, id=at, maxlen=1, approximate=False)


def woken(watermark: Watermark, positions: dict[int, str]) -> str:
    """`wait`, by the bell: whoever has to look again comes too late."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(watermark.wait, positions, LONG_S).result(LONG_S)


def watermark_generation(redis_client) -> str:
    return redis_client.hget(Keys.meta, GENERATION_FIELD).decode()


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


def test_one_of_many_waiting_threads_listens_for_all(watermark, publish, redis_client, patient_bell):
    with ThreadPoolExecutor(20) as threads:
        waiting = [
            threads.submit(watermark.wait, {shard % 4: f"{n}-0"}, LONG_S)
            for shard, n in enumerate(range(1, 21))
        ]
        eventually(lambda: len(watermark._waiters) == 20)
        eventually(lambda: redis_client.info("clients")["blocked_clients"] == 1)
        publish(s00="9-0", s01="9-0", s02="9-0", s03="9-0")
        ring(redis_client)
        # Those who wait for more go on, one of them listening.
        eventually(lambda: len(watermark._waiters) == 11)
        eventually(lambda: redis_client.info("clients")["blocked_clients"] == 1)
        publish(s00="99-0", s01="99-0", s02="99-0", s03="99-0")
        ring(redis_client)
        assert len([future.result(LONG_S) for future in waiting]) == 20
    assert watermark._waiters == {}


def test_whoever_gives_up_listening_leaves_it_to_another(watermark, publish):
    with ThreadPoolExecutor(2) as threads:
        brief = threads.submit(watermark.wait, {0: "5-0"}, SOON_S)
        eventually(lambda: watermark._listener is not None)
        patient = threads.submit(watermark.wait, {0: "5-0"}, LONG_S)
        assert isinstance(brief.exception(LONG_S), JournalUnavailable)
        publish(s00="5-0")
        patient.result(LONG_S)


def test_a_forked_process_does_not_wait_for_its_parents_listener(watermark, publish):
    listened = threading.Thread(target=lambda: None)
    listened.start()
    listened.join()
    # What a fork finds: the thread stands there and does not live.
    watermark._listener = listened
    publish(s00="5-0")
    watermark.wait({0: "5-0"}, LONG_S)


def test_the_bell_wakes_and_nobody_has_to_look_again(watermark, publish, redis_client, patient_bell):
    publish(s00="1-0")
    ring(redis_client)
    watermark.wait({0: "1-0"}, LONG_S)
    with ThreadPoolExecutor(1) as threads:
        for number in range(2, 5):
            waiting = threads.submit(watermark.wait, {0: f"{number}-0"}, LONG_S)
            eventually(lambda: redis_client.info("clients")["blocked_clients"] == 1)
            publish(s00=f"{number}-0")
            ring(redis_client)
            waiting.result(LONG_S)


def test_what_was_published_between_two_waits_is_heard_at_once(
    watermark, publish, redis_client, patient_bell
):
    for number in range(1, 4):
        publish(s00=f"{number}-0")
        ring(redis_client)
        woken(watermark, {0: f"{number}-0"})


def test_the_bell_of_a_server_whose_clock_is_behind_is_heard(watermark, publish, redis_client, monkeypatch):
    for number in range(1, 3):
        publish(s00=f"{number}-0")
        ring(redis_client, at=f"99999999999999-{number}")
        watermark.wait({0: f"{number}-0"}, LONG_S)
    assert watermark._heard == "99999999999999-2", "or this test shows nothing"
    redis_client.delete(Keys.journal_bell)
    open_fence(redis_client)
    publish(s00="3-0")
    watermark.wait({0: "3-0"}, LONG_S)

    monkeypatch.setattr(watermarking, "_LISTEN_MS", PATIENT_MS)
    publish(s00="4-0")
    ring(redis_client)
    woken(watermark, {0: "4-0"})


def test_the_generation_is_told_that_was_heard_with_the_positions(watermark, publish, redis_client):
    publish(s00="5-0")
    before = watermark_generation(redis_client)
    assert watermark.wait({0: "5-0"}, LONG_S) == before
    open_fence(redis_client)
    assert watermark.wait({0: "5-0"}, LONG_S) == before, "nobody has listened since"
    publish(s00="6-0")
    assert watermark.wait({0: "6-0"}, LONG_S) == watermark_generation(redis_client) != before


def test_what_the_journal_had_of_another_pool_confirms_nothing_of_this_one(
    watermark, publish, redis_client, store
):
    """The server's clock was ahead then; no worker was started anew."""

    def begin_anew() -> str:
        redis_client.flushall()
        open_fence(redis_client)
        return store.generation()

    publish(s00="900-0")
    watermark.wait({0: "900-0"}, LONG_S)
    generation = begin_anew()
    with pytest.raises(JournalUnavailable):
        await_durable(store, watermark, {0: "800-0"}, generation, SOON_S)
    publish(s00="900-0")
    await_durable(store, watermark, {0: "800-0"}, generation, LONG_S)

    begin_anew()
    publish(s01="7-0")
    watermark.wait({1: "7-0"}, LONG_S)
    with pytest.raises(JournalUnavailable):
        watermark.wait({0: "1-0"}, SOON_S)


def test_after_a_recovery_shards_that_have_not_moved_are_as_far_as_before(watermark, publish, redis_client):
    publish(s00="5-0")
    watermark.wait({0: "5-0"}, LONG_S)
    open_fence(redis_client)
    publish(s01="7-0")
    watermark.wait({1: "7-0"}, LONG_S)
    watermark.wait({0: "5-0"}, SOON_S)


def test_a_process_that_runs_the_journal_is_told_and_never_asks(redis_client, store, publish):
    publish(s00="99-0")
    told = Watermark(redis_client, store.keys, listens=False)
    with pytest.raises(JournalUnavailable):
        told.wait({0: "5-0"}, SOON_S)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(told.wait, {0: "5-0", 1: "2-0"}, LONG_S)
        told.notify({0: "5-0"}, "g")
        told.notify({0: "4-0", 1: "2-0"}, "g")
        waiting.result(LONG_S)


def test_an_unreachable_server_is_a_journal_that_does_not_confirm(store, tmp_path):
    with (
        connect(Settings(redis_url=f"unix://{tmp_path}/nobody.sock")) as away,
        pytest.raises(JournalUnavailable, match=r"cannot be reached"),
    ):
        Watermark(away, store.keys).wait({0: "1-0"}, SOON_S)


def test_a_published_field_has_position_digest_and_count():
    known = parse_watermark(b"17-3 00000000000000ff 12")
    assert (known.position, known.digest, known.count) == ("17-3", "00000000000000ff", 12)
    assert (parse_watermark(None).position, parse_watermark(None).count) == ("0-0", 0)
