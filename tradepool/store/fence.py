"""The fence: writers can commit only on a server that recovery has brought up to the journal.

The commit script is the fence's key. Writers call it by hash and never load it; a server that restarts
or takes over from another has forgotten it and answers NOSCRIPT (`Fenced`) until recovery, having
replayed what the server may have lost, loads it again. Recovery itself writes with `RESTORE_SCRIPT`,
the same text under another hash.
"""

from __future__ import annotations

import hashlib
import secrets
from importlib import resources

import redis

from tradepool.store.keys import Keys
from tradepool.store.translation import translated

__all__ = ["COMMIT_SCRIPT", "COMMIT_SHA", "GENERATION_FIELD", "RESTORE_SCRIPT", "is_open", "open_fence"]

COMMIT_SCRIPT = (resources.files("tradepool.store") / "lua" / "commit.lua").read_text(encoding="utf-8")
COMMIT_SHA = hashlib.sha1(COMMIT_SCRIPT.encode(), usedforsecurity=False).hexdigest()
RESTORE_SCRIPT = f"{COMMIT_SCRIPT}\n-- Sent by recovery, whole: running it must not open the fence.\n"

GENERATION_FIELD = "generation"
"""Field of `Keys.meta`: another random text each time the fence opens."""

_GENERATION_BYTES = 8


def is_open(client: redis.Redis) -> bool:
    """Whether the server accepts commits. Raises: StoreUnavailable."""
    with translated():
        return all(client.script_exists(COMMIT_SHA))


def open_fence(client: redis.Redis) -> None:
    """Let writers in; only after the store holds everything the journal holds.

    What processes have cached about the store before is void from here on (`RedisStore.revision`).

    Raises: StoreUnavailable.
    """
    with translated():
        client.hset(Keys.meta, GENERATION_FIELD, secrets.token_hex(_GENERATION_BYTES))
        client.script_load(COMMIT_SCRIPT)
