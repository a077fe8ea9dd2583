"""Parked commands go back to the queue whose workers can apply them."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import pytest

from tradepool import wire
from tradepool.fleet.dead_letters import DeadLetters
from tradepool.model.commands import TradeCommand
from tradepool.model.token_commands import TokenCommand


def parked(payload: dict[str, Any]) -> str:
    body = json.dumps({"reason": {}, "task": wire.APPLY_CHANGES, "payload": payload}).encode()
    return json.dumps({"body": base64.b64encode(body).decode()})


@pytest.mark.parametrize(
    ("kinds", "queue"), [(TradeCommand, wire.QUEUE_TRADES), (TokenCommand, wire.QUEUE_TOKENS)]
)
def test_every_kind_of_command_is_sent_to_its_own_queue(settings, redis_client, kinds, queue):
    ops = [kind.__struct_config__.tag for kind in get_args(kinds)]
    for op in ops:
        redis_client.lpush(wire.QUEUE_DEAD, parked({"op": op}))
    with DeadLetters(settings) as dead:
        assert dead.replay() == (len(ops), 0)
        assert dead.count() == 0
    assert redis_client.llen(queue) == len(ops)
