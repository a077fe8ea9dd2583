"""Taking and noting in one step: what a consumer does message by message, and what a lost wire costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MethodType
from urllib.parse import urlsplit

import pytest
import redis
from kombu import Connection, Queue
from redis._parsers import _RESP3Parser
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from tasks.transport import choose_transport
from tasks.transport.atomic import AT_ONCE, AtomicChannel, AtomicTransport
from tests.fleet.atomic_consumer import StockTransport, TurnedConsumer, publisher
from tests.tcp_proxy import TcpProxy
from tests.waiting import eventually
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import load_settings

Publish = Callable[..., None]
LONG_S = 3600
OFTEN_S = 0.05


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch):
    """An idle consumer looks often, also where nobody tells it anything."""
    monkeypatch.setattr(StockTransport, "brpop_timeout", OFTEN_S)
    monkeypatch.setattr(AtomicTransport, "brpop_timeout", OFTEN_S)


@pytest.fixture(scope="module")
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that is nothing but a broker."""
    with EmbeddedServer(tmp_path_factory.mktemp("broker"), port=0) as server:
        yield server


@pytest.fixture
def broker(broker_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """The same server, empty."""
    with broker_server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def url(broker_server: EmbeddedServer) -> str:
    return broker_server.url


@pytest.fixture
def publish(broker: redis.Redis, url: str) -> Iterator[Publish]:
    with publisher(url) as publish:
        yield publish


@pytest.fixture
def proxy(broker_server: EmbeddedServer) -> Iterator[TcpProxy]:
    with TcpProxy(("127.0.0.1", urlsplit(broker_server.url).port)) as wire:
        yield wire


@pytest.fixture
def proxied(broker: redis.Redis, url: str, proxy: TcpProxy) -> str:
    """The broker's URL by way of the proxy."""
    return url.replace(f":{urlsplit(url).port}", f":{proxy.port}")


def unacknowledged(broker: redis.Redis) -> int:
    assert broker.hlen("unacked") == broker.zcard("unacked_index")
    return broker.hlen("unacked")


@pytest.mark.parametrize(("transport", "noted"), [(StockTransport, 0), (AtomicTransport, 1)])
def test_a_consumer_that_dies_before_it_hears_of_a_message_loses_it_with_the_stock_transport_only(
    broker: redis.Redis,
    publish: Publish,
    proxy: TcpProxy,
    proxied: str,
    monkeypatch: pytest.MonkeyPatch,
    transport: type,
    noted: int,
):
    # So that kombu's command waits on the server when the wire breaks, whenever that is.
    monkeypatch.setattr(StockTransport, "brpop_timeout", LONG_S)
    consumer = TurnedConsumer(proxied, transport)
    consumer.rest()
    proxy.swallow_answers()
    publish("a", "lost?")
    consumer.turn_until(lambda: broker.llen("a") == 0)
    proxy.cut()
    consumer.drop()
    proxy.restore()
    assert consumer.received == []
    assert unacknowledged(broker) == noted
    for tag in broker.zrange("unacked_index", 0, -1):
        broker.zadd("unacked_index", {tag: 0})
    # Whoever comes next, with kombu's own transport too, puts it back when its time is over.
    monkeypatch.setattr(StockTransport, "brpop_timeout", OFTEN_S)
    with TurnedConsumer(proxied, StockTransport) as other:
        assert broker.llen("a") == noted
        if noted:
            other.turn_until(lambda: other.bodies == ["lost?"])


def test_messages_whose_answer_was_lost_are_back_as_soon_as_the_process_is_connected_again(
    broker: redis.Redis, publish: Publish, proxy: TcpProxy, proxied: str
):
    with TurnedConsumer(proxied) as consumer:
        consumer.rest()
        proxy.swallow_answers()
        publish("a", "1", "2", "3")
        consumer.turn_until(lambda: unacknowledged(broker) == 3)
        proxy.restore()
        with pytest.raises(consumer.connection.connection_errors):
            consumer.turn_until(lambda: consumer.received)
    with TurnedConsumer(proxied) as successor:
        successor.turn_until(lambda: successor.bodies == ["1", "2", "3"])
        for message in successor.received:
            message.ack()
        successor.turn_until(lambda: unacknowledged(broker) == 0)


def test_what_was_acknowledged_on_a_lost_connection_is_acknowledged_on_the_next(
    broker: redis.Redis, publish: Publish, proxy: TcpProxy, proxied: str
):
    publish("a", "done")
    with TurnedConsumer(proxied) as consumer:
        consumer.turn_until(lambda: consumer.received)
        consumer.rest()
        proxy.half_open()
        consumer.received[0].ack()
        consumer.turn()
        consumer.turn()
        proxy.cut()
        with pytest.raises(consumer.connection.connection_errors):
            consumer.turn_until(lambda: False)
    assert unacknowledged(broker) == 1
    proxy.restore()
    with TurnedConsumer(proxied) as successor:
        successor.turn_until(lambda: unacknowledged(broker) == 0)


def test_no_more_is_taken_than_may_be_prefetched(broker: redis.Redis, publish: Publish, url: str):
    for queue in ("a", "b"):
        publish(queue, *map(str, range(5)))
    with TurnedConsumer(url, prefetch=3) as consumer:
        consumer.turn_until(lambda: len(consumer.received) >= 3)
        consumer.turn()
        assert (broker.llen("a") + broker.llen("b"), unacknowledged(broker)) == (7, 3)
        consumer.received[0].ack()
        consumer.turn_until(lambda: len(consumer.received) == 4)
        assert (broker.llen("a") + broker.llen("b"), unacknowledged(broker)) == (6, 3)


def test_a_worker_that_prefetches_nothing_takes_one_at_a_time(
    broker: redis.Redis, publish: Publish, url: str
):
    publish("a", "1", "2", "3")
    with TurnedConsumer(url) as consumer:
        qos = consumer.channel.qos
        qos.can_consume = MethodType(lambda _: len(consumer.received) < 1, qos)
        consumer.turn_until(lambda: consumer.received)
        consumer.turn()
        assert broker.llen("a") == 2


def test_a_higher_priority_goes_first_and_queues_take_turns(publish: Publish, url: str):
    publish("a", "a1", "a2", "a3", priority=9)
    publish("b", "b1", "b2", priority=9)
    publish("b", "urgent", priority=3)
    with TurnedConsumer(url) as consumer:
        consumer.turn_until(lambda: len(consumer.received) == 6)
        assert consumer.bodies[0] == "urgent"
        turns = consumer.bodies[1:]
        assert sorted(turns[:2]) == ["a1", "b1"]
        assert sorted(turns[2:4]) == ["a2", "b2"]


def test_a_waiting_consumer_is_told_of_a_message(
    broker: redis.Redis, publish: Publish, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(AtomicTransport, "brpop_timeout", LONG_S)
    with TurnedConsumer(url) as consumer:
        consumer.rest()
        for number in range(3):
            publish("b", str(number), priority=6)
            consumer.turn_until(lambda: len(consumer.received) == number + 1)  # noqa: B023 - called at once


@pytest.mark.parametrize("exchanges_under_way", [0, 1])
def test_a_queue_that_is_added_is_looked_into_at_once(
    broker: redis.Redis, publish: Publish, url: str, monkeypatch: pytest.MonkeyPatch, exchanges_under_way: int
):
    monkeypatch.setattr(AtomicTransport, "brpop_timeout", LONG_S)
    with TurnedConsumer(url) as consumer:
        consumer.rest()
        publish("c", "1")
        if exchanges_under_way:
            consumer.channel._looks_at = AT_ONCE
            consumer.connection.transport.cycle.on_poll_start()
            assert consumer.channel._in_poll
        consumer.consumer.add_queue(Queue("c"))
        consumer.consumer.consume()
        consumer.turn_until(lambda: consumer.bodies == ["1"])
        publish("c", "2")
        consumer.turn_until(lambda: consumer.bodies == ["1", "2"])


def test_an_idle_consumer_that_has_lost_its_wire_is_told_of_messages_on_the_next(
    broker: redis.Redis, publish: Publish, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(AtomicTransport, "brpop_timeout", LONG_S)
    with TurnedConsumer(url) as consumer:
        consumer.rest()
        connection = consumer.channel.client.connection
        lost = connection._sock
        broker.client_kill("{}:{}".format(*lost.getsockname()))
        consumer.turn_until(lambda: connection._sock not in {None, lost} and not consumer.channel._in_poll)
        publish("a", "1")
        consumer.turn_until(lambda: consumer.bodies == ["1"])


def test_acknowledgements_leave_with_the_next_turn(broker: redis.Redis, publish: Publish, url: str):
    publish("a", *map(str, range(8)))
    with TurnedConsumer(url, prefetch=8) as consumer:
        consumer.turn_until(lambda: len(consumer.received) == 8)
        before = broker.info("commandstats")["cmdstat_evalsha"]["calls"]
        for message in consumer.received:
            message.ack()
        assert unacknowledged(broker) == 8
        consumer.turn_until(lambda: unacknowledged(broker) == 0)
        assert broker.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1


def test_an_acknowledgement_after_the_last_take_goes_at_once(broker: redis.Redis, publish: Publish, url: str):
    publish("a", "1", "2")
    with TurnedConsumer(url) as consumer:
        consumer.turn_until(lambda: len(consumer.received) == 2)
        consumer.consumer.cancel()
        consumer.received[0].ack()
        assert unacknowledged(broker) == 1
    assert (broker.llen("a"), unacknowledged(broker)) == (1, 0)


def test_closing_puts_back_what_was_taken_and_not_done(broker: redis.Redis, publish: Publish, url: str):
    publish("a", "1", "2", "3")
    with TurnedConsumer(url, prefetch=1) as consumer:
        consumer.turn_until(lambda: consumer.received)
        consumer.received[0].ack()
        consumer.turn()
        eventually(lambda: broker.llen("a") <= 1)
    assert unacknowledged(broker) == 0
    with TurnedConsumer(url) as other:
        other.turn_until(lambda: other.bodies == ["2", "3"])


def test_messages_behind_one_that_breaks_the_consumer_are_put_back(
    broker: redis.Redis, publish: Publish, url: str
):
    publish("a", "1", "2", "3")
    with TurnedConsumer(url) as consumer:

        def break_at_two(message: object) -> None:
            consumer.received.append(message)
            if len(consumer.received) == 2:
                raise ConnectionError("somewhere in the consumer")

        consumer.on_message = break_at_two
        with pytest.raises(ConnectionError, match="somewhere"):
            consumer.turn_until(lambda: False)
        assert unacknowledged(broker) == 3
    assert unacknowledged(broker) == 0
    with TurnedConsumer(url) as other:
        other.turn_until(lambda: sorted(other.bodies) == ["1", "2", "3"])


def test_what_needs_no_acknowledgement_is_not_noted(broker: redis.Redis, publish: Publish, url: str):
    publish("a", "1", "2")
    with TurnedConsumer(url, no_ack=True) as consumer:
        consumer.turn_until(lambda: consumer.bodies == ["1", "2"])
        assert unacknowledged(broker) == 0


def test_a_full_server_gives_nothing_away_and_takes_acknowledgements(
    broker: redis.Redis, publish: Publish, url: str
):
    publish("a", "1", "2", "3")
    with TurnedConsumer(url, prefetch=1) as consumer:
        consumer.turn_until(lambda: consumer.received)
        broker.config_set("maxmemory", 1)
        try:
            consumer.received[0].ack()
            with pytest.raises(OutOfMemoryError):
                consumer.turn_until(lambda: False)
            assert (broker.llen("a"), unacknowledged(broker)) == (2, 0)
        finally:
            broker.config_set("maxmemory", 0)
        consumer.turn_until(lambda: consumer.bodies == ["1", "2"])


def test_a_server_that_has_forgotten_the_script_is_given_it_again(
    broker: redis.Redis, publish: Publish, url: str
):
    with TurnedConsumer(url) as consumer:
        consumer.rest()
        broker.script_flush()
        publish("a", "1")
        consumer.turn_until(lambda: consumer.bodies == ["1"])
        consumer.received[0].ack()
        broker.script_flush()
        consumer.turn_until(lambda: unacknowledged(broker) == 0)


def test_a_server_that_was_replaced_by_an_empty_one_owes_nothing_and_is_served(
    broker: redis.Redis, publish: Publish, proxy: TcpProxy, proxied: str
):
    publish("a", "done", "lost")
    with TurnedConsumer(proxied, prefetch=1) as consumer:
        consumer.turn_until(lambda: consumer.received)
        proxy.swallow_answers()
        consumer.received[0].ack()
        consumer.turn_until(lambda: broker.llen("a") == 0)
        broker.flushall()
        broker.script_flush()
        proxy.restore()
        with pytest.raises(consumer.connection.connection_errors):
            consumer.turn_until(lambda: False)
    with TurnedConsumer(proxied) as successor:
        successor.rest()
        publish("a", "new")
        successor.turn_until(lambda: successor.bodies == ["new"])
        successor.received[0].ack()
        successor.turn_until(lambda: unacknowledged(broker) == 0)


def test_a_primary_that_became_a_replica_gives_nothing_away_until_it_may_write_again(
    broker: redis.Redis, publish: Publish, url: str
):
    publish("a", "1", "2")
    with TurnedConsumer(url, prefetch=1) as consumer:
        consumer.turn_until(lambda: consumer.received)
        # Of a primary that nobody can reach.
        broker.replicaof("127.0.0.1", 1)
        try:
            consumer.received[0].ack()
            with pytest.raises(ReadOnlyError):
                consumer.turn_until(lambda: False)
            assert (broker.llen("a"), unacknowledged(broker)) == (1, 1)
        finally:
            broker.replicaof("NO", "ONE")
        consumer.turn_until(lambda: consumer.bodies == ["1", "2"])
        assert unacknowledged(broker) == 1


def test_a_late_acknowledgement_leaves_the_second_delivery_alone(
    broker: redis.Redis, publish: Publish, url: str
):
    publish("a", "slow")
    with TurnedConsumer(url) as slow:
        slow.turn_until(lambda: slow.received)
        broker.zadd("unacked_index", dict.fromkeys(broker.zrange("unacked_index", 0, -1), 0))
        with TurnedConsumer(url) as other:
            other.turn_until(lambda: other.bodies == ["slow"])
            slow.received[0].ack()
            slow.turn()
            slow.turn()
            assert unacknowledged(broker) == 1
            assert other.received[0].headers["redelivered"]
            other.received[0].ack()
            other.turn_until(lambda: unacknowledged(broker) == 0)
    assert broker.llen("a") == 0


def test_the_parser_in_python_is_told_of_messages_too(
    broker: redis.Redis, publish: Publish, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(AtomicTransport, "brpop_timeout", LONG_S)
    usual = AtomicChannel._connparams
    in_python = {"parser_class": _RESP3Parser}
    monkeypatch.setattr(
        AtomicChannel, "_connparams", lambda *args, **kwargs: usual(*args, **kwargs) | in_python
    )
    with TurnedConsumer(url) as consumer:
        consumer.rest()
        for number in range(3):
            publish("a", str(number))
            consumer.turn_until(lambda: len(consumer.received) == number + 1)  # noqa: B023 - called at once
            consumer.received[-1].ack()
        consumer.turn_until(lambda: unacknowledged(broker) == 0)


def test_a_broker_that_may_not_tell_of_messages_is_refused_with_the_cure(
    broker: redis.Redis, publish: Publish, url: str
):
    publish("a", "1")
    with TurnedConsumer(url) as consumer:
        broker.execute_command("ACL", "SETUSER", "default", "-client|tracking")
        try:
            with pytest.raises(ResponseError, match="TRADEPOOL_BROKER_TRANSPORT=celery"):
                consumer.turn_until(lambda: False)
            assert (broker.llen("a"), unacknowledged(broker)) == (1, 0)
        finally:
            broker.execute_command("ACL", "SETUSER", "default", "+client|tracking")
        consumer.turn_until(lambda: consumer.bodies == ["1"])


def test_a_login_that_may_run_loaded_scripts_only_takes_messages(
    broker: redis.Redis, publish: Publish, url: str
):
    publish("a", "1")
    broker.execute_command("ACL", "SETUSER", "default", "-eval")
    try:
        with TurnedConsumer(url) as consumer:
            consumer.turn_until(lambda: consumer.bodies == ["1"])
    finally:
        broker.execute_command("ACL", "SETUSER", "default", "+eval")


@pytest.mark.parametrize("transport", [StockTransport, AtomicTransport])
@pytest.mark.parametrize("garbage", [b"\xff{junk", b"[1]", b'"text"', b"{}", b'1,"","x"', b""])
def test_garbage_that_a_dead_consumer_had_taken_comes_again_as_a_message(
    broker: redis.Redis, publish: Publish, url: str, transport: type, garbage: bytes
):
    broker.hset("unacked", "dead-1", b"[" + garbage + b',"","a"]')
    broker.zadd("unacked_index", {"dead-1": 0})
    with TurnedConsumer(url, transport) as consumer:
        publish("a", "after")
        consumer.turn_until(lambda: len(consumer.received) == 2)
        assert [bytes(m.body) for m in consumer.received] == [
            garbage.decode(errors="replace").encode(),
            b"after",
        ]
        for message in consumer.received:
            message.ack()
        consumer.turn_until(lambda: unacknowledged(broker) == 0)


def test_garbage_on_a_queue_is_delivered_once(broker: redis.Redis, publish: Publish, url: str):
    broker.lpush("a", b"\xff{junk")
    with TurnedConsumer(url) as consumer:
        consumer.turn_until(lambda: consumer.received)
        consumer.turn_until(lambda: unacknowledged(broker) == 1)
        consumer.received[0].ack()
        consumer.turn_until(lambda: unacknowledged(broker) == 0)
        assert broker.llen("a") == 0


def test_a_key_of_another_type_costs_no_message(broker: redis.Redis, publish: Publish, url: str):
    publish("a", "1")
    broker.set("unacked", "somebody else's")
    with TurnedConsumer(url) as consumer:
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            consumer.turn_until(lambda: False)
        assert broker.llen("a") == 1
        broker.delete("unacked")
        consumer.turn_until(lambda: consumer.bodies == ["1"])


def test_without_an_event_loop_messages_come_and_acknowledgements_go_at_once(
    broker: redis.Redis, publish: Publish, url: str
):
    with Connection(url, transport=AtomicTransport) as connection:
        queue = connection.SimpleQueue("a")
        publish("a", '"x"')
        message = queue.get(timeout=5)
        assert unacknowledged(broker) == 1
        message.ack()
        assert unacknowledged(broker) == 0
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.01)
        queue.close()


def test_without_a_loop_each_call_brings_one_message(url: str, publish: Publish):
    """Who awaits a number of answers, as of `control.revoke(reply=True, limit=2)`, counts its calls."""
    publish("a", "1", "2")
    with Connection(url, transport=AtomicTransport) as connection:
        came: list[object] = []
        with connection.Consumer([Queue("a")], on_message=came.append):
            for number in (1, 2):
                connection.drain_events(timeout=5)
                assert len(came) == number


@pytest.mark.parametrize(("name", "transport"), [("celery", StockTransport), ("atomic", AtomicTransport)])
def test_the_setting_decides_for_every_form_of_a_brokers_address(name: str, transport: type):
    try:
        choose_transport(name)
        for address in ("redis://h/0", "rediss://h/0", "redis+socket:///s?virtual_host=0"):
            with Connection(address) as connection:
                assert connection.transport_cls in ("redis", "rediss")
                assert connection.get_transport_cls() is transport
    finally:
        choose_transport(load_settings().broker_transport)
