"""Sending commits so that one whose answer was lost is known for what it is.

The client sends a command again whose answer did not come. A commit that had gone through then meets a
conflict with itself. To decide its commands again would be wrong: what was refused at its place would
be decided on what came after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.cluster import RedisCluster

from tradepool.model.archived import Archived
from tradepool.model.codec import COMPARED_CHARS, unpack
from tradepool.model.ids import SHORT_ID_CHARS
from tradepool.store.asking import Command, ask_all
from tradepool.store.connection import Client, repeat_count, routed
from tradepool.store.draft import CommitPlan
from tradepool.store.translation import translated

__all__ = ["has_come_to", "send_plans"]


def send_plans(client: Client, sha: str, plans: Sequence[CommitPlan]) -> tuple[list[Any], set[int]]:
    """What the server answers to each plan, and which of them (by place) may have been sent before that.

    Raises: Fenced, StoreUnavailable.
    """
    count_before = repeat_count()
    commands: list[Command] = [("EVALSHA", sha, len(plan.keys), *plan.keys, *plan.argv) for plan in plans]
    with translated():
        if isinstance(client, RedisCluster):
            answers, repeated = _send_to_cluster(client, commands)
        else:
            answers, repeated = ask_all(client, commands), set()
    return answers, repeated if repeat_count() == count_before else set(range(len(plans)))


def _send_to_cluster(client: RedisCluster, commands: Sequence[Command]) -> tuple[list[Any], set[int]]:
    places = {command[_FIRST_KEY]: place for place, command in enumerate(commands)}
    repeated: set[int] = set()
    cluster: Any = client
    pipeline = cluster.pipeline(transaction=False)
    send_again = pipeline.parent_execute_command

    def note_and_send_again(*command: Any, **options: Any) -> Any:
        repeated.add(places[command[_FIRST_KEY]])
        return send_again(*command, **options)

    # The pipeline of a cluster sends one by one what has failed, past the counting `Retry`.
    pipeline.parent_execute_command = note_and_send_again
    for command in commands:
        pipeline.execute_command(*command, **routed(client, str(command[_FIRST_KEY])))
    return pipeline.execute(), repeated


def has_come_to(stored: bytes | None, after: bytes) -> bool:
    """Whether a record that is `stored` has been `after`; False also where that is not known any more.

    Every version of a record but the archived one adds a command to those it remembers. So `after` was
    there when its newest commands are where they would be by now.

    Raises: Corrupt.
    """
    if stored is None or stored[:COMPARED_CHARS] == after[:COMPARED_CHARS]:
        return stored is not None
    now, then = unpack(stored), unpack(after)
    if isinstance(then, Archived):
        # Nothing follows it.
        return False
    since = now.version - isinstance(now, Archived) - then.version
    remembered = now.applied[: len(now.applied) - since * SHORT_ID_CHARS] if since >= 0 else ""
    return remembered != "" and then.applied.endswith(remembered)


_FIRST_KEY = 3
"""Where the first key stands in EVALSHA."""
