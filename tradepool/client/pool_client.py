"""`PoolClient`: the pool's write calls for bots, which must not wait and must not lose a trade."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tradepool import commanding
from tradepool.client.checks import check, checked_ids
from tradepool.client.confirmation import Confirmation, Rejection
from tradepool.client.delivery import Delivery
from tradepool.client.entries import spool_entry, with_trade_id
from tradepool.client.lag import Lag
from tradepool.client.options import checked_count, checked_time
from tradepool.client.sending import Pace
from tradepool.client.spool_folder import open_spool
from tradepool.errors import StoreUnavailable, Unavailable
from tradepool.model.commands import AddTrade, Command
from tradepool.model.fill import Fill
from tradepool.model.ledger import reservation_id
from tradepool.model.trade import Trade
from tradepool.settings import Settings, load_settings

__all__ = ["CLOSE_TIMEOUT_S", "PoolClient"]

LINGER_MS = 20
BATCH_MAX = 200
SPOOL_MAX = 100_000
RESEND_S = 60.0
CLOSE_TIMEOUT_S = 10.0
CONFIRM_PAUSE_S = 0.05
GIVE_UP_LOOK_S = 0.2
"""How often whoever waits looks whether that was given up."""

Loose = Mapping[str, Any]


class PoolClient:
    """Hands changes of trades and balances to the fleet and returns at once.

    Arguments are checked in the caller: what no pool would accept raises `Rejected` there. What only
    the fleet can refuse is parked there and appears in `rejections`. Commands travel in messages of up
    to `batch_max`: at once while nothing else is under way, gathered for `linger_ms` otherwise; those of one
    trade are applied in the order given.

    With `spool` (a file) every command is on disk before its call returns and stays there until the
    journal has it; unconfirmed ones are sent again after `resend_s`, also by a later client on the same
    file. Without it the same happens in memory: a crash of the bot loses what the broker has not taken.
    Either way at most `spool_max` commands may be unconfirmed; `lag` tells long before. Threads may share
    a client; a forked child needs its own.

    `spool` may also be a folder (one that is there, or a path that ends in a separator) which many
    processes share. Each has a file of its own in it; what a process that died has left is sent by the
    next one that opens the folder, or after ten to twenty seconds by one that has it open. Between
    processes there is no order: where the changes of one trade come from a single bot, also after it was
    killed, give it a file.
    """

    def __init__(self, delivery: Delivery, *, durable: bool) -> None:
        self._delivery = delivery
        self._durable = durable
        self._closed = False

    @classmethod
    def connect(
        cls,
        settings: Settings | None = None,
        *,
        spool: str | Path | None = None,
        linger_ms: float = LINGER_MS,
        batch_max: int = BATCH_MAX,
        spool_max: int = SPOOL_MAX,
        resend_s: float = RESEND_S,
    ) -> Self:
        """A client of the fleet with these settings (the environment's when None); nothing need run yet.

        Raises: PoolLocked when another process has the spool's file open, StoreUnavailable when it cannot
        be opened, Corrupt when it is damaged, Misconfigured for a setting or a number that is wrong.
        """
        settings = settings or load_settings()
        pace = Pace(
            linger_s=checked_time("linger_ms", linger_ms, may_be_zero=True) / 1000,
            batch_max=min(checked_count("batch_max", batch_max), BATCH_MAX),
            resend_s=checked_time("resend_s", resend_s, may_be_zero=False),
        )
        kept, siblings = open_spool(spool, entries_max=checked_count("spool_max", spool_max))
        return cls(Delivery(settings, kept, pace, siblings), durable=spool is not None)

    def add_trade(self, trade: Trade | Loose, *, reserve: Loose | None = None) -> str:
        """Add a trade; its id, the caller's or a new one. Raises: Rejected, StoreUnavailable (spool full).

        With `reserve` tokens are set aside for it as by `TradePool.add_trade`. Where that is refused the
        trade is not added either, and `rejections` says so.
        """
        return self._add([commanding.add_trade(trade, reserve=reserve)])[0]

    def add_trades(self, trades: Iterable[Trade | Loose]) -> list[str]:
        """Add trades, all or none of them kept; their ids in order. Raises like `add_trade`."""
        return self._add([commanding.add_trade(trade) for trade in commanding.checked_trades(trades)])

    def add_fill(self, trade_id: str, fill: Fill | Loose, *, user_id: str | None = None) -> str:
        """Book an entry or exit fill; the trade's id. A fill without `fill_id` is named by this call."""
        self._give([commanding.add_fill(trade_id, fill, user_id=user_id)])
        return trade_id

    def close_trade(
        self,
        trade_id: str,
        price: object,
        *,
        fee: object = 0,
        fee_currency: str | None = None,
        amount: object = None,
        at: object = None,
    ) -> str:
        """Book an exit of the open rest, or of `amount`, at `price`; the trade's id."""
        self._give(
            [
                commanding.close_trade(
                    trade_id, price, fee=fee, fee_currency=fee_currency, amount=amount, at=at
                )
            ]
        )
        return trade_id

    def update_trade(self, /, trade_id: str, *, expected_version: int | None = None, **changes: Any) -> str:
        """Change mutable fields or the status; the trade's id."""
        self._give([commanding.update_trade(trade_id, changes, expected_version=expected_version)])
        return trade_id

    def update_trade_pnl(
        self, trade_id: str, pnl: object, status: str = "completed", *, as_of: object = None
    ) -> str:
        """Store the PnL that a bot or venue reports, known at `as_of` (now when None); the trade's id."""
        self._give([commanding.update_trade_pnl(trade_id, pnl, status, as_of=as_of)])
        return trade_id

    def update_available_tokens(
        self,
        user_id: str,
        tokens: Mapping[str, object] | Sequence[str],
        *,
        as_of: object = None,
        account_id: str = "default",
        complete: bool = False,
    ) -> str:
        """Take a venue's snapshot of free balances, or a list of tradable assets; the user's id."""
        command = commanding.update_available_tokens(
            user_id, tokens, as_of=as_of, account_id=account_id, complete=complete
        )
        self._give([command])
        return user_id

    def reserve_tokens(
        self,
        user_id: str,
        asset: str,
        amount: object,
        key: str,
        ttl_s: object,
        *,
        account_id: str = "default",
    ) -> str:
        """Ask for `amount` of `asset` to be set aside for `ttl_s` seconds from now; the reservation's id.

        Nothing is set aside yet: the fleet may refuse it, and `rejections` says so then.
        """
        command = commanding.reserve_tokens(user_id, asset, amount, key, ttl_s, account_id=account_id)
        self._give([command])
        return reservation_id(user_id, account_id, key)

    def settle_tokens(
        self, reservation_id: str, spent: object, received: Mapping[str, object] | None = None
    ) -> str:
        """Spend `spent` of a reservation, give its rest back, book what was `received`; its id."""
        self._give([commanding.settle_tokens(reservation_id, spent, received)])
        return reservation_id

    def release_tokens(self, reservation_id: str) -> str:
        """Give a reservation back unspent; its id."""
        self._give([commanding.release_tokens(reservation_id)])
        return reservation_id

    @property
    def rejections(self) -> list[Rejection]:
        """What the fleet refused, oldest first; the newest 10,000."""
        return list(self._delivery.pending.rejections)

    def pending(self) -> int:
        """Commands that are neither journaled nor refused yet."""
        return self._delivery.pending.unfinished()

    def lag(self) -> Lag:
        """How far the pool is behind: what waits, since when, why, and how much more may be given."""
        return self._delivery.pending.lag()

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` s until nothing is pending, or for `close`; whether that was reached."""
        return self._flush(timeout, None)

    def confirm(self, trade_ids: Iterable[str], timeout: float) -> dict[str, bool]:
        """Wait up to `timeout` s, or for `close`; for each trade, whether all we sent of it is journaled.

        False for a trade that is still under way, unknown to the pool, or had a command refused. Raises:
        InvalidTrade for what is no list of ids.
        """
        return self._confirm(trade_ids, timeout, None)

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Send what waits, within `timeout` s, and stop; calling it twice is fine.

        In a forked child it does nothing. Raises: StoreUnavailable when without a spool some commands could
        not be sent: they are lost.
        """
        if self._closed or self._delivery.is_a_parents:
            return
        self._closed = True
        with self._delivery.pending.changed:
            sent = self._delivery.pending.changed.wait_for(
                lambda: self._delivery.pending.unsent() == 0, timeout
            )
        lost = self._delivery.pending.unsent()
        self._delivery.stop()
        if not sent and not self._durable:
            raise StoreUnavailable(f"{lost} commands could not be sent and are lost; give the client a spool")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self, timeout: float, given_up: threading.Event | None) -> bool:
        """`flush`, which also ends soon after another thread has set `given_up`."""
        self._wait_for(lambda: self.pending() == 0, timeout, given_up)
        return self.pending() == 0

    def _confirm(
        self, trade_ids: Iterable[str], timeout: float, given_up: threading.Event | None
    ) -> dict[str, bool]:
        """`confirm`, which also ends soon after another thread has set `given_up`."""
        deadline = time.monotonic() + timeout
        wanted = checked_ids(trade_ids)
        self._wait_for(lambda: not self._under_way(wanted), timeout, given_up)
        refused = {rejection.record_id for rejection in self.rejections}
        candidates = [i for i in wanted if i not in refused and not self._delivery.pending.unfinished(i)]
        reader = _Reader(self._delivery.confirmation)
        while True:
            journaled = reader.journaled(candidates)
            left_s = min(CONFIRM_PAUSE_S, deadline - time.monotonic())
            if all(journaled.values()) or left_s <= 0 or self._wait_for(lambda: False, left_s, given_up):
                return {trade_id: journaled.get(trade_id, False) for trade_id in wanted}

    def _wait_for(
        self, reached: Callable[[], bool], timeout: float, given_up: threading.Event | None
    ) -> bool:
        """Wait until `reached`, `close` or `given_up`, for `timeout` s at most; whether one of them came."""
        deadline = time.monotonic() + timeout
        with self._delivery.pending.changed:
            while not (self._closed or (given_up is not None and given_up.is_set()) or reached()):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                self._delivery.pending.changed.wait(
                    left_s if given_up is None else min(left_s, GIVE_UP_LOOK_S)
                )
        return True

    def _under_way(self, trade_ids: Sequence[str]) -> list[str]:
        return [trade_id for trade_id in trade_ids if self._delivery.pending.unfinished(trade_id)]

    def _add(self, commands: Sequence[AddTrade]) -> list[str]:
        named = [with_trade_id(command) for command in commands]
        self._give(named)
        return [command.trade["trade_id"] for command in named]

    def _give(self, commands: Sequence[Command]) -> None:
        for command in commands:
            check(command)
        self._delivery.give([spool_entry(command) for command in commands])


class _Reader:
    """Asks the store, which may be away."""

    def __init__(self, connect: Callable[[], Confirmation]) -> None:
        self._connect = connect
        self._confirmation: Confirmation | None = None

    def journaled(self, trade_ids: Sequence[str]) -> dict[str, bool]:
        if not trade_ids:
            return {}
        try:
            self._confirmation = self._confirmation or self._connect()
            return self._confirmation.is_journaled(trade_ids)
        except Unavailable:
            return dict.fromkeys(trade_ids, False)
