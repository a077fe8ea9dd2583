"""What atomic takes ask of a broker, and what is said where one cannot do it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from redis import ConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError

__all__ = ["explaining_tracking", "lacks_protocol"]

CURE = (
    "atomic takes need it: set TRADEPOOL_BROKER_TRANSPORT=celery, or use a server that can (Redis 7 or later)"
)


def lacks_protocol(usual: Mapping[str, Any], error: RedisError) -> ResponseError | None:
    """What to raise in place of `error` where protocol 3 is what the broker lacks; None where it is not.

    A broker, or a proxy before it, that does not know HELLO answers in many ways, one with a password as if
    that were wrong. So it is asked once more: `usual` are the parameters of a connection of redis-py, and one
    that works with protocol 2 only has said it.
    """
    pool = ConnectionPool(**{**usual, "protocol": 2})
    try:
        Redis(connection_pool=pool).ping()
    except RedisError:
        return None
    finally:
        pool.disconnect()
    return ResponseError(f"the broker does not speak protocol 3 (HELLO), it answers: {error}; {CURE}")


@contextmanager
def explaining_tracking() -> Iterator[None]:
    """Add the cure to the server's refusal of CLIENT TRACKING."""
    try:
        yield
    except ResponseError as error:
        raise type(error)(f"{error} (CLIENT TRACKING); {CURE}") from error
