"""`snapshot`, `recover` and `verify-log`: the files of a pool."""

from __future__ import annotations

import time
from contextlib import ExitStack

import msgspec
import typer

from tradepool import wire
from tradepool.broker import ChangeSender
from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, check_holds_pool, open_pool
from tradepool.cli.output import figures_table, print_json, print_table, progress_bar, time_text
from tradepool.clock import now_us
from tradepool.errors import JournalUnavailable
from tradepool.files import verification
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.files.snapshot_info import TRADES_NAME, SnapshotInfo, load_snapshot
from tradepool.journaling import recovery
from tradepool.journaling.writer import JournalWriter
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings, load_settings
from tradepool.store.connection import connect
from tradepool.store.keys import Keys

__all__ = ["recover", "snapshot", "verify_log"]

_ANSWER_TIMEOUT_S = 120.0
_POLL_S = 0.1
_SILENT_S = 1.0
"""How long one waits without being told for what."""


def snapshot(*, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Write `trades.json` and its companions beside the journal; the fleet's files worker does it."""
    if embedded is None:
        folder = load_settings().data_dir
        info = _written_by_fleet(load_settings())
    else:
        folder = embedded
        with open_pool(embedded) as pool:
            info = pool.write_snapshot()
    figures = {
        "file": str(folder.absolute() / TRADES_NAME),
        "at": info.at,
        "trades": info.trades.count,
        "ledgers": info.ledgers.count,
    }
    if as_json:
        print_json(figures)
    else:
        print_table("snapshot", figures_table(figures | {"at": time_text(info.at)}))
    return OK


def recover(*, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Bring the server up to the journal and let writers in; the fleet's files worker does so by itself.

    For a pool without a running fleet, in TRADEPOOL_DATA_DIR and TRADEPOOL_REDIS_URL or in DIR.
    """
    with ExitStack() as stack:
        if embedded is None:
            settings = load_settings()
        else:
            check_holds_pool(embedded)
            server = stack.enter_context(EmbeddedServer(embedded))
            settings = server.settings(data_dir=embedded)
        check_holds_pool(settings.data_dir)
        client = stack.enter_context(connect(settings))
        journal = stack.enter_context(Journal(settings.data_dir / JOURNAL_NAME, settings.shard_count))
        keys = Keys(settings.shard_count)
        report = recovery.recover(client, keys, journal, settings)
        # Whoever reads the pool without a files worker has to know how far the journal is.
        JournalWriter(client, keys, journal).take_over()
    if as_json:
        print_json(msgspec.structs.asdict(report))
    else:
        _print_recovery(report)
    return OK


def verify_log(*, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Read the whole journal and prove every line of it, while its owner goes on. Exit 1 when it is damaged.

    Checked are checksums and numbers of the lines, digests of the records, and that no finished part was
    changed or taken away since. The journal is that in TRADEPOOL_DATA_DIR, or in DIR.
    """
    folder = load_settings().data_dir if embedded is None else embedded
    check_holds_pool(folder)
    with progress_bar("verifying") as progress:
        report = verification.verify_log(folder / JOURNAL_NAME, progress)
    if as_json:
        print_json(msgspec.structs.asdict(report))
    else:
        _print_verified(report)
    return OK


def _written_by_fleet(settings: Settings) -> SnapshotInfo:
    """Ask the files worker for a snapshot and wait until it is there.

    Raises: StoreUnavailable without a broker, Misconfigured where the pool's folder is not on this
    machine, JournalUnavailable when no worker answers.
    """
    asked_at = now_us()
    with ChangeSender(settings) as sender:
        sender.backlog(wire.QUEUE_FILES)
        check_holds_pool(settings.data_dir)
        sender.call(wire.QUEUE_FILES, wire.WRITE_SNAPSHOT, [])
    started_s = time.monotonic()
    is_told = False
    while (waited_s := time.monotonic() - started_s) < _ANSWER_TIMEOUT_S:
        info = load_snapshot(settings.data_dir)
        if info is not None and info.at >= asked_at:
            return info
        if waited_s >= _SILENT_S and not is_told:
            is_told = True
            typer.echo(f"waiting up to {_ANSWER_TIMEOUT_S:g} s for the files worker to write it", err=True)
        time.sleep(_POLL_S)
    raise JournalUnavailable(
        f"no files worker wrote a snapshot within {_ANSWER_TIMEOUT_S:g} s; start it with 'tradepool up'"
    )


def _print_verified(report: verification.VerifyReport) -> None:
    figures = {
        "journal": report.journal,
        "segments": report.segments,
        "changes": report.lines,
        "commits": report.commits,
        "bytes": report.bytes,
        "bytes not committed": report.torn_bytes or None,
    }
    print_table("the journal is whole", figures_table(figures))


def _print_recovery(report: recovery.RecoveryReport) -> None:
    figures = {
        "opened": "yes" if report.opened else "no: it was open",
        "records from the snapshot": report.from_snapshot,
        "changes replayed": report.replayed,
        "seconds": f"{report.seconds:.2f}",
    }
    print_table("recovery", figures_table(figures))
