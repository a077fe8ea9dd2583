"""What a worker tells Flower of its tasks."""

from __future__ import annotations

from contextlib import suppress

from celery.events import EventReceiver

from tests.fleet.trades import new_trade
from tests.waiting import eventually

MESSAGES = 30


def test_events_of_all_messages_arrive_in_a_few_batches(fleet):
    told: dict[str, set[str]] = {}

    def take(event: dict[str, object]) -> None:
        told.setdefault(str(event["uuid"]), set()).add(str(event["type"]))

    kinds = ("task-received", "task-started", "task-succeeded")
    client = fleet.pool.redis
    patterns = client.pubsub_numpat()
    with fleet.foreign.connection_for_read() as given:
        receiver = EventReceiver(given, handlers=dict.fromkeys(kinds, take), app=fleet.foreign)
        with receiver.consumer_context(wakeup=False) as (connection, *_):

            def is_listening() -> bool:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.01)
                return bool(client.pubsub_numpat() > patterns)

            # kombu subscribes when it is first asked to read, and what was told before is lost to it.
            eventually(is_listening)
            before = client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
            sent = [fleet.call("trades.add_trade", new_trade()) for _ in range(MESSAGES)]

            def all_are_told() -> bool:
                connection.drain_events(timeout=10)
                return all(told.get(task_id) == set(kinds) for task_id in sent)

            eventually(all_are_told)
            published = client.info("commandstats")["cmdstat_publish"]["calls"] - before
    assert published < MESSAGES
