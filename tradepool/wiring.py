"""The only place where concrete parts meet: settings in, connected services out.

Built once per process and passed on; nothing here is a module-level object (the old trade_pool_global
was one).
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from tradepool.archive.folder import ARCHIVE_NAME
from tradepool.archive.reading import Archive
from tradepool.archiving import ArchiveReport, Archiving
from tradepool.audit.audits import Audits
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.repairs import Repairs
from tradepool.audit.reports import Reports
from tradepool.audit.reports.figures import PoolFigures
from tradepool.audit.reports.paging import FleetPager, Pager
from tradepool.audit.rules.registry import Repair
from tradepool.clock import now_us
from tradepool.core import TradeCore
from tradepool.errors import Misconfigured
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.files.snapshot_info import SnapshotInfo
from tradepool.journaling.service import JournalService
from tradepool.marking import Marking
from tradepool.marking.open_book import OpenBook
from tradepool.marking.prices import Prices
from tradepool.marking.write_back import WriteBack
from tradepool.pnl.backend import Backends
from tradepool.queries import TradeQueries
from tradepool.server.embedded import EmbeddedServer
from tradepool.server.revival import Revival
from tradepool.settings import Settings
from tradepool.snapshots import write_snapshot
from tradepool.store.connection import Client
from tradepool.store.connection import connect as connect_client
from tradepool.store.keys import Keys
from tradepool.store.mending import Mender
from tradepool.store.redis_store import RedisStore
from tradepool.store.shard_count import check_shard_count
from tradepool.store.watermark import Watermark
from tradepool.summaries import Summaries
from tradepool.tiers import Tiers
from tradepool.tokens import TokenQueries

__all__ = ["Services", "connect", "embedded"]


class Services:
    """The parts of a connected pool; `close` ends what was started for it, last first."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        watermark: Watermark,
        resources: ExitStack,
        pager: Pager | None = None,
    ) -> None:
        self.settings = settings
        self.client = client
        self.journal: Journal | None = None
        """The journal, where this process owns it."""
        self._resources = resources
        path = settings.data_dir / JOURNAL_NAME
        self.store = RedisStore(client, Keys(settings.shard_count), settings)
        self.core = TradeCore(self.store, watermark, settings)
        archive = resources.enter_context(closing(Archive(settings.data_dir / ARCHIVE_NAME)))
        tiers = Tiers(self.store, archive)
        summaries = Summaries(self.store, archive, trades_max=settings.summary_trades_max)
        self.queries = TradeQueries(self.store, path, tiers, summaries)
        self.archiving = Archiving(self.store, watermark, archive.folder, settings, now_us)
        self.tokens = TokenQueries(self.store)
        self.marking = _marking(self.store, settings)
        figures = PoolFigures(self.store, self.marking.get_totals, now_us)
        self.reports = Reports(self.store, settings, figures, now_us, pager)
        self.repairs = Repairs(
            RepairedPool(
                store=self.store,
                mender=Mender(client, self.store),
                apply=self.core.apply,
                watermark=watermark,
                journal=path,
                now_us=now_us,
                recent_max=settings.recent_max,
                owner={Repair.SNAPSHOT: partial(self.write_snapshot, None), Repair.BOOK: self._rebuild_book},
            ),
            settings,
        )
        self.audit = Audits(
            self.store, watermark, path, archive, now_us, reports=self.reports, repairs=self.repairs
        )

    def write_snapshot(self, journal: Journal | None) -> SnapshotInfo:
        """Write the snapshot; only the process that owns the journal can.

        Raises: Misconfigured elsewhere; else as `snapshots.write_snapshot`.
        """
        owned = journal or self.journal
        if owned is None:
            raise _not_the_owner("writes snapshots", "write_snapshot")
        return write_snapshot(self.store, owned, self.settings.data_dir)

    def archive_closed_trades(self, journal: Journal | None) -> ArchiveReport:
        """Archive what is due; only the process that owns the journal can.

        Raises: Misconfigured elsewhere; else as `Archiving.run`.
        """
        if journal is None and self.journal is None:
            raise _not_the_owner("archives trades", "archive_closed_trades")
        return self.archiving.run()

    def _rebuild_book(self) -> None:
        """Build the book anew and compare it again; only a pool whose book is not the gpu worker's can."""
        if self.journal is None:
            raise Misconfigured(
                "the gpu worker keeps the book; restart it without the files in TRADEPOOL_DATA_DIR/book"
            )
        self.marking.rebuild_book()

    def close(self) -> None:
        """Stop and disconnect everything; calling it twice is fine."""
        self._resources.close()


def connect(settings: Settings) -> Services:
    """A pool on the server of `settings`, whose journal another process keeps.

    Raises: StoreUnavailable when the server does not answer, Misconfigured when it was made with another
    number of shards or the settings are wrong.
    """
    with ExitStack() as undo:
        client = undo.enter_context(connect_client(settings))
        check_shard_count(client, settings.shard_count)
        watermark = Watermark(client, Keys(settings.shard_count))
        return Services(settings, client, watermark, undo.pop_all(), FleetPager(settings))


def embedded(path: Path, **overrides: Any) -> Services:
    """A pool in this process alone: server, recovery and journal thread, all under `path`.

    Raises: PoolLocked, Misconfigured, StoreUnavailable, Corrupt.
    """
    with ExitStack() as undo:
        server = undo.enter_context(EmbeddedServer(path))
        settings = server.settings(data_dir=path, **overrides)
        client = undo.enter_context(connect_client(settings))
        # The journal of this very process tells the watermark; nobody needs to listen.
        watermark = Watermark(client, Keys(settings.shard_count), listens=False)
        undo.enter_context(Revival(server, on_failure=watermark.stop))
        journal = JournalService(settings, client, notify=watermark.notify, on_failure=watermark.stop)
        undo.callback(journal.close)
        journal.recover()
        journal.start()
        services = Services(settings, client, watermark, undo.pop_all())
        services.journal = journal.journal
        return services


def _marking(store: RedisStore, settings: Settings) -> Marking:
    """What marks: all shards, or those of this worker's device where several share them."""
    part, parts = (0, 1) if settings.pnl_device is None else (settings.pnl_device, settings.pnl_devices)
    shards = [shard for shard in store.keys.shards if shard % parts == part]
    return Marking(
        OpenBook(store, shards, settings, part, parts),
        Prices(store, settings.price_max_age_s),
        WriteBack(store, part, parts, stream_max=settings.marks_stream_max),
        Backends(settings.pnl_backend, settings.pnl_device or 0),
        now_us,
        OpenBook(store, store.keys.shards, settings) if parts > 1 else None,
    )


def _not_the_owner(does: str, task: str) -> Misconfigured:
    return Misconfigured(f"only the owner of the journal {does}; send the task tasks.files.{task}")
