"""From an import file into a pool: in batches, durable, as often as one likes with the same end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tradepool.errors import IdempotencyConflict, Rejected, UnknownTrade
from tradepool.importers.detect import Format
from tradepool.importers.opening import ImportFile, open_import
from tradepool.importers.rows import Defaults, Entry, ImportReport, Refusal, RefusedRow, RepeatedRow, TradeRow
from tradepool.model import intake
from tradepool.model.commands import AddTrade, Command, UpdateTradePnl
from tradepool.model.kinds import Source
from tradepool.model.receipt import Receipt
from tradepool.model.trade import Trade

__all__ = ["BATCH_MAX", "Pool", "Progress", "add_command", "import_file", "import_opened"]

BATCH_MAX = 200
"""Commands given to the pool at once."""

Progress = Callable[[int, int], None]
"""Told how many trades are done, of how many."""

_FACTS = ("user_id", "account_id", "exchange", "symbol", "market", "side", "amount", "price")


class Pool(Protocol):
    """What an import needs of a pool."""

    def apply(self, commands: Sequence[Command]) -> Sequence[Receipt | Rejected]:
        """Apply commands in order; a receipt or a refusal for each."""
        ...

    def get_trade(self, trade_id: str) -> Trade:
        """The trade as it stands."""
        ...


def import_file(
    pool: Pool,
    path: str | Path,
    *,
    file_format: Format = Format.AUTO,
    user: str | None = None,
    source: Source | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring every trade of a file (or of a folder with the old bot's two files) into the pool.

    `user` and `source` are used where the file names none. Ids and command ids follow from the content:
    a second import changes nothing and reports every trade as duplicate, and one that was broken off can
    be repeated. A trade of the old bot that the pool has in an earlier state is carried on to the file's.
    What is reported as applied is durable.

    Raises: Rejected when the file cannot be imported at all (a row that cannot is in the report);
    whatever `pool.apply` raises for a whole batch.
    """
    defaults = Defaults(user=user, source=source)
    opened = open_import(Path(path), file_format=file_format, defaults=defaults)
    return import_opened(pool, opened, progress=progress)


def import_opened(pool: Pool, opened: ImportFile, *, progress: Progress | None = None) -> ImportReport:
    """`import_file` of a file that is open already: what is wrong with the file shows before the pool."""
    entries = list(opened.entries)
    tally = _Tally()
    for entry in entries:
        tally.count_row(entry)
    rows = [entry for entry in entries if isinstance(entry, TradeRow)]
    for start in range(0, len(rows), BATCH_MAX):
        if progress is not None:
            progress(start, len(rows))
        batch = rows[start : start + BATCH_MAX]
        for row, result in zip(batch, _apply(pool, batch, opened.modified_at), strict=True):
            tally.count_result(row, result)
    return tally.report(opened.format)


def add_command(row: TradeRow, *, now_us: int) -> AddTrade:
    """The command that adds the row's trade; its id follows from the content. `now_us` stands in for the
    time of a row that has none.
    """
    return AddTrade(
        command_id=_command_id("add", row.trade),
        as_of=now_us if row.as_of is None else row.as_of,
        trade=row.trade,
    )


@dataclass
class _Tally:
    """Counts towards the report."""

    read: int = 0
    applied: int = 0
    merged: int = 0
    duplicate: int = 0
    refused: list[Refusal] = field(default_factory=list)

    def count_row(self, entry: Entry) -> None:
        """A row as the file has it."""
        self.read += 1
        match entry:
            case RepeatedRow():
                self.duplicate += 1
            case RefusedRow(position=position, reason=reason, merged=merged):
                self._refuse(position, reason)
                self._merge(merged)
            case TradeRow(merged=merged):
                self._merge(merged)

    def count_result(self, row: TradeRow, result: Receipt | Rejected) -> None:
        """What the pool made of a row."""
        if isinstance(result, Rejected):
            self._refuse(row.position, str(result))
        elif result.outcome == "applied":
            self.applied += 1
        else:
            self.duplicate += 1

    def report(self, found: Format) -> ImportReport:
        """The report of all that was counted."""
        return ImportReport(
            format=found.value,
            read=self.read,
            applied=self.applied,
            merged=self.merged,
            duplicate=self.duplicate,
            refused=tuple(self.refused),
        )

    def _merge(self, rows: int) -> None:
        self.read += rows
        self.merged += rows

    def _refuse(self, position: str, reason: str) -> None:
        # A damaged file has bytes that are no text, and no terminal or JSON document takes them.
        printable = reason.encode("utf-8", "backslashreplace").decode()
        self.refused.append(Refusal(position, printable))


def _apply(pool: Pool, batch: list[TradeRow], modified_at: int) -> Iterator[Receipt | Rejected]:
    results = pool.apply([add_command(row, now_us=modified_at) for row in batch])
    for row, result in zip(batch, results, strict=True):
        yield _carry_on(pool, row, result, modified_at) if isinstance(result, IdempotencyConflict) else result


def _carry_on(
    pool: Pool, row: TradeRow, conflict: IdempotencyConflict, modified_at: int
) -> Receipt | Rejected:
    """Bring the same trade, imported earlier in another state, to the file's; or leave the refusal."""
    if row.report is None:
        return conflict
    try:
        stored = pool.get_trade(row.trade["trade_id"])
    except UnknownTrade:
        return conflict
    latest = intake.trade_from_dict(row.trade, now_us=modified_at, trade_id=stored.trade_id)
    facts = _FACTS if row.as_of is None else (*_FACTS, "created_at")
    if any(getattr(stored, name) != getattr(latest, name) for name in facts):
        return conflict
    if (stored.pnl_reported, stored.status) == (latest.pnl_reported, latest.status):
        return Receipt(trade_id=stored.trade_id, outcome="duplicate", version=stored.version, position="")
    report = UpdateTradePnl(
        command_id=_command_id("report", [stored.trade_id, *row.report]),
        as_of=modified_at,
        trade_id=stored.trade_id,
        pnl=row.report.pnl,
        status=row.report.status,
    )
    return pool.apply([report])[0]


def _command_id(what: str, content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return f"import:{what}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
