"""The wall clock, without a step ahead that nobody has confirmed: what is old by it may be moved away.

The time since the machine was started goes on evenly whatever the wall clock is set to. A file keeps what
both said when this was last asked; how far the wall clock has gone beyond the other since then is a step.
Steps of up to an hour are taken for corrections. After a restart of the machine there is nothing to compare
with, and the wall clock is believed.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from tradepool.files.durable import replacing
from tradepool.logger import Logger

__all__ = ["STEP_MAX_US", "Uptime", "steady_now_us", "uptime"]

log = Logger(__name__)

STEP_MAX_US = 3600 * 1_000_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    """How long the machine has been up."""

    boot_id: str
    """Another one after each start."""
    since_us: int
    """µs since that start, sleep included."""


class _Mark(Uptime, frozen=True, kw_only=True):
    wall_us: int


def uptime() -> Uptime | None:
    """As the kernel tells it; None on a system that does not."""
    try:
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        return Uptime(boot_id=boot_id, since_us=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
    except (OSError, AttributeError):
        return None


def steady_now_us(path: Path, wall_us: int, up: Uptime | None) -> int:
    """`wall_us`, or earlier: where the clock was set ahead by more than an hour, as if it had not been.

    `path` keeps what was seen; without it the clock is believed. One call at a time is the caller's promise.

    Raises: OSError.
    """
    if up is None:
        return wall_us
    mark = _read(path)
    if mark is not None and mark.boot_id == up.boot_id:
        expected_us = mark.wall_us + up.since_us - mark.since_us
        if wall_us - expected_us > STEP_MAX_US:
            log.warning(
                "the clock was set ahead, and time is counted as if it had not been; if it is right now, "
                "remove the file",
                ahead_s=(wall_us - expected_us) // 1_000_000,
                file=str(path),
            )
            return expected_us
    with replacing(path) as file:
        file.write(
            msgspec.json.encode(_Mark(boot_id=up.boot_id, since_us=up.since_us, wall_us=wall_us)) + b"\n"
        )
    return wall_us


def _read(path: Path) -> _Mark | None:
    """What was seen last; None where nothing is, or nothing that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Mark)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
