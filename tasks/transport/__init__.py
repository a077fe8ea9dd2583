"""How messages come from the broker: by kombu's own Redis transport, or taken atomically."""

from __future__ import annotations

from typing import Literal

from kombu import transport as kombu_transports

__all__ = ["choose_transport"]

_TRANSPORTS = {
    "celery": "kombu.transport.redis:Transport",
    "atomic": "tasks.transport.atomic:AtomicTransport",
}


def choose_transport(name: Literal["celery", "atomic"]) -> None:
    """Have this process's later connections to `redis://` and `rediss://` brokers use the transport `name`.

    By the scheme, because kombu takes the transport of a unix socket's URL from nowhere else, and Flower
    knows brokers by theirs.
    """
    for scheme in ("redis", "rediss"):
        kombu_transports.TRANSPORT_ALIASES[scheme] = _TRANSPORTS[name]
        # kombu remembers what a scheme meant when it was first asked.
        kombu_transports._transport_cache.pop(scheme, None)  # noqa: SLF001 - there is no other way
