"""The fence: writers can commit only on a server that recovery has brought up to the journal.

The commit script is the fence's key. Writers call it by hash and never load it; a server that restarts
or takes over from another does not have it and answers NOSCRIPT (`Fenced`) until recovery, having
replayed what the server may have lost, loads it. Recovery itself writes with `RESTORE_SCRIPT`, the same
text under another hash.

Each opening has a key of its own: the script ends in the name of the *generation*, which stands in the
data and so reaches replicas. A former primary keeps the scripts of its time; when it is promoted once
more, its data names a generation whose script it never got (docs/adr/0027). On a cluster every primary
must have the script. The script that mends (`mending`) is loaded beside it and belongs to the generation too.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache
from importlib import resources
from typing import Any

from redis.cluster import RedisCluster
from redis.exceptions import MovedError

from tradepool.errors import Fenced
from tradepool.store.connection import Client, node_of
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated

__all__ = [
    "COMMIT_SCRIPT",
    "GENERATION_FIELD",
    "RESTORE_SCRIPT",
    "add_missing_scripts",
    "commit_sha",
    "current_generation",
    "is_open",
    "open_fence",
    "repair_sha",
    "void_generation",
]

COMMIT_SCRIPT = (resources.files("tradepool.store") / "lua" / "commit.lua").read_text(encoding="utf-8")
_REPAIR_SCRIPT = (resources.files("tradepool.store") / "lua" / "repair.lua").read_text(encoding="utf-8")
RESTORE_SCRIPT = f"{COMMIT_SCRIPT}\n-- Sent by recovery, whole: running it must not open the fence.\n"

GENERATION_FIELD = "generation"
"""Field of `Keys.meta`: another random text each time a recovery begins to write, or opens the fence."""

_GENERATION_BYTES = 8
_LOOKS_MAX = 4


@lru_cache(maxsize=16)
def commit_sha(generation: str) -> str:
    """The hash by which the commit script is called in `generation`."""
    return hashlib.sha1(_commit_script(generation).encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=16)
def repair_sha(generation: str) -> str:
    """The hash by which the script that mends is called in `generation`."""
    return hashlib.sha1(_repair_script(generation).encode(), usedforsecurity=False).hexdigest()


def current_generation(client: Client, guess: str = "") -> str:
    """The generation of a server that accepts commits; one round trip when it is still `guess`.

    Raises: Fenced while the server waits for recovery, StoreUnavailable.
    """
    for _ in range(_LOOKS_MAX):
        with translated():
            found, is_loaded = _look(client, guess)
        if found == guess:
            if is_loaded:
                return found
            break
        guess = found
    raise Fenced("the server has restarted and recovery has not opened it yet")


def is_open(client: Client) -> bool:
    """Whether the server accepts commits. Raises: StoreUnavailable."""
    try:
        current_generation(client)
    except Fenced:
        return False
    return True


def open_fence(client: Client) -> None:
    """Let writers in; only after the store holds everything the journal holds.

    What processes have cached about the store before is void from here on (`RedisStore.revision`).

    Raises: StoreUnavailable.
    """
    generation = void_generation(client)
    with translated():
        # On a cluster it goes to every primary.
        client.script_load(_repair_script(generation))
        client.script_load(_commit_script(generation))


def add_missing_scripts(client: Client) -> None:
    """Give a server that is open what the release that opened it did not have yet; harmless elsewhere.

    For the journal's owner, who alone opens servers. Raises: StoreUnavailable, Fenced while it waits.
    """
    script = _repair_script(current_generation(client))
    with translated():
        client.script_load(script)


def void_generation(client: Client) -> str:
    """Begin another generation, in which the fence is closed; its name.

    For recovery before it writes anything: what it writes is no state that was seen under the old name.

    Raises: StoreUnavailable.
    """
    generation = secrets.token_hex(_GENERATION_BYTES)
    with translated():
        client.hset(Keys.meta, GENERATION_FIELD, generation)
    return generation


def _commit_script(generation: str) -> str:
    return f"{COMMIT_SCRIPT}\n-- Generation {generation}\n"


def _repair_script(generation: str) -> str:
    return f"{_REPAIR_SCRIPT}\n-- Generation {generation}\n"


def _look(client: Client, guess: str) -> tuple[str, bool]:
    """The generation, and whether the script of generation `guess` is loaded, of one moment."""
    sha = commit_sha(guess)
    if not isinstance(client, RedisCluster):
        pipeline = client.pipeline(transaction=True)
    else:
        # All primaries first: a recovery after this look at them has changed the generation by then.
        if not all(client.script_exists(sha)):
            return _generation(client), False
        pipeline = client.get_redis_connection(node_of(client, Keys.meta)).pipeline(transaction=True)
    pipeline.hget(Keys.meta, GENERATION_FIELD)
    pipeline.script_exists(sha)
    try:
        generation, loaded = pipeline.execute()
    except MovedError:
        # Only a command of the cluster's own client learns where the key is now; the next look goes there.
        return _generation(client), False
    return text_of(generation or ""), all(loaded)


def _generation(client: Client) -> str:
    with translated():
        found: Any = client.hget(Keys.meta, GENERATION_FIELD)
    return text_of(found or "")
