"""The old bot's two files: `trades.json`, the state, and `trade_pool.log`, the history.

`trades.json` is one array of trades, each in its latest state. `trade_pool.log` has a trade's JSON on a
line when it was added, then `Update: <id> - PNL=<pnl>, status=<status>` for each report. Only PnL and
status ever differ between the rows of one trade; all else are its facts.

**One trade, one add.** All rows of a trade, from both files, are folded into its last state here, and
that state is added. The history is not replayed change by change, because the old pool allowed what the
lifecycle rightly refuses (a completed trade partially closed again, a failed one completed), so that a
replay would end in other states and other sums than the source's; and it names no times. Folding makes
`trades.json`, `trade_pool.log` and a folder with both the same import, in any order, and a second run
changes nothing.

* An add row that repeats a state the trade has had (a redelivery, a copy in the other file, a
  `trades.json` older than the log) changes nothing. One with a state never seen is the latest: where the
  two files disagree, `trades.json` wins.
* An update whose trade no row before it has added (nor, in a folder, `trades.json`) is refused, and so is
  a row with another trade's id but other facts.
* A trade without a user takes the caller's, or is refused; one without an id gets a digest of its facts.
* The old pool let a trade name one of another user as related. Trades of a pool are related to their own
  user's only; what such a row names is kept in `extra`.
* Damaged and torn rows are refused with their place; every whole row is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tradepool.errors import IdempotencyConflict, InvalidTrade, Rejected, UnknownTrade
from tradepool.importers.detect import LEGACY_LOG, LEGACY_SNAPSHOT
from tradepool.importers.file_text import begins_array, open_text
from tradepool.importers.json_text import array_items, decode
from tradepool.importers.rows import (
    Defaults,
    Entry,
    PnlReport,
    RefusedRow,
    RepeatedRow,
    TradeRow,
    json_value,
    money_text,
    source_id,
)
from tradepool.model.kinds import Source
from tradepool.model.status_words import status_word
from tradepool.model.times import iso_time, parse_time

__all__ = ["read_legacy"]

_UPDATE = re.compile(r"Update: (?P<trade_id>\S+) - PNL=(?P<pnl>[^,]*), status=(?P<status>\w+)\s*")
_STATE = ("pnl", "status")
_MONEY = frozenset(
    {
        "amount", "price", "pnl", "deposit", "fee", "exit_price", "exit_fee", "stop_loss",
        "take_profit", "liquidation_price", "leverage", "contract_size", "funding", "interest",
    }
)  # fmt: skip
_RELATED = "related_trade_id"
_REPORTED = ("partially_closed", "completed")


class _State(NamedTuple):
    """What changes in a trade's life."""

    pnl: Any
    status: Any


@dataclass
class _Story:
    """All that the files say about one trade: the row that tells its facts, and its states in order."""

    position: str
    row: dict[str, Any]
    states: list[_State]
    told_by: set[str]
    merged: int = 0

    @property
    def related(self) -> str:
        """The id of the trade that this one names."""
        return str(self.row.get(_RELATED))

    def carry_on(self, state: _State, name: str) -> bool:
        """Take another row of this trade from file `name`; whether it told anything new."""
        is_new = state not in self.states or name not in self.told_by
        if state not in self.states:
            self.states.append(state)
        self.told_by.add(name)
        self.merged += is_new
        return is_new


def read_legacy(path: Path, defaults: Defaults) -> Iterator[Entry]:
    """Every trade of the file, or of the folder's two files, in its last state, and every row that was
    refused or repeats another.

    Refused and repeated rows come first, in their files' order, then the trades in order of first
    appearance.

    Raises: Rejected for a file that cannot be read, or a snapshot in a folder that is no array.
    """
    reader = _Reader()
    for file in _files_of(path):
        with open_text(file) as text:
            is_array = begins_array(text)
            if path.is_dir() and file.name == LEGACY_SNAPSHOT and not is_array:
                cure = "import the log alone, or mend the file"
                raise Rejected("not a JSON array", field="file", value=str(file), cure=cure)
            read = reader.read_snapshot if is_array else reader.read_log
            yield from read(text, file.name)
    yield from reader.orphans()
    for trade_id, story in reader.stories.items():
        related = reader.stories.get(story.related)
        is_foreign = related is not None and _owner(related.row, defaults) != _owner(story.row, defaults)
        yield _entry(trade_id, story, defaults, is_foreign=is_foreign)


def _files_of(path: Path) -> list[Path]:
    """The log stands before the snapshot."""
    files = [path / LEGACY_LOG, path / LEGACY_SNAPSHOT] if path.is_dir() else [path]
    return [file for file in files if file.exists() or not path.is_dir()]


class _Reader:
    """Collects the stories of both files; the log is read before the snapshot."""

    def __init__(self) -> None:
        self.stories: dict[str, _Story] = {}
        self._orphans: dict[str, list[str]] = defaultdict(list)
        self._unnamed: Counter[str] = Counter()

    def read_log(self, text: TextIO, name: str) -> Iterator[Entry]:
        """The rows of the log that do not become part of a story."""
        for number, line in enumerate(text, 1):
            position = f"{name} line {number}"
            try:
                if line.startswith("Update:"):
                    self._read_update(line, position)
                elif line.strip():
                    yield from self._read_row(_decoded(line), position, name, earlier_updates=False)
            except Rejected as refusal:
                yield RefusedRow(position=position, reason=str(refusal))

    def read_snapshot(self, text: TextIO, name: str) -> Iterator[Entry]:
        """The rows of the array that do not become part of a story."""
        self._unnamed.clear()
        for item in array_items(text):
            position = f"{name} row {item.row} (line {item.line})"
            try:
                if item.error:
                    raise InvalidTrade(item.error)
                yield from self._read_row(item.value, position, name, earlier_updates=True)
            except Rejected as refusal:
                yield RefusedRow(position=position, reason=str(refusal))

    def orphans(self) -> Iterator[Entry]:
        """The updates whose trade never came."""
        cure = "no row before it adds this trade"
        for trade_id, positions in self._orphans.items():
            reason = str(
                UnknownTrade("update of an unknown trade", field="trade_id", value=trade_id, cure=cure)
            )
            yield from (RefusedRow(position=position, reason=reason) for position in positions)

    def _read_update(self, line: str, position: str) -> None:
        trade_id, state = _update(line)
        story = self.stories.get(trade_id)
        if story is None:
            self._orphans[trade_id].append(position)
        else:
            story.states.append(state)
            story.merged += 1

    def _read_row(self, row: Any, position: str, name: str, *, earlier_updates: bool) -> Iterator[Entry]:
        if not isinstance(row, dict):
            raise InvalidTrade(
                "not an object", field="trade", value=row, cure="one JSON object for each trade"
            )
        trade_id, state = self._id_of(row), _State(row.get("pnl"), row.get("status"))
        story = self.stories.get(trade_id)
        if story is None:
            merged = len(self._orphans.pop(trade_id, ())) if earlier_updates else 0
            self.stories[trade_id] = _Story(position, row, [state], {name}, merged)
        elif _facts(story.row) != _facts(row):
            taken = f"another trade has this id, at {story.position}"
            raise IdempotencyConflict(
                taken, field="trade_id", value=trade_id, cure="give one of them another id"
            )
        elif not story.carry_on(state, name):
            yield RepeatedRow(position=position)

    def _id_of(self, row: dict[str, Any]) -> str:
        given = row.get("trade_id")
        if given not in (None, ""):
            return str(given)
        facts = json.dumps(_facts(row), sort_keys=True, default=str)
        self._unnamed[facts] += 1
        return source_id("legacy:", f"{facts} {self._unnamed[facts]}")


def _decoded(line: str) -> Any:
    try:
        return decode(line)
    except ValueError as error:
        torn = not line.endswith("\n")
        raise InvalidTrade("torn: the file ends inside this row" if torn else str(error)) from None


def _update(line: str) -> tuple[str, _State]:
    matched = _UPDATE.fullmatch(line.rstrip("\r\n"))
    if matched is None:
        form = "Update: <trade id> - PNL=<number>, status=<status>"
        raise InvalidTrade("not an update", field="line", value=line.rstrip(), cure=form)
    status_word("status", matched["status"])
    return matched["trade_id"], _State(_pnl(matched["pnl"]), matched["status"])


def _pnl(text: str) -> Decimal:
    try:
        pnl = Decimal(text)
    except InvalidOperation:
        pnl = Decimal("NaN")
    if not pnl.is_finite():
        raise InvalidTrade("not a number", field="pnl", value=text, cure="a finite number")
    return pnl


def _entry(trade_id: str, story: _Story, defaults: Defaults, *, is_foreign: bool) -> Entry:
    """The trade in its last state, or why it cannot be one; `is_foreign` when it names another user's."""
    latest = {name: value for name, value in story.states[-1]._asdict().items() if value is not None}
    row = {**story.row, **latest, "trade_id": trade_id}
    if is_foreign and isinstance(row.get("extra", {}), dict):
        row["extra"] = row.get("extra", {}) | {_RELATED: row.pop(_RELATED)}
    as_of = _time(row.get("timestamp"))
    try:
        return TradeRow(
            position=story.position,
            trade=_trade(row, as_of, defaults),
            as_of=as_of,
            merged=story.merged,
            report=_report(story.states[-1]),
        )
    except Rejected as refusal:
        return RefusedRow(position=story.position, reason=str(refusal), merged=story.merged)


def _trade(row: dict[str, Any], as_of: int | None, defaults: Defaults) -> dict[str, Any]:
    user = _owner(row, defaults)
    if user is None:
        raise InvalidTrade(
            "empty", field="user_id", value=row.get("user_id"), cure="name the user with --user"
        )
    source = row.get("source") or str(defaults.source or Source.IMPORT)
    created = {"created_at": iso_time(as_of)} if as_of is not None else {}
    values = {key: _value(key, value) for key, value in row.items()}
    return created | values | {"user_id": user, "source": source}


def _owner(row: dict[str, Any], defaults: Defaults) -> Any:
    user = row.get("user_id")
    return defaults.user if user is None or (isinstance(user, str) and not user.strip()) else user


def _value(key: str, value: Any) -> Any:
    if key in _MONEY and isinstance(value, Decimal):
        return money_text(value)
    return json_value(key, value)


def _report(state: _State) -> PnlReport | None:
    if state.status not in _REPORTED or not isinstance(state.pnl, Decimal | int):
        return None
    return PnlReport(money_text(Decimal(state.pnl)), state.status)


def _time(timestamp: Any) -> int | None:
    try:
        return parse_time("timestamp", timestamp)
    except Rejected:
        return None


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _STATE}
