"""For each alert what makes it fire, and what is just not enough: metrics that stay as they are for hours."""

from __future__ import annotations

from tradepool.latencies import BOUNDS_S

__all__ = ["FIRES", "QUIET", "Figures"]

Figures = dict[str, str]
"""Series → its value at the start and its growth in a minute, as promtool writes it: `5`, `0+60`."""


def _latencies(name: str, seconds: float) -> Figures:
    """Sixty measurements a minute, of which each took a little less than `seconds`."""
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    return {f'{name}_bucket{{le="{bound}"}}': "0+60" if float(bound) >= seconds else "0" for bound in bounds}


def _beside(interval: str, entry: str) -> Figures:
    return {f'tradepool_interval_seconds{{entry="{entry}"}}': interval}


_SNAPSHOTS = _beside("900", "write-snapshot")
_AUDITS = _beside("300", "check-all-trades")
_TICKS = _beside("1", "mark-to-market")
_VISIBILITY = {"tradepool_visibility_timeout_seconds": "900"}
_DISK = {"tradepool_data_disk_size_bytes": "100"}
_QUEUE_AGE = 'tradepool_queue_oldest_message_age_seconds{{queue="{}"}}'

FIRES: dict[str, list[Figures]] = {
    "TradepoolMetricsDown": [{'up{job="tradepool"}': "0"}, {'up{job="node"}': "1"}],
    "TradepoolServerDown": [{'tradepool_server_up{server="broker"}': "0"}],
    "TradepoolServerMemory": [
        {
            'tradepool_server_memory_used_bytes{server="store"}': "86",
            'tradepool_server_memory_max_bytes{server="store"}': "100",
        }
    ],
    "TradepoolFenced": [{"tradepool_fenced": "1"}],
    "TradepoolJournalLate": [{"tradepool_journal_lag_seconds": "10.1"}],
    "TradepoolFsyncSlow": [_latencies("tradepool_journal_fsync_seconds", 0.5)],
    "TradepoolCommitSlow": [_latencies("tradepool_journal_commit_seconds", 2.0)],
    "TradepoolDiskFull": [{"tradepool_data_disk_free_bytes": "9.9", **_DISK}],
    "TradepoolDataFolderUnreadable": [{"tradepool_data_folder_readable": "0"}],
    "TradepoolSnapshotOld": [{"tradepool_snapshot_age_seconds": "3601", **_SNAPSHOTS}],
    "TradepoolArchiveUnsettled": [{"tradepool_archive_unsettled_age_seconds": "7201"}],
    "TradepoolQueueOld": [{_QUEUE_AGE.format("trades"): "61"}, {_QUEUE_AGE.format("gpu.1"): "61"}],
    "TradepoolSlowQueueOld": [{_QUEUE_AGE.format("audit"): "901"}],
    "TradepoolGpuQueueLong": [{'tradepool_queue_messages{queue="gpu.1"}': "51"}],
    "TradepoolUnackedOld": [{"tradepool_unacked_oldest_age_seconds": "1801", **_VISIBILITY}],
    "TradepoolDeadLetters": [{"tradepool_dead_letters": "1"}],
    "TradepoolWorkersMissing": [{'tradepool_workers{queue="files"}': "0"}],
    "TradepoolWorkersSilent": [{'tradepool_workers_silent{queue="trades"}': "1"}],
    "TradepoolBeatLate": [{'tradepool_beat_late_seconds{entry="mark-to-market"}': "31"}],
    "TradepoolBeatMissing": [{"tradepool_beat_entries": "0"}],
    "TradepoolAuditCritical": [{'tradepool_audit_findings{level="deep",severity="critical"}': "1"}],
    "TradepoolAuditWarning": [{'tradepool_audit_findings{level="deep",severity="warning"}': "1"}],
    "TradepoolAuditOld": [{'tradepool_audit_age_seconds{level="digest"}': "3601", **_AUDITS}],
    "TradepoolDeepAuditOld": [{'tradepool_audit_age_seconds{level="deep"}': "93601"}],
    "TradepoolAuditStuck": [{"tradepool_audit_run_idle_seconds": "1801"}],
    "TradepoolPagesUndelivered": [{"tradepool_audit_pages_undelivered": "1"}],
    "TradepoolQuarantine": [{"tradepool_quarantined_trades": "1"}],
    "TradepoolMarksOld": [
        {"tradepool_marks_age_seconds": "16", **_TICKS},
        {"tradepool_marks_age_seconds": "51", **_beside("10", "mark-to-market")},
    ],
    "TradepoolMarksSlow": [{"tradepool_marks_latency_seconds": "5.1"}],
    "TradepoolPricesMissing": [{'tradepool_marks_symbols{state="missing"}': "1"}],
    "TradepoolPricesStale": [{'tradepool_marks_symbols{state="stale"}': "1"}],
    "TradepoolBookDiffers": [{"tradepool_book_differences": "1"}],
}

QUIET: dict[str, list[Figures]] = {
    "TradepoolMetricsDown": [{'up{job="tradepool"}': "1"}],
    "TradepoolServerDown": [{'tradepool_server_up{server="broker"}': "1"}, {}],
    "TradepoolServerMemory": [
        {
            'tradepool_server_memory_used_bytes{server="store"}': "85",
            'tradepool_server_memory_max_bytes{server="store"}': "100",
        },
        {
            'tradepool_server_memory_used_bytes{server="store"}': "86",
            'tradepool_server_memory_max_bytes{server="store"}': "0",
        },
    ],
    "TradepoolFenced": [{"tradepool_fenced": "0"}],
    "TradepoolJournalLate": [{"tradepool_journal_lag_seconds": "10"}],
    "TradepoolFsyncSlow": [_latencies("tradepool_journal_fsync_seconds", 0.2)],
    "TradepoolCommitSlow": [_latencies("tradepool_journal_commit_seconds", 1.0)],
    "TradepoolDiskFull": [{"tradepool_data_disk_free_bytes": "10", **_DISK}],
    "TradepoolDataFolderUnreadable": [{"tradepool_data_folder_readable": "1"}, {}],
    "TradepoolSnapshotOld": [{"tradepool_snapshot_age_seconds": "3600", **_SNAPSHOTS}],
    "TradepoolArchiveUnsettled": [{"tradepool_archive_unsettled_age_seconds": "7200"}],
    "TradepoolQueueOld": [{_QUEUE_AGE.format("trades"): "60"}, {_QUEUE_AGE.format("files"): "800"}],
    "TradepoolSlowQueueOld": [{_QUEUE_AGE.format("audit"): "900"}],
    "TradepoolGpuQueueLong": [
        {'tradepool_queue_messages{queue="gpu"}': "50", 'tradepool_queue_messages{queue="trades"}': "5000"}
    ],
    "TradepoolUnackedOld": [{"tradepool_unacked_oldest_age_seconds": "1800", **_VISIBILITY}],
    "TradepoolDeadLetters": [{"tradepool_dead_letters": "0"}],
    "TradepoolWorkersMissing": [{'tradepool_workers{queue="files"}': "1"}],
    "TradepoolWorkersSilent": [{'tradepool_workers_silent{queue="trades"}': "0"}],
    "TradepoolBeatLate": [{'tradepool_beat_late_seconds{entry="mark-to-market"}': "30"}],
    "TradepoolBeatMissing": [{"tradepool_beat_entries": "7"}, {}],
    "TradepoolAuditCritical": [{'tradepool_audit_findings{level="deep",severity="critical"}': "0"}],
    "TradepoolAuditWarning": [
        {
            'tradepool_audit_findings{level="deep",severity="warning"}': "0",
            'tradepool_audit_findings{level="deep",severity="notice"}': "9",
        }
    ],
    "TradepoolAuditOld": [
        {'tradepool_audit_age_seconds{level="digest"}': "3600", **_AUDITS},
        {'tradepool_audit_age_seconds{level="deep"}': "9000", **_AUDITS},
    ],
    "TradepoolDeepAuditOld": [{'tradepool_audit_age_seconds{level="deep"}': "93600"}],
    "TradepoolAuditStuck": [{"tradepool_audit_run_idle_seconds": "1800"}],
    "TradepoolPagesUndelivered": [{"tradepool_audit_pages_undelivered": "0"}],
    "TradepoolQuarantine": [{"tradepool_quarantined_trades": "0"}],
    "TradepoolMarksOld": [
        {"tradepool_marks_age_seconds": "15", **_TICKS},
        {"tradepool_marks_age_seconds": "50", **_beside("10", "mark-to-market")},
    ],
    "TradepoolMarksSlow": [{"tradepool_marks_latency_seconds": "5"}],
    "TradepoolPricesMissing": [{'tradepool_marks_symbols{state="missing"}': "0"}],
    "TradepoolPricesStale": [{'tradepool_marks_symbols{state="stale"}': "0"}],
    "TradepoolBookDiffers": [{"tradepool_book_differences": "0"}],
}
