"""Every Celery setting of the fleet, each with its reason. Numbers ending in `_S` are seconds."""

from __future__ import annotations

from typing import Any

from beat_schedule import beat_schedule
from tasks.routing import TASK_ROUTES, task_queues
from tradepool import wire
from tradepool.settings import Settings
from tradepool.store.address import broker_address

__all__ = ["celery_settings"]

PUBLISH_ATTEMPTS_MAX = 40
PUBLISH_PAUSE_MAX_S = 0.5
HEALTH_CHECK_S = 10
RESULT_KEPT_S = 3600
RESTORE_EVERY_S = 5
RESTORE_LOCK_S = 10
BEAT_LOOP_MAX_S = 1.0
BEAT_LOCK_S = 10


def celery_settings(settings: Settings) -> dict[str, Any]:
    """The configuration of `tasks.app` for one pool's settings."""
    return {
        **_connections(settings),
        **_messages(settings.pnl_devices),
        **_delivery(),
        **_worker(),
        **_beat(settings),
    }


def _connections(settings: Settings) -> dict[str, Any]:
    broker = broker_address(settings)
    return {
        # One server for queue and store unless the operator splits them: a crash then rolls both back
        # to one consistent prefix.
        "broker_url": broker.celery_url,
        # The certificates of rediss://, where they are not the system's.
        "broker_use_ssl": broker.celery_tls,
        # A worker that gives up on its broker is a worker short; the supervisor can do no better than
        # start one that waits as well.
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # An out-of-memory server answers with errors instead of closing the connection. Reconnect: it
        # also keeps the worker from popping messages that the server could not note as unacknowledged.
        "broker_channel_error_retry": True,
        "broker_transport_options": _transport_options(settings),
        # Only for callers that ask with `ignore_result=False`; nothing is written otherwise.
        "result_backend": broker.celery_url,
        "redis_backend_use_ssl": broker.celery_tls,
        # Answers are for a caller that waits, not a store: the pool is the store.
        "result_expires": RESULT_KEPT_S,
    }


def _transport_options(settings: Settings) -> dict[str, Any]:
    return {
        # An unacknowledged message goes to another worker after this long; above every wait of a task,
        # or a slow task would run twice at once.
        "visibility_timeout": settings.visibility_timeout_s,
        # How often overdue messages are looked for; the default of 10 s × every tenth time is slow.
        "unacked_restore_interval": min(RESTORE_EVERY_S, settings.visibility_timeout_s),
        "unacked_restore_throttle": 1,
        # Who looks holds a lock. One that dies over it, or loses its wire, keeps all others from looking for
        # the default of 300 s; and two that look at once do no harm, each message is moved in a transaction.
        "unacked_mutex_expire": RESTORE_LOCK_S,
        # A silent server must not hang the worker's only event loop.
        "socket_timeout": settings.socket_timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
        # Half-open connections (a lost peer without a FIN) are noticed by the kernel and by pings.
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_S,
    }


def _messages(devices: int) -> dict[str, Any]:
    return {
        # JSON is all the fleet reads: a pickle is code from whoever can reach the broker.
        "accept_content": [wire.SERIALIZER],
        "task_serializer": wire.SERIALIZER,
        "result_serializer": wire.SERIALIZER,
        "event_serializer": wire.SERIALIZER,
        # Explicit queues only: a misspelt queue name fails at the caller, not in a list nobody reads.
        "task_queues": task_queues(devices),
        "task_routes": TASK_ROUTES,
        "task_default_queue": wire.QUEUE_TRADES,
        "task_create_missing_queues": False,
        # A broker restart of a few seconds must not surface in the bot that publishes.
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": PUBLISH_ATTEMPTS_MAX,
            "interval_start": 0,
            "interval_step": PUBLISH_PAUSE_MAX_S / 5,
            "interval_max": PUBLISH_PAUSE_MAX_S,
        },
    }


def _delivery() -> dict[str, Any]:
    return {
        # Acknowledged means journaled: the message stays the broker's until the task has returned.
        "task_acks_late": True,
        # A killed prefork child must not take its message along: Celery sends a copy, which counts how often
        # that has happened, and gives the message back if it cannot.
        "task_reject_on_worker_lost": True,
        "task_retry_on_worker_lost": True,
        # Results cost two writes per message; callers that want one ask for it.
        "task_ignore_result": True,
        # One message per thread at a time: a dead worker then holds few, and queues stay fair. The gpu
        # worker is started with --disable-prefetch besides, its ticks would be old when their turn came.
        "worker_prefetch_multiplier": 1,
        # The reduction after a reconnect shrinks the prefetch for tasks that will never be acknowledged
        # on the new connection; the worker would crawl.
        "worker_enable_prefetch_count_reduction": False,
        # A running task holds no broker connection; let it finish, its redelivery is a duplicate.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def _worker() -> dict[str, Any]:
    return {
        # Undecodable and unknown messages are parked, not dropped.
        "worker_consumer": "tasks.unreadable:ParkingConsumer",
        # Chunks make events cheap, and Flower lives on them.
        "worker_send_task_events": True,
        # Standard output belongs to whoever starts the worker.
        "worker_redirect_stdouts": False,
        # There are no rate limits; the bookkeeping per message is for nothing.
        "worker_disable_rate_limits": True,
    }


def _beat(settings: Settings) -> dict[str, Any]:
    return {
        # Two beats, one leader: a machine may die without the clock stopping.
        "beat_scheduler": "tasks.beat:TickScheduler",
        "beat_schedule": beat_schedule(settings),
        # The shortest entry runs every second.
        "beat_max_loop_interval": min(BEAT_LOOP_MAX_S, settings.mark_every_s),
        # Where RedBeat keeps its clock is told by `tasks.beat`: Celery shows a setting of its URL, password
        # and all, to whoever asks a worker for its configuration.
        # At least five loops long, or a slow tick loses the lock and with it the leader.
        "redbeat_lock_timeout": BEAT_LOCK_S,
        # RedBeat's client does not take over the transport options above.
        "redbeat_redis_options": {
            "socket_timeout": settings.socket_timeout_s,
            "socket_connect_timeout": settings.connect_timeout_s,
            "retry_period": -1,
        },
    }
