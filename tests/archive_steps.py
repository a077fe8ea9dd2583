"""The steps of archiving, and a way to end a process at one of them.

Run as a program it archives the embedded pool of a folder and dies, by `os._exit`, at the step given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from tradepool import TradePool, archiving
from tradepool.archive import parts
from tradepool.archive.folder import ArchiveFolder
from tradepool.archiving import Archiving
from tradepool.store.redis_store import RedisStore

__all__ = ["KILLED", "PART_TRADES", "ROUND_TRIP", "SHARD_COUNT", "STEPS", "stop_at"]

KILLED = 9
SHARD_COUNT = 2
PART_TRADES = 4
ROUND_TRIP = 2


class Step(NamedTuple):
    """A call that archiving makes: before or after its `turn`-th time it ends."""

    owner: Any
    name: str
    after: bool
    turn: int = 1


STEPS = {
    "before a part is marked": Step(ArchiveFolder, "mark_unsettled", after=False),
    "after a part is marked": Step(ArchiveFolder, "mark_unsettled", after=True),
    "while the lines are written": Step(archiving, "stored", after=False, turn=2),
    "after a part's checksum is written": Step(parts, "seal_next", after=True),
    "before a part's checksum is settled": Step(parts, "settle_seal", after=False),
    "after a part is written": Step(archiving, "write_part", after=True),
    "after the first commit": Step(RedisStore, "commit_all", after=True),
    "after the last commit": Step(Archiving, "_commit", after=True),
    "after the journal has it": Step(Archiving, "_await_journal", after=True),
    "after a part is settled": Step(ArchiveFolder, "mark_settled", after=True),
    "after the second part is written": Step(archiving, "write_part", after=True, turn=2),
    "after the second part's first commit": Step(RedisStore, "commit_all", after=True, turn=3),
}


def stop_at(step: Step, stop: Callable[[], None], replace: Callable[[Any, str, Any], None]) -> None:
    """Have `stop` called at `step`; `replace` sets an attribute."""
    call, turns = getattr(step.owner, step.name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        turns[0] += 1
        if turns[0] == step.turn and not step.after:
            stop()
        result = call(*args, **kwargs)
        if turns[0] == step.turn and step.after:
            stop()
        return result

    replace(step.owner, step.name, counted)


def _main(folder: str, name: str) -> None:
    archiving.PART_TRADES_MAX, archiving.ROUND_TRIP_MAX = PART_TRADES, ROUND_TRIP
    stop_at(STEPS[name], lambda: os._exit(KILLED), setattr)
    with TradePool.embedded(folder, shard_count=SHARD_COUNT) as pool:
        pool.archive_closed_trades()


if __name__ == "__main__":
    _main(*sys.argv[1:])
