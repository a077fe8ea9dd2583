"""The journal of one data directory at work: recovered first, then written by a thread until closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import msgspec

from tradepool.errors import JournalUnavailable, TradePoolError
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.journaling.recovery import recover
from tradepool.journaling.writer import JournalWriter
from tradepool.logger import Logger
from tradepool.settings import Settings
from tradepool.store.connection import Client
from tradepool.store.keys import Keys

__all__ = ["JournalService"]

_log = Logger(__name__)

_STOP_TIMEOUT_S = 20.0


class JournalService:
    """Owns the journal in `settings.data_dir` and keeps it up with the server behind `client`.

    `notify` gets the positions that have become durable, and the server's generation then. `on_failure`
    is called from the thread when journaling has ended by itself: Corrupt, Fenced when another writer took
    over, JournalUnavailable after a mistake of ours; nothing more is acknowledged then.

    Raises: PoolLocked when another process owns the journal, Misconfigured, ChecksumMismatch,
    SequenceGap, JournalUnavailable.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        *,
        notify: Callable[[Mapping[int, str], str], None] | None = None,
        on_failure: Callable[[TradePoolError], None] | None = None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._on_failure = on_failure
        self._stop = threading.Event()
        self.journal = Journal(
            settings.data_dir / JOURNAL_NAME, settings.shard_count, segment_bytes=settings.segment_bytes
        )
        self._writer = JournalWriter(client, Keys(settings.shard_count), self.journal, notify)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Journal from now on; recovery comes first, and again whenever the server has restarted."""
        self._thread.start()

    def recover(self) -> None:
        """Bring the server up to the journal and open its fence, in this thread; before `start`.

        Raises: as `tradepool.journaling.recovery.recover`.
        """
        report = recover(self._client, Keys(self._settings.shard_count), self.journal, self._settings)
        if report.replayed or report.from_snapshot:
            _log.info("store_recovered", **msgspec.structs.asdict(report))

    def is_alive(self) -> bool:
        """Whether the thread is journaling."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Journal what the outboxes hold, stop the thread and let go of the journal; twice is fine.

        Raises: JournalUnavailable when the thread does not end in time; then the journal stays locked.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise JournalUnavailable(f"the journal thread did not stop within {_STOP_TIMEOUT_S:g} s")
        self.journal.close()

    def _run(self) -> None:
        try:
            self._writer.run(self._stop, self.recover)
        except TradePoolError as failure:
            self._end(failure)
        except Exception as mistake:  # noqa: BLE001 - the thread's boundary: whoever waits must hear of it
            _log.exception("journal_failed")
            self._end(JournalUnavailable(f"the journal's thread failed: {type(mistake).__name__}: {mistake}"))

    def _end(self, failure: TradePoolError) -> None:
        _log.critical("journal_stopped", problem=str(failure))
        if self._on_failure is not None:
            self._on_failure(failure)
