"""The journal's thread: a full disk is waited out, and nothing ends it unheard."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import structlog

from tests.waiting import eventually
from tradepool.errors import JournalUnavailable, TradePoolError
from tradepool.journaling.service import JournalService
from tradepool.journaling.writer import JournalWriter
from tradepool.store.watermark import Watermark


class FullDisk(io.StringIO):
    """Where the log is written, on the same disk as the journal."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = threading.Event()

    def write(self, _text: str) -> int:
        self.refused.set()
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch) -> Iterator[FullDisk]:
    before, stream = structlog.get_config(), FullDisk()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(stream))
    yield stream
    structlog.configure(**before)


def test_a_log_on_the_full_disk_does_not_end_the_journal(pool, full_disk, monkeypatch):
    failures: list[TradePoolError] = []
    pool.journal.close()

    def fail(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with closing(JournalService(pool.settings, pool.client, on_failure=failures.append)) as service:
        service.start()
        pool.add("ann")
        eventually(full_disk.refused.is_set)
        monkeypatch.undo()
        shard = pool.keys.shard_of_user("ann")
        Watermark(pool.client, pool.keys).wait({shard: pool.store.last_position(shard)}, timeout_s=10)
        assert service.is_alive()
    assert failures == []


def test_whoever_waits_hears_of_any_end_of_the_journal(pool, monkeypatch):
    def fail(*_: object) -> int:
        raise ZeroDivisionError("a mistake of ours")

    pool.journal.close()
    watermark = Watermark(pool.client, pool.keys, listens=False)
    monkeypatch.setattr(JournalWriter, "step", fail)
    with closing(JournalService(pool.settings, pool.client, on_failure=watermark.stop)) as service:
        service.start()
        with pytest.raises(JournalUnavailable, match=r"has stopped: .* ZeroDivisionError: a mistake of ours"):
            watermark.wait({0: "1-0"}, timeout_s=10)
        eventually(lambda: not service.is_alive())
