"""Token ledgers, folded again from the commands in the journal's order, by rules written down here anew."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import msgspec

from tests.faults.simulator.journal_lines import JournalFiles
from tradepool.model.commands import Command
from tradepool.model.token_commands import ReleaseTokens, ReserveTokens, SettleTokens, UpdateTokens

__all__ = ["check_ledgers"]


class _Asset:
    def __init__(self) -> None:
        self.free = Decimal(0)
        self.as_of: int | None = None
        self.told_at = 0


class _Ledger:
    """What the venue told, per asset, and what is set aside, per key."""

    def __init__(self) -> None:
        self.assets: dict[str, _Asset] = {}
        self.reserved: dict[str, tuple[str, Decimal, int]] = {}

    def apply(self, command: Command) -> None:
        match command:
            case UpdateTokens():
                for name, amount in dict(command.tokens).items():
                    self._told(name, Decimal(amount), command.as_of)
            case ReserveTokens():
                self._asset(command.asset)
                self.reserved[command.key] = (command.asset, Decimal(command.amount), command.as_of)
            case ReleaseTokens():
                self.reserved.pop(_key(command.reservation_id))
            case SettleTokens():
                asset, _, reserved_at = self.reserved.pop(_key(command.reservation_id))
                if Decimal(command.spent):
                    self._moved(asset, -Decimal(command.spent), command.as_of)
                for name, amount in command.received.items():
                    # Told since, it may be in what the venue has told.
                    if self._asset(name).told_at <= reserved_at:
                        self._moved(name, Decimal(amount), command.as_of)

    def _asset(self, name: str) -> _Asset:
        return self.assets.setdefault(name, _Asset())

    def _told(self, name: str, amount: Decimal, as_of: int) -> None:
        asset = self._asset(name)
        if asset.as_of is None or as_of >= asset.as_of:
            asset.free, asset.as_of, asset.told_at = amount, as_of, as_of

    def _moved(self, name: str, amount: Decimal, as_of: int) -> None:
        asset = self._asset(name)
        asset.free = max(asset.free + amount, Decimal(0))
        asset.as_of = as_of if asset.as_of is None else max(as_of, asset.as_of)

    def summary(self) -> dict[str, Any]:
        """Per asset: free, reserved, as_of."""
        sums = {
            name: sum((a for n, a, _ in self.reserved.values() if n == name), Decimal(0))
            for name in self.assets
        }
        return {name: (asset.free, sums[name], asset.as_of) for name, asset in self.assets.items()}


def check_ledgers(commands: dict[str, Command], journal: JournalFiles) -> Iterator[str]:
    """Every version of every ledger is the fold of the commands up to it."""
    for record_id, history in journal.history.items():
        if history[0].k != "l":
            continue
        ledger = _Ledger()
        for line in history:
            try:
                ledger.apply(commands[line.e])
            except KeyError as missing:
                yield f"ledger {record_id!r}: {line} resolves what is not reserved: {missing}"
                break
            stored = _stored(msgspec.json.decode(line.r))
            if stored != ledger.summary():
                yield f"ledger {record_id!r} is {stored}, its commands make {ledger.summary()}: {line}"
                break


def _stored(ledger: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (Decimal(asset.get("free", "0")), Decimal(asset.get("reserved", "0")), asset.get("as_of"))
        for name, asset in ledger.get("assets", {}).items()
    }


def _key(reservation_id: str) -> str:
    return unquote(reservation_id.rpartition(":")[2])
