"""The broker restarts under load: no worker ends, none falls silent, nothing is lost or doubled."""

from __future__ import annotations

import logging
import signal

import pytest
import redis
from kombu import Connection, transport
from kombu.transport.redis import Channel, QoS
from redis.lock import Lock

from tasks import reliability
from tasks.config import celery_settings
from tasks.transport import choose_transport
from tests.fleet.conftest import Fleet
from tests.fleet.nodes import WorkerNode
from tests.fleet.trades import journaled_versions, new_trades
from tests.waiting import eventually
from tradepool.client import PoolClient
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings
from tradepool.store.address import broker_address

CONFIRM_S = 60.0
RESTARTS_MAX = 20
"""Plain Celery ended over two of five, one way or the other."""
RESTARTS = 6
QUEUE, NAP = "naps", "plain.nap"
"""As in tests/fleet/plain.py, whose import wants a broker."""
NAPS = 200
TAKEN = 40


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch):
    """kombu's own methods, put back for one test."""
    reliability.guard_restarts()
    reliability.guard_acknowledgements()
    for name in ("restore_unacked_once", "ack", "reject"):
        monkeypatch.setattr(QoS, name, getattr(QoS, name).__wrapped__)
    monkeypatch.setattr(Channel, "_connparams", Channel._connparams.__wrapped__)


@pytest.fixture
def kombus_own(monkeypatch: pytest.MonkeyPatch):
    """kombu's own transport, whichever this process has chosen before."""
    monkeypatch.setattr(transport, "TRANSPORT_ALIASES", dict(transport.TRANSPORT_ALIASES))
    monkeypatch.setattr(transport, "_transport_cache", {})
    choose_transport("celery")


@pytest.fixture
def holding_channel(server: EmbeddedServer, kombus_own: None):
    """A channel that holds one unacknowledged message."""
    with Connection(server.url.replace("unix://", "redis+socket://").removesuffix("?db=0")) as connection:
        channel = connection.channel()
        channel.queue_declare("held")
        channel.basic_publish(channel.prepare_message("{}"), exchange="", routing_key="held")
        channel.held = channel.basic_get("held")
        attached_to = channel.connection
        yield channel
        channel.connection = attached_to
        channel.qos._delivered.clear()
        channel.queue_delete("held")


def lose_connection(channel) -> None:
    """What a restart leaves behind: the channel without its connection."""
    channel._disconnect_pools()
    channel.connection = None


def test_without_the_guard_a_lost_connection_raises(unguarded, holding_channel):
    lose_connection(holding_channel)
    with pytest.raises(AttributeError):
        holding_channel.held.ack_log_error(logging.getLogger(), holding_channel.connection_errors)
    with pytest.raises(AttributeError):
        holding_channel.qos.restore_unacked_once()


def test_with_the_guard_it_is_left_to_the_visibility_timeout(
    holding_channel, monkeypatch: pytest.MonkeyPatch
):
    reliability.guard_restarts()
    lose_connection(holding_channel)
    holding_channel.held.ack_log_error(logging.getLogger(), holding_channel.connection_errors)
    holding_channel.held.reject_log_error(
        logging.getLogger(), holding_channel.connection_errors, requeue=True
    )
    holding_channel.qos.restore_unacked_once()
    assert not holding_channel.qos._delivered


@pytest.mark.parametrize(("name", "options"), [("ack", {}), ("reject", {}), ("reject", {"requeue": True})])
def test_a_message_that_cannot_be_settled_makes_room_for_the_next_one(
    holding_channel, monkeypatch: pytest.MonkeyPatch, name, options
):
    """A worker of one thread took nothing more after a wire had died while it acknowledged."""
    reliability.guard_acknowledgements()
    qos, held = holding_channel.qos, holding_channel.held
    qos.prefetch_count = 1
    assert not qos.can_consume()

    def dead_wire(*_: object, **__: object):
        raise redis.TimeoutError("timed out")

    with monkeypatch.context() as patched:
        patched.setattr(redis.Redis, "pipeline", dead_wire)
        with pytest.raises(redis.TimeoutError):
            getattr(qos, name)(held.delivery_tag, **options)
    assert qos.can_consume()
    assert holding_channel.client.hexists(qos.unacked_key, held.delivery_tag)
    holding_channel.client.delete(qos.unacked_key, qos.unacked_index_key)


def test_the_guard_is_set_once_and_restores_as_before_while_connected(holding_channel):
    reliability.guard_restarts()
    guarded = QoS.restore_unacked_once
    reliability.guard_restarts()
    assert QoS.restore_unacked_once is guarded
    holding_channel.qos.restore_unacked_once()
    assert holding_channel._size("held") == 1


def test_a_worker_that_dies_over_the_look_for_overdue_messages_keeps_others_from_it_but_shortly(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
):
    """kombu's lock would last for 300 s."""
    options = celery_settings(Settings(redis_url=server.url))["broker_transport_options"]
    address = broker_address(Settings(redis_url=server.url)).celery_url
    monkeypatch.setattr(Lock, "release", lambda _: None)
    with Connection(address, transport_options=options) as connection, server.client() as client:
        channel = connection.channel()
        channel.qos.restore_visible(interval=options["unacked_restore_throttle"])
        assert 0 < client.ttl(channel.unacked_mutex_key) <= 2 * options["unacked_restore_interval"]
        client.delete(channel.unacked_mutex_key)


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_workers_live_through_restarts_of_the_server(own_fleet: Fleet, how: signal.Signals):
    pids = [node.process.pid for node in own_fleet.nodes]
    with PoolClient.connect(own_fleet.settings, batch_max=20, linger_ms=1, resend_s=3) as client:
        trade_ids: list[str] = []
        for round_number in range(12):
            trade_ids += client.add_trades(new_trades(100))
            if round_number in (3, 7):
                own_fleet.restart_server(how)
        assert all(client.confirm(trade_ids, CONFIRM_S).values())
    assert [node.process.pid for node in own_fleet.nodes if node.process.exit_code is None] == pids
    versions = journaled_versions(own_fleet.settings)
    assert {trade_id: versions[trade_id, 1] for trade_id in trade_ids} == dict.fromkeys(trade_ids, 1)
    eventually(lambda: own_fleet.pool.check_all_trades(deep=True).ok)


def ends_within(fleet: Fleet, worker: WorkerNode, restarts: int) -> bool:
    """Whether the worker ends over one of so many graceful restarts of the server, at work each time."""
    for _ in range(restarts):
        received = worker.logs().count(" received")
        for _ in range(NAPS):
            fleet.foreign.send_task(NAP, queue=QUEUE)
        eventually(lambda received=received: worker.logs().count(" received") > received + TAKEN)
        connected = worker.logs().count("Connected to")
        fleet.restart_server(signal.SIGTERM)
        eventually(
            lambda connected=connected: (
                worker.process.exit_code is not None or worker.logs().count("Connected to") > connected
            ),
            CONFIRM_S,
        )
        if worker.process.exit_code is not None:
            return True
    return False


@pytest.mark.slow
def test_plain_celery_ends_over_graceful_restarts_that_a_guarded_worker_lives_through(bare_fleet: Fleet):
    """The test of the test: what the guard is for is still there, and the guard is what helps."""
    plain = bare_fleet.start(QUEUE, threads=8, app="tests.fleet.plain")
    plain.wait_ready()
    assert ends_within(bare_fleet, plain, RESTARTS_MAX)
    assert "Unrecoverable error: AttributeError" in plain.logs()
    guarded = bare_fleet.start(QUEUE, threads=8, app="tests.fleet.plain_guarded")
    guarded.wait_ready()
    assert not ends_within(bare_fleet, guarded, RESTARTS)
    assert "Unrecoverable" not in guarded.logs()
