"""From an import file into a pool: in batches, durable, as often as one likes with the same end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from tradepool.batching import batched
from tradepool.errors import IdempotencyConflict, Rejected
from tradepool.importers.carrying import BATCH_MAX, carried_on, command_id
from tradepool.importers.detect import Format
from tradepool.importers.grouping import MarketKey, Resolved, key_of, resolved
from tradepool.importers.known_fills import KnownMarket
from tradepool.importers.opening import ImportFile, open_import
from tradepool.importers.ports import Pool
from tradepool.importers.rows import (
    Defaults,
    IdleRow,
    ImportReport,
    MarketHistory,
    Refusal,
    RefusedRow,
    RepeatedRow,
    TradeRow,
)
from tradepool.model.commands import AddTrade
from tradepool.model.kinds import Market, Source
from tradepool.model.receipt import Receipt
from tradepool.model.trade import Trade
from tradepool.narrowing import LIMIT_MAX

__all__ = ["Progress", "add_command", "import_file", "import_opened"]

Progress = Callable[[int, int | None], None]
"""Told how many rows are done; how many there are is not known before the end."""


def import_file(  # noqa: PLR0913 - each is a fact that some files do not tell
    pool: Pool,
    path: str | Path,
    *,
    file_format: Format = Format.AUTO,
    user: str | None = None,
    source: Source | None = None,
    exchange: str | None = None,
    account: str | None = None,
    market: Market | None = None,
    contract_size: Decimal | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring every trade of a file (or of a folder with the old bot's two files) into the pool.

    `user` to `contract_size` are used where the file says nothing. Ids and command ids follow from the
    content: a second import changes nothing and reports every trade as duplicate, and one that was broken
    off can be repeated. A trade that the pool has in an earlier state is carried on to the file's. What
    is reported as applied is durable.

    Raises: Rejected when the file cannot be imported at all (a row that cannot is in the report);
    whatever `pool.apply` raises for a whole batch.
    """
    defaults = Defaults(
        user=user,
        source=source,
        exchange=exchange,
        account=account,
        market=market,
        contract_size=contract_size,
    )
    opened = open_import(Path(path), file_format=file_format, defaults=defaults)
    return import_opened(pool, opened, progress=progress)


def import_opened(pool: Pool, opened: ImportFile, *, progress: Progress | None = None) -> ImportReport:
    """`import_file` of a file that is open already: what is wrong with the file shows before the pool."""
    tally = _Tally()
    entries = resolved(opened.entries, lambda histories: _known_markets(pool, histories))
    for batch in batched(_trade_rows(entries, tally), BATCH_MAX):
        for row, result in zip(batch, _apply(pool, batch, opened.modified_at), strict=True):
            tally.count_result(row, result)
        if progress is not None:
            progress(tally.read, None)
    return tally.report(opened.format)


def add_command(row: TradeRow, *, now_us: int) -> AddTrade:
    """The command that adds the row's trade; its id follows from the content. `now_us` stands in for the
    time of a row that has none.
    """
    return AddTrade(
        command_id=command_id("add", row.trade),
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
    idle: list[Refusal] = field(default_factory=list)

    def count_row(self, entry: Resolved) -> None:
        """A row as the file has it."""
        self.read += 1
        match entry:
            case IdleRow(position=position, reason=reason):
                self.idle.append(Refusal(position, _printable(reason)))
            case TradeRow(is_further=True):
                self.read -= 1
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
            self.read += row.is_further
            self._refuse(row.position, str(result))
        elif row.is_further:
            return
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
            idle=tuple(self.idle),
        )

    def _merge(self, rows: int) -> None:
        self.read += rows
        self.merged += rows

    def _refuse(self, position: str, reason: str) -> None:
        self.refused.append(Refusal(position, _printable(reason)))


def _printable(reason: str) -> str:
    # A damaged file has bytes that are no text, and no terminal or JSON document takes them.
    return reason.encode("utf-8", "backslashreplace").decode()


def _trade_rows(entries: Iterable[Resolved], tally: _Tally) -> Iterator[TradeRow]:
    for entry in entries:
        tally.count_row(entry)
        if isinstance(entry, TradeRow):
            yield entry


def _apply(pool: Pool, batch: list[TradeRow], modified_at: int) -> Iterator[Receipt | Rejected]:
    results = pool.apply([add_command(row, now_us=modified_at) for row in batch])
    for row, result in zip(batch, results, strict=True):
        if isinstance(result, IdempotencyConflict):
            yield carried_on(pool, row, result, modified_at)
        else:
            yield result


def _known_markets(pool: Pool, histories: Sequence[MarketHistory]) -> dict[MarketKey, KnownMarket]:
    """What the pool has of the histories' markets, from all trades of their users."""
    known = {key_of(history): KnownMarket() for history in histories}
    for user in sorted({history.user for history in histories}):
        for trade in _trades_of(pool, user):
            if market := known.get(key_of(trade)):
                market.add(trade)
    return known


def _trades_of(pool: Pool, user: str) -> Iterator[Trade]:
    cursor = None
    while True:
        page = pool.get_trades_by_user(user, limit=LIMIT_MAX, cursor=cursor)
        yield from page.trades
        if (cursor := page.cursor) is None:
            return
