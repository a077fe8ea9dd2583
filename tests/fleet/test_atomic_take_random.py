"""Consumers that take atomically, hurt in random order: at any moment the server has all that is not done."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from tasks.transport import unsettled
from tasks.transport.atomic import AtomicTransport
from tests.fleet.atomic_consumer import QUEUES, StockTransport, TurnedConsumer, publisher
from tests.tcp_proxy import TcpProxy
from tests.waiting import eventually
from tradepool.server.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

STEPS = 150
CONSUMERS = 3
PREFETCH = 4
PRIORITIES = (0, 3, 9)
OFTEN_S = 0.05
SILENCE_S = 0.5
SEPARATOR = "\x06\x16"


class Scene:
    """One server behind a wire, and consumers on it, to which a seed's sequence of things happens."""

    def __init__(self, seed: int, url: str, proxy: TcpProxy, client: redis.Redis) -> None:
        self.random = random.Random(seed)
        self.client = client
        self.published: list[str] = []
        self.done: set[str] = set()
        self._url = url
        self._proxied = url.replace(f":{urlsplit(url).port}", f":{proxy.port}")
        self._proxy = proxy
        self._consumers = [self._connected() for _ in range(CONSUMERS)]

    def step(self, publish: Callable[..., None]) -> None:
        """Something happens; usually that messages come or a consumer's loop turns."""
        happenings: list[tuple[int, Callable[[], None]]] = [
            (30, lambda: self._publish(publish)),
            (60, self._turn),
            (30, self._acknowledge),
            (5, self._give_back),
            (5, self._end_connection),
            (3, self._end_process),
            (3, self._lose_answers),
            (3, self._reset_wire),
            (3, self.make_overdue),
            (2, self._forget_scripts),
        ]
        weights = [weight for weight, _ in happenings]
        self.random.choices([happening for _, happening in happenings], weights)[0]()

    def on_server(self) -> set[str]:
        """The texts of all messages that wait or are noted as unacknowledged."""
        levels = [queue + (f"{SEPARATOR}{step}" if step else "") for queue in QUEUES for step in PRIORITIES]
        with self.client.pipeline() as pipe:
            for level in levels:
                pipe.lrange(level, 0, -1)
            pipe.hvals("unacked")
            pipe.zcard("unacked_index")
            *waiting, notes, indexed = pipe.execute()
        assert len(notes) == indexed
        found = [json.loads(message) for level in waiting for message in level]
        found += [json.loads(note)[0] for note in notes]
        return {base64.b64decode(message["body"]).decode() for message in found}

    def make_overdue(self) -> None:
        """The visibility timeout of everything that is under way has passed."""
        tags: Any = self.client.zrange("unacked_index", 0, -1)
        if tags:
            self.client.zadd("unacked_index", dict.fromkeys(tags, 0))

    def finish(self) -> None:
        """Nobody is left; one new consumer, of either kind, does the rest."""
        for consumer in self._consumers:
            consumer.drop()
        unsettled._unsettled.cache_clear()
        self.make_overdue()
        kind = self.random.choice([StockTransport, AtomicTransport])
        with TurnedConsumer(self._url, kind) as last:
            eventually(lambda: self._is_done(last))

    def _is_done(self, consumer: TurnedConsumer) -> bool:
        consumer.turn()
        while consumer.received:
            self._note_done(consumer)
        return self.done == set(self.published) and not self.on_server()

    def _note_done(self, consumer: TurnedConsumer) -> None:
        if not consumer.received:
            return
        message = consumer.received.pop(self.random.randrange(len(consumer.received)))
        # The promise ends with the call, whenever the acknowledgement leaves.
        self.done.add(_text(message.body))
        message.ack()

    def _publish(self, publish: Callable[..., None]) -> None:
        texts = [str(len(self.published) + number) for number in range(self.random.randrange(1, 8))]
        self.published += texts
        publish(self.random.choice(QUEUES), *texts, priority=self.random.choice(PRIORITIES))

    def _turn(self) -> None:
        self._with_one(lambda consumer: consumer.turn())

    def _acknowledge(self) -> None:
        self._with_one(self._note_done)

    def _give_back(self) -> None:
        self._with_one(lambda consumer: consumer.received and consumer.received.pop().requeue())

    def _end_connection(self) -> None:
        self._replace(self.random.randrange(CONSUMERS))

    def _end_process(self) -> None:
        """What the process owed the server is forgotten with it."""
        place = self.random.randrange(CONSUMERS)
        self._consumers[place].drop()
        unsettled._unsettled.cache_clear()
        self._consumers[place] = self._connected()

    def _lose_answers(self) -> None:
        self._proxy.swallow_answers()
        for _ in range(CONSUMERS):
            self._turn()
        self._proxy.restore()

    def _reset_wire(self) -> None:
        self._proxy.cut()
        self._proxy.restore()

    def _forget_scripts(self) -> None:
        self.client.script_flush()

    def _with_one(self, act: Callable[[TurnedConsumer], object]) -> None:
        place = self.random.randrange(CONSUMERS)
        consumer = self._consumers[place]
        try:
            act(consumer)
        except consumer.connection.connection_errors:
            self._replace(place)

    def _replace(self, place: int) -> None:
        self._proxy.restore()
        self._consumers[place].__exit__(None, None, None)
        self._consumers[place] = self._connected()

    def _connected(self) -> TurnedConsumer:
        return TurnedConsumer(self._proxied, prefetch=PREFETCH, socket_timeout=SILENCE_S)


def _text(body: bytes | str) -> str:
    return bytes(body).decode() if not isinstance(body, str) else body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("broker"), port=0) as server:
        yield server


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_to_consumers_no_message_is_gone_before_it_is_done(
    server: EmbeddedServer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StockTransport, "brpop_timeout", OFTEN_S)
    monkeypatch.setattr(AtomicTransport, "brpop_timeout", OFTEN_S)
    address = ("127.0.0.1", urlsplit(server.url).port or 0)
    with server.client() as client, TcpProxy(address) as proxy, publisher(server.url) as publish:
        client.flushall()
        scene = Scene(seed, server.url, proxy, client)
        for _ in range(STEPS):
            scene.step(publish)
            assert set(scene.published) - scene.done <= scene.on_server()
        scene.finish()
