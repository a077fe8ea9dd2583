"""Connections to the store's server."""

from __future__ import annotations

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from tradepool.errors import Misconfigured
from tradepool.settings import Settings

__all__ = ["connect"]

_SCHEMES = ("redis://", "rediss://", "unix://")
_RETRIES_MAX = 3
_BACKOFF_BASE_S = 0.02
_BACKOFF_MAX_S = 0.5
_HEALTH_CHECK_S = 30


def connect(settings: Settings) -> redis.Redis:
    """A client of `settings.redis_url`; it connects on first use, answers in bytes, serves threads.

    A lost connection or a timeout is tried again up to three times. That is safe for commits: a
    commit that went through without its answer arriving fails its own version check the second time.

    Raises: Misconfigured when the URL is not one; nothing about an unreachable server yet.
    """
    url = settings.redis_url
    if not url.startswith(_SCHEMES):
        raise Misconfigured(f"TRADEPOOL_REDIS_URL must begin with one of {', '.join(_SCHEMES)}")
    try:
        return redis.Redis.from_url(
            url,
            # One shape of answers: RESP3 returns maps and pushes where our parsing expects lists.
            protocol=2,
            socket_timeout=settings.socket_timeout_s,
            socket_connect_timeout=settings.connect_timeout_s,
            health_check_interval=_HEALTH_CHECK_S,
            retry=Retry(ExponentialWithJitterBackoff(base=_BACKOFF_BASE_S, cap=_BACKOFF_MAX_S), _RETRIES_MAX),
        )
    except ValueError:
        # The problem's own words quote the URL, where a password with a / or # in it is taken for a port.
        raise Misconfigured(
            "TRADEPOOL_REDIS_URL cannot be read; write the / # ? @ and % of a password as %2F %23 %3F %40 %25"
        ) from None
