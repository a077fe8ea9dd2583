"""What the journal has of some records: the newest version of each, and whether they follow each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from tradepool.audit.repair.fixes import Tools
from tradepool.errors import JournalUnavailable
from tradepool.files.lines import JournalLine
from tradepool.files.reading import read_lines
from tradepool.model import codec
from tradepool.model.counters import add_counters, contribution

__all__ = ["Journaled", "archived_counts", "await_journal", "newest_records"]

JOURNAL_WAIT_S = 30.0
"""How long a repair waits for the journal to have what the store has."""


class Journaled(msgspec.Struct, kw_only=True):
    """The newest journaled version of a record."""

    shard: int
    line: JournalLine
    is_chain: bool
    """Whether each version follows the one before it; recovery refuses the record otherwise."""


def await_journal(tools: Tools, shards: Iterable[int]) -> None:
    """Wait until the journal has what the shards hold.

    Raises: JournalUnavailable, also where a position cannot be read; StoreUnavailable.
    """
    wanted = sorted(set(shards))
    positions = dict(zip(wanted, tools.store.positions(wanted), strict=True))
    try:
        tools.watermark.wait(positions, JOURNAL_WAIT_S)
    except ValueError as problem:
        raise JournalUnavailable(f"a position cannot be read: {problem}") from problem


def newest_records(tools: Tools, is_wanted: Callable[[JournalLine], bool]) -> dict[str, Journaled]:
    """By record id, of all lines that are wanted; reads the whole journal.

    Raises: as `read_lines`.
    """
    found: dict[str, Journaled] = {}
    for line in read_lines(tools.journal):
        if is_wanted(line):
            before = found.get(line.record_id)
            found[line.record_id] = Journaled(shard=line.shard, line=line, is_chain=_follows(line, before))
    return found


def archived_counts(tools: Tools, shard: int, trade_ids: frozenset[str]) -> dict[str, int] | None:
    """What those trades counted when they were archived; None where the journal lacks one of them.

    Raises: as `read_lines`.
    """

    def is_wanted(line: JournalLine) -> bool:
        return line.shard == shard and line.kind == codec.TRADE_KIND and line.record_id in trade_ids

    found = newest_records(tools, is_wanted) if trade_ids else {}
    if found.keys() != trade_ids:
        return None
    total: dict[str, int] = {}
    for journaled in found.values():
        add_counters(total, contribution(codec.decode_trade(bytes(journaled.line.record))))
    return total


def _follows(line: JournalLine, before: Journaled | None) -> bool:
    if before is None:
        return line.version == 1 and not line.previous
    return before.is_chain and (line.version, line.previous) == (before.line.version + 1, before.line.digest)
