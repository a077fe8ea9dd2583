"""`TradePool`: the whole pool behind one object (the old trade_pool_global, no longer a global).

It only delegates: `core` writes, `queries` reads (`tradepool.pool_reads`), `tokens` keeps balances,
`audit` checks (`tradepool.pool_checks`), `marking` marks. `wiring` builds and connects them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tradepool import commanding, wiring
from tradepool.core import Result, TradeCore
from tradepool.errors import BatchRejected, InvalidTrade, Rejected
from tradepool.model.commands import PoolCommand
from tradepool.model.ledger import Reservation
from tradepool.model.receipt import Receipt
from tradepool.model.trade import Fill, Trade
from tradepool.pool_checks import PoolChecks
from tradepool.pool_reads import PoolReads
from tradepool.settings import Settings, load_settings
from tradepool.store.connection import Client
from tradepool.store.redis_store import RedisStore

if TYPE_CHECKING:
    from tradepool.archiving import ArchiveReport
    from tradepool.files.journal import Journal
    from tradepool.files.snapshot_info import SnapshotInfo

__all__ = ["TradePool"]

Loose = Mapping[str, Any]
"""A dict as a bot has it: validated where it enters the model."""


class TradePool(PoolReads, PoolChecks):
    """The trades and balances of a fleet of bots: synchronous, exact, durable on return.

    Every write returns a `Receipt`, or the `Reservation` it is about, once the change is fsynced in the
    journal (`durability = "journal"`), or raises: `Rejected` (wrong input, nothing written), `Unavailable`
    (try again later), `VersionConflict` (try again now), `Corrupt` (stop). Amounts and prices are
    `Decimal`, text or int; a float is taken as the decimal number it prints as. Times are µs since 1970
    UTC, ISO text or datetimes.
    """

    def __init__(self, services: wiring.Services) -> None:
        super().__init__(services)
        self.settings: Settings = services.settings
        self.redis: Client = services.client
        self.core: TradeCore = services.core
        self.store: RedisStore = services.store

    @classmethod
    def connect(cls, settings: Settings | None = None) -> Self:
        """The pool of a running fleet; settings come from the environment when none are given.

        Raises: StoreUnavailable when no server answers; Misconfigured when its pool has another number of
        shards, or a setting is wrong.
        """
        return cls(wiring.connect(settings or load_settings()))

    @classmethod
    def embedded(cls, path: str | Path, **settings: Any) -> Self:
        """The whole pool in this process: a private server, recovery and the journal thread.

        `path` is created when absent and holds everything; further arguments override `Settings`.

        Raises: PoolLocked when another process has `path` open, Misconfigured when no server binary
        is found or the folder cannot be written, Corrupt when the files contradict each other.
        """
        return cls(wiring.embedded(Path(path), **settings))

    def close(self) -> None:
        """Stop what this pool started and let go of its connections; calling it twice is fine."""
        self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def apply(self, commands: Sequence[PoolCommand], *, task_id: str = "") -> list[Result]:
        """Apply any number of commands; a receipt or a refusal for each (see `TradeCore.apply`)."""
        return self.core.apply(commands, task_id=task_id)

    def add_trade(self, trade: Trade | Loose, *, reserve: Loose | None = None) -> Receipt:
        """Add one trade; its id is the caller's, or minted. A repeat of the same trade is `duplicate`.

        Whoever may have to repeat a call gives a `trade_id` or an `idempotency_key`: what has neither is
        another trade each time. With `reserve` (`asset`, `amount`, `ttl_s`, and a `key` unless the trade's
        id is to be it) tokens of the trade's account are set aside in the same commit, or neither happens;
        the receipt has the `reservation`. Raises: as `reserve_tokens` then.
        """
        return self._one(commanding.add_trade(trade, reserve=reserve))

    def add_trades(self, trades: Iterable[Trade | Loose]) -> list[Receipt]:
        """Add any number of trades, a batch at a time; receipts in order.

        Raises: BatchRejected after everything acceptable is applied, with the place and error of each
        trade that was refused.
        """
        receipts: list[Receipt] = []
        refused: list[tuple[int, Rejected]] = []
        for place, result in enumerate(self.core.add_all(trades)):
            if isinstance(result, Rejected):
                refused.append((place, result))
            else:
                receipts.append(result)
        if refused:
            raise BatchRejected(refused, receipts)
        return receipts

    def add_fill(self, trade_id: str, fill: Fill | Loose, *, user_id: str | None = None) -> Receipt:
        """Book an entry or exit fill: quantities, cost, fees, PnL and status follow."""
        return self._one(commanding.add_fill(trade_id, fill, user_id=user_id))

    def close_trade(
        self,
        trade_id: str,
        price: object,
        *,
        fee: object = 0,
        fee_currency: str | None = None,
        amount: object = None,
        at: object = None,
    ) -> Receipt:
        """Book an exit fill of the open rest, or of `amount`, at `price`."""
        return self._one(
            commanding.close_trade(trade_id, price, fee=fee, fee_currency=fee_currency, amount=amount, at=at)
        )

    def update_trade(
        self, /, trade_id: str, *, expected_version: int | None = None, **changes: Any
    ) -> Receipt:
        """Change mutable fields, or the status where the lifecycle allows it.

        With `expected_version` the change is refused unless the trade still has that version.
        """
        return self._one(commanding.update_trade(trade_id, changes, expected_version=expected_version))

    def update_trade_pnl(
        self, trade_id: str, pnl: object, status: str = "completed", *, as_of: object = None
    ) -> Receipt:
        """Store the PnL that a bot or venue reports, beside the computed one; an older `as_of` is `stale`."""
        return self._one(commanding.update_trade_pnl(trade_id, pnl, status, as_of=as_of))

    def update_available_tokens(
        self,
        user_id: str,
        tokens: Mapping[str, object] | Sequence[str],
        *,
        as_of: object = None,
        account_id: str = "default",
        complete: bool = False,
    ) -> Receipt:
        """Take a venue's snapshot of free balances `{asset: amount}`, or a list of tradable assets.

        Assets left out stay as they are, unless `complete` says that the snapshot names all.
        """
        return self._one(
            commanding.update_available_tokens(
                user_id, tokens, as_of=as_of, account_id=account_id, complete=complete
            )
        )

    def reserve_tokens(
        self,
        user_id: str,
        asset: str,
        amount: object,
        key: str,
        ttl_s: object,
        *,
        account_id: str = "default",
    ) -> Reservation:
        """Set `amount` of `asset` aside for `ttl_s` seconds; nobody else can reserve it meanwhile.

        `key` names the request: asked again, the same reservation comes back as it stands by now, and
        only an `open` one holds anything. What is neither settled nor released when its time is over is
        given back.

        Raises: InsufficientTokens, IdempotencyConflict when `key` stands for something else,
        InvalidTokens.
        """
        return self._reservation(
            commanding.reserve_tokens(user_id, asset, amount, key, ttl_s, account_id=account_id)
        )

    def settle_tokens(
        self, reservation_id: str, spent: object, received: Mapping[str, object] | None = None
    ) -> Reservation:
        """Spend `spent` of a reservation, give its rest back, and book what was `received` by asset; once.

        What was really spent is booked also when the reservation's time is over, as long as nobody has given
        it back: the next reserve of the account does, and a task every few seconds.

        Raises: InvalidTokens for more than was reserved or an unknown reservation, IllegalTransition when
        it was released or given back, IdempotencyConflict when it was settled with other amounts.
        """
        return self._reservation(commanding.settle_tokens(reservation_id, spent, received))

    def release_tokens(self, reservation_id: str) -> Reservation:
        """Give a reservation back unspent; one that was given back when its time was over stays `expired`.

        Raises: InvalidTokens for an unknown reservation, IllegalTransition when it was settled.
        """
        return self._reservation(commanding.release_tokens(reservation_id))

    def expire_reservations(self) -> int:
        """Give back every reservation of the pool whose time is over; how many. The fleet's beat does it."""
        return self.core.expire_reservations()

    def quarantine(self, trade_id: str, reason: str) -> Receipt:
        """Let nothing change the trade until it is released: other changes are refused as `Quarantined`.

        It can be read, is marked and counted as before, and not archived. Raises: UnknownTrade;
        IllegalTransition for an archived trade; InvalidTrade for a `reason` that is no text.
        """
        if reason is None:
            raise InvalidTrade("missing", field="reason", cure="say why nothing may change the trade")
        return self._one(commanding.quarantine(trade_id, reason))

    def release_quarantine(self, trade_id: str) -> Receipt:
        """Let the trade change again; `duplicate` if it was in no quarantine. The reason goes to its notes.

        Raises: as `quarantine`.
        """
        return self._one(commanding.quarantine(trade_id, None))

    def _reservation(self, command: PoolCommand) -> Reservation:
        reservation = self._one(command).reservation
        assert reservation is not None
        return reservation

    def _one(self, command: PoolCommand) -> Receipt:
        result = self.apply([command])[0]
        if isinstance(result, Rejected):
            raise result
        return result

    def set_prices(self, prices: Mapping[str, object], *, at: object = None) -> int:
        """Store the price of each symbol, of time `at` (now when None), for marks without given prices.

        How many were stored: a price that is older than the stored one of its symbol is not, whoever sent
        that. A time to come counts as now. Raises: InvalidTrade naming a wrong symbol, price or time, before
        anything is stored.
        """
        return self._services.marking.set_prices(prices, at=at)

    # Keeping

    def write_snapshot(self, journal: Journal | None = None) -> SnapshotInfo:
        """Write `trades.json` and its companions beside the journal, while others go on trading.

        Only the process that owns the journal can: the one that opened the pool embedded, or the files
        worker, which gives its `journal`. Raises: Misconfigured elsewhere; JournalUnavailable.
        """
        return self._services.write_snapshot(journal)

    def archive_closed_trades(self, journal: Journal | None = None) -> ArchiveReport:
        """Move trades that ended more than `retention_s` ago to the archive beside the journal.

        They can be read as before where that folder is, and change no more. Durable on return; only the
        process that owns the journal can. Raises: Misconfigured elsewhere and without DuckDB, PoolLocked
        while another run is at work, ResourceUnavailable, Unavailable.
        """
        return self._services.archive_closed_trades(journal)
