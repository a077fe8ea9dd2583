"""Several commands in one round trip, and nothing else: what most reads and all commits are.

redis-py's pipelines also name commands, measure them, and take each answer through its callbacks; for the 16
buckets of a page that takes as long as the server takes to answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.cluster import RedisCluster

from tradepool.store.connection import Client, routed

__all__ = ["Command", "ask_all"]

Command = tuple[Any, ...]
"""A command's name and its arguments: text, bytes and numbers."""

_CHUNK_BYTES = 1 << 16
"""What is sent at once of many commands: the server works on it while the next ones are packed."""


def ask_all(client: Client, commands: Sequence[Command], *, at: str | None = None) -> list[Any]:
    """What the server answers to each of `commands`, in order, as it comes over the wire.

    Each command is looked up when it is sent, so a sequence may make them then.
    Sent again as pipelines are when the connection is lost. Commands of a cluster go to several nodes; there
    only those will do of which it is known where their keys are.

    Raises: redis.RedisError, also for a command that was refused, after all were done; RedisClusterException.
    """
    if not commands:
        return []
    if isinstance(client, RedisCluster):
        return _ask_cluster(client, commands, at)
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        answers: list[Any] = connection.retry.call_with_retry(
            lambda: _exchange(connection, commands), lambda _: connection.disconnect()
        )
    except redis.ResponseError:
        # All answers have been read.
        raise
    except BaseException:
        # Some may still be under way.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)
    return answers


def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    connection.send_packed_command(_chunks(commands))
    read = connection.read_response
    answers: list[Any] = []
    refusal = None
    for _ in range(len(commands)):
        try:
            answers.append(read())
        except redis.ResponseError as problem:
            refusal = refusal or problem
    if refusal is not None:
        raise refusal
    return answers


def _chunks(commands: Sequence[Command]) -> Iterator[bytes]:
    """The commands as they go over the wire, in pieces of `_CHUNK_BYTES` and the rest of a command."""
    # hiredis declares a tuple of one, and takes any.
    pack: Any = pack_command
    packed: list[bytes] = []
    size = 0
    for command in commands:
        packed.append(pack(command))
        size += len(packed[-1])
        if size >= _CHUNK_BYTES:
            yield b"".join(packed)
            packed, size = [], 0
    if packed:
        yield b"".join(packed)


def _ask_cluster(client: RedisCluster, commands: Sequence[Command], at: str | None) -> list[Any]:
    cluster: Any = client
    there = {} if at is None else routed(client, at)
    if len(commands) == 1:
        return [cluster.execute_command(*commands[0], **there)]
    pipeline = cluster.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command, **there)
    answers: list[Any] = pipeline.execute()
    return answers
