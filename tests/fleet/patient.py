"""The fleet's app over kombu's own transport, whose workers wait for a message for as long as it takes.

As it comes, the server ends such a wait after a second, and a worker that is stopped asks no more.
"""

from __future__ import annotations

from kombu.transport import redis as redis_transport

from tasks.app import app

__all__ = ["app"]

redis_transport.Transport.brpop_timeout = 0
