"""Builds that are broken on purpose, so that it can be shown that the simulator notices."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

import redis

from tradepool.store import fence
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.watermark import Watermark

__all__ = ["BREAKS", "break_build", "load_the_script"]

BREAKS = {
    "fence": "whoever finds the commit script missing loads it himself",
    "ack": "a change is acknowledged as soon as the server has it",
    "fsync": "the journal's fsync does nothing",
    "version": "a commit compares nothing",
}
"""What can be broken, and how."""

_COMPARISON = re.compile(r"if #failed > 0 then\s+return failed\s+end")


def break_build(what: str) -> None:
    """Break this process and those it forks; `fence` and `fsync` are broken where they are used."""
    if what == "ack":
        Watermark.wait = lambda *_arguments: None  # type: ignore[method-assign]
    if what == "version":
        _replace_scripts(_COMPARISON.sub("", fence.COMMIT_SCRIPT))


def load_the_script(client: Client) -> None:
    """Open the fence without any recovery."""
    with contextlib.suppress(redis.RedisError):
        generation: Any = client.hget(Keys.meta, fence.GENERATION_FIELD) or b""
        client.script_load(fence._commit_script(generation.decode()))


def _replace_scripts(script: str) -> None:
    """Have every module that imported a script use `script` instead."""
    assert script != fence.COMMIT_SCRIPT, "the comparison in commit.lua is spelled otherwise now"
    restore = _COMPARISON.sub("", fence.RESTORE_SCRIPT)
    values = {"COMMIT_SCRIPT": script, "RESTORE_SCRIPT": restore}
    for module in [module for name, module in sys.modules.items() if name.startswith("tradepool.")]:
        for name, value in values.items():
            if hasattr(module, name):
                setattr(module, name, value)
