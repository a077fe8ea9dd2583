"""What is read of the broker: how many messages wait, since when, and what beat has due."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from celery import Celery
from redbeat.decoder import RedBeatJSONEncoder

from tasks.app import PoolApp
from tasks.parking import letter, park
from tradepool import wire
from tradepool.broker import ChangeSender, queue_named
from tradepool.clock import now_us
from tradepool.fleet.broker_state import BrokerReader, BrokerState, Waiting
from tradepool.settings import Settings
from tradepool.store.address import broker_address

SECOND_US = 1_000_000


@pytest.fixture
def reader(settings: Settings, redis_client) -> Iterator[BrokerReader]:
    """Of an empty broker."""
    opened = BrokerReader(settings)
    yield opened
    opened.close()


@pytest.fixture
def sender(settings: Settings, redis_client) -> Iterator[ChangeSender]:
    with ChangeSender(settings) as opened:
        yield opened


@pytest.fixture
def stranger(settings: Settings) -> Iterator[Celery]:
    """A program that knows nothing but Celery."""
    app = Celery("stranger", broker=broker_address(settings).celery_url, set_as_current=False)
    app.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9]}
    yield app
    app.close()


def send(stranger: Celery, queue: str, **options: object) -> None:
    stranger.send_task("tasks.trades.add_trade", queue=queue_named(queue), retry=False, **options)


def test_an_empty_broker_has_all_queues_and_nothing_on_them(reader: BrokerReader):
    state = reader.read(now_us())
    assert state.queues == dict.fromkeys(wire.QUEUES, Waiting(0, None))
    assert (state.dead, state.unacked, state.entries) == (Waiting(0, None), Waiting(0, None), ())
    assert state.memory.used > 0


def test_commands_are_sent_as_celery_and_kombu_would_send_them(sender: ChangeSender, redis_client):
    commands = [{"op": "close_trade", "trade_id": "ü", "price": "1"}, {"op": "add_trade", "reserve": None}]
    sender.call(wire.QUEUE_TRADES, wire.APPLY_CHANGES, [commands], argsrepr="<2 changes>", sent_at=1)
    sender.send(wire.QUEUE_TRADES, commands)
    theirs, ours = (json.loads(message) for message in reversed(redis_client.lrange("trades", 0, -1)))
    assert base64.b64decode(ours.pop("body")) == base64.b64decode(theirs.pop("body"))
    for headers, properties in ((one["headers"], one["properties"]) for one in (theirs, ours)):
        assert headers.pop("id") == headers.pop("root_id") == properties.pop("correlation_id")
        assert headers.pop("sent_at")
        assert properties.pop("reply_to") != properties.pop("delivery_tag")
    assert ours == theirs


def test_messages_of_one_exchange_come_to_the_queue_in_order(sender: ChangeSender, redis_client):
    task_ids = sender.send_each(wire.QUEUE_TOKENS, [[b'{"op":"a"}'], [b'{"op":"b"}'], [b"{}", b"{}"]])
    sent = [json.loads(message) for message in reversed(redis_client.lrange("tokens", 0, -1))]
    assert [one["headers"]["id"] for one in sent] == task_ids
    assert [one["headers"]["argsrepr"] for one in sent] == ["<1 changes>", "<1 changes>", "<2 changes>"]
    assert len({one["properties"]["delivery_tag"] for one in sent}) == 3


def test_a_message_is_as_old_as_its_sender_says(reader: BrokerReader, sender: ChangeSender):
    before = now_us()
    sender.send(wire.QUEUE_TRADES, [])
    after = now_us()
    sender.send(wire.QUEUE_TRADES, [])
    depth, oldest_at = reader.read(now_us()).queues[wire.QUEUE_TRADES]
    assert depth == 2
    assert before <= oldest_at <= after


def test_the_oldest_of_all_priorities_counts(reader: BrokerReader, stranger: Celery):
    for priority, seconds_ago in ((0, 10), (9, 30), (3, 20)):
        sent_at = now_us() - seconds_ago * SECOND_US
        send(stranger, wire.QUEUE_TOKENS, priority=priority, headers={"sent_at": sent_at})
    state, now = reader.read(now_us()), now_us()
    waiting = state.queues[wire.QUEUE_TOKENS]
    assert waiting.depth == 3
    assert 30 <= (now - waiting.oldest_at) / SECOND_US < 60


def test_a_message_without_a_time_is_as_old_as_it_was_seen(
    reader: BrokerReader, stranger: Celery, redis_client
):
    send(stranger, wire.QUEUE_TRADES)
    send(stranger, wire.QUEUE_TRADES)
    now = now_us()
    seen = [oldest_of(reader.read(now + seconds * SECOND_US)) - now for seconds in (0, 5, 60)]
    assert seen == [0, 0, 0]
    redis_client.rpop(wire.QUEUE_TRADES)
    assert oldest_of(reader.read(now + 70 * SECOND_US)) == now + 70 * SECOND_US
    redis_client.rpop(wire.QUEUE_TRADES)
    assert oldest_of(reader.read(now)) is None


def test_what_is_no_message_is_counted_too(reader: BrokerReader, redis_client):
    redis_client.lpush(wire.QUEUE_TRADES, b"\xff nonsense")
    now = now_us()
    assert reader.read(now).queues[wire.QUEUE_TRADES] == Waiting(1, now)


def test_dead_letters_are_as_old_as_the_first(reader: BrokerReader, redis_client, settings: Settings):
    app = PoolApp("parking", broker=broker_address(settings).celery_url, set_as_current=False)
    app.conf.task_serializer = wire.SERIALIZER
    wire.register_encoder()
    parked = [letter(reason={"error": "x"}, task="t", task_id=str(n), payload={}) for n in range(3)]
    park(app, parked)
    app.close()
    assert reader.read(now_us()).dead == Waiting(3, parked[0]["parked_at"])


def test_messages_that_workers_have_are_as_old_as_they_took_them(reader: BrokerReader, redis_client):
    redis_client.zadd("unacked_index", {"a": 1_700_000_100.5, "b": 1_700_000_200})
    assert reader.read(now_us()).unacked == Waiting(2, 1_700_000_100_500_000)


def test_entries_of_beat_say_when_they_were_sent_and_are_due(reader: BrokerReader, redis_client):
    sent_at = datetime(2026, 11, 23, 3, 17, 0, 250_000, tzinfo=UTC)
    meta = RedBeatJSONEncoder().encode({"last_run_at": sent_at})
    redis_client.zadd("redbeat::schedule", {"redbeat:deep": 1_900_000_000, "redbeat:new": 1_900_000_001})
    redis_client.hset("redbeat:deep", "meta", meta)
    for _ in range(2):
        entries = {entry.name: entry for entry in reader.read(now_us()).entries}
        assert entries["deep"].sent_at == int(sent_at.timestamp() * SECOND_US)
        assert entries["deep"].due_at == 1_900_000_000 * SECOND_US
        assert entries["new"].sent_at is None
    redis_client.zadd("redbeat::schedule", {"redbeat:third": 1_900_000_002})
    redis_client.zrem("redbeat::schedule", "redbeat:new")
    assert [entry.name for entry in reader.read(now_us()).entries] == ["deep", "third"]


def oldest_of(state: BrokerState) -> int | None:
    return state.queues[wire.QUEUE_TRADES].oldest_at
