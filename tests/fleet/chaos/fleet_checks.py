"""What must hold of the living fleet at the end of a run: nothing waits, and nobody is quiet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from celery import Celery

from tests.fleet.chaos.fleet_process import chaos_programs
from tests.fleet.chaos.stage import Stage
from tests.waiting import eventually
from tradepool import wire
from tradepool.broker import queue_named
from tradepool.store import fence
from tradepool.store.address import broker_address

__all__ = ["check_fleet", "wait_ready"]

_START_S = 120.0
_SETTLE_S = 60.0
_PING_S = 2.0
_PROBES_EACH = 8
_SHOWN_MAX = 5
_PROBES = {
    wire.QUEUE_TRADES: (wire.APPLY_CHANGES, [[]]),
    wire.QUEUE_TOKENS: ("tasks.tokens.expire_reservations", []),
    wire.QUEUE_AUDIT: ("tasks.audit.check_all_trades", []),
    wire.QUEUE_FILES: ("tasks.files.write_snapshot", []),
    wire.QUEUE_GPU: ("tasks.pnl.mark_to_market", []),
}
"""By queue: a call that any worker of it can take and that changes nothing."""


def wait_ready(stage: Stage) -> None:
    """Return once every worker answers and the store takes writes."""
    names = {program.name for program in chaos_programs(stage.settings) if "-Q" in program.arguments}
    with contextlib.closing(stage.server.client()) as client, contextlib.closing(_prober(stage)) as app:
        eventually(lambda: fence.is_open(client) and names <= _taken(app).keys(), _START_S)


def check_fleet(stage: Stage) -> list[str]:
    """Nothing waits, nothing is parked, and every worker answers and takes work."""
    found: list[str] = []
    with contextlib.closing(stage.server.client()) as broker:
        waiting: dict[str, int] = {}

        def is_empty() -> bool:
            waiting.clear()
            waiting.update(_waiting(broker))
            return not waiting

        if not _holds(is_empty):
            found.append(f"still waiting after {_SETTLE_S:g} s: {waiting} {_held(broker)}")
        if parked := broker.llen(wire.QUEUE_DEAD):
            found.append(f"{parked} messages are parked: {broker.lrange(wire.QUEUE_DEAD, 0, 0)}")
    return found + _check_workers(stage)


def _waiting(broker: Any) -> Iterator[tuple[str, int]]:
    """Messages on queues, and those that somebody has taken and not acknowledged."""
    for queue in wire.QUEUES:
        if count := broker.llen(queue):
            yield queue, count
    for key in broker.scan_iter("unacked*"):
        if broker.type(key) in (b"hash", b"zset"):
            yield key.decode(), broker.hlen(key) if broker.type(key) == b"hash" else broker.zcard(key)


def _held(broker: Any) -> list[str]:
    """Some of the messages that somebody has taken and kept."""
    held = []
    for raw in broker.hvals("unacked")[:_SHOWN_MAX]:
        message, *_ = json.loads(raw)
        headers, delivery = message["headers"], message["properties"]["delivery_info"]
        about = f"retries {headers.get('retries')}, eta {headers.get('eta')}, {delivery}"
        held.append(f"{headers.get('task')} {headers.get('id')} ({about})")
    return held


def _check_workers(stage: Stage) -> list[str]:
    """Every worker of the fleet answers a ping and has taken a message since."""
    names = {p.name: _queue_of(p.arguments) for p in chaos_programs(stage.settings) if "-Q" in p.arguments}
    with contextlib.closing(_prober(stage)) as app:
        before: dict[str, int] = {}

        def all_answer() -> bool:
            before.update(_taken(app))
            return names.keys() <= before.keys()

        if not _holds(all_answer):
            return [f"workers that do not answer: {sorted(names.keys() - before.keys())}"]
        idle = set(names)

        def all_take() -> bool:
            _send_probes(app, [names[name] for name in idle])
            idle.difference_update(name for name, taken in _taken(app).items() if taken > before.get(name, 0))
            return not idle

        return [] if _holds(all_take) else [f"workers that take no messages: {sorted(idle)}"]


def _prober(stage: Stage) -> Celery:
    address = broker_address(stage.settings).celery_url
    return Celery("chaos-prober", broker=address, set_as_current=False)


def _send_probes(app: Celery, queues: list[str]) -> None:
    """Several to each queue, as any of its workers may take them."""
    with app.connection_for_write() as connection:
        for queue in set(queues):
            task, arguments = _PROBES[queue]
            for _ in range(_PROBES_EACH):
                named = queue_named(queue)
                app.send_task(task, args=arguments, queue=named, expires=_SETTLE_S, connection=connection)


def _taken(app: Celery) -> dict[str, int]:
    """By worker that answers: how many messages it has taken since it started."""
    # A connection of its own: a kept one may be from before the server's last restart.
    with app.connection_for_write() as connection:
        answers = app.control.inspect(timeout=_PING_S, connection=connection).stats() or {}
    return {node.partition("@")[0]: sum(stats["total"].values()) for node, stats in answers.items()}


def _queue_of(arguments: tuple[str, ...]) -> str:
    return arguments[arguments.index("-Q") + 1]


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        eventually(condition, _SETTLE_S)
    except AssertionError:
        return False
    return True
