"""redis-py's errors as ours: the one place where they are told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import (
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

from tradepool.errors import Corrupt, Fenced, Misconfigured, StoreUnavailable

__all__ = ["text_of", "translated"]

_REFUSED = (redis.AuthenticationError, AuthorizationError, NoPermissionError)
_AWAY = (redis.ConnectionError, redis.TimeoutError, ClusterDownError, TryAgainError)
_NOT_NOW = re.compile(r"(^|caused error: )(MISCONF|NOREPLICAS|BUSY) ")
"""A disk that is full under the append-only file; too few replicas; a script that runs too long."""
_WRONG_TYPE = re.compile(r"(^|caused error: )WRONGTYPE ")


@contextmanager
def translated() -> Iterator[None]:
    """Run calls of redis-py; what they raise comes out as errors of tradepool.

    Raises: StoreUnavailable (unreachable, loading, out of memory, read-only), Fenced, Misconfigured
    (wrong password or rights), Corrupt (a key of ours holds another type).
    """
    try:
        yield
    except NoScriptError as problem:
        raise Fenced("the server has restarted and recovery has not opened it yet") from problem
    except _REFUSED as problem:
        raise Misconfigured(f"the server refuses us: {problem}; check TRADEPOOL_REDIS_URL") from problem
    except _AWAY as problem:
        raise StoreUnavailable(f"the server cannot be reached: {problem}") from problem
    except OutOfMemoryError as problem:
        raise StoreUnavailable("the server is out of memory; raise its maxmemory") from problem
    except ReadOnlyError as problem:
        raise StoreUnavailable("the server is a read-only replica; a failover is under way") from problem
    except redis.ResponseError as problem:
        if _NOT_NOW.search(str(problem)):
            raise StoreUnavailable(f"the server does not write now: {problem}") from problem
        if _WRONG_TYPE.search(str(problem)):
            raise Corrupt(f"a key holds what it should not: {problem}") from problem
        raise


def text_of(value: bytes | str) -> str:
    """A server's answer as text, whether or not the client decodes its answers."""
    return value.decode() if isinstance(value, bytes) else value
