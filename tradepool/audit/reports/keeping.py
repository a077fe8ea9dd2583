"""Keeping reports, and what follows from them.

What an audit has found must not be lost over its report: a place that cannot take it is a warning, and the
others have it.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tradepool.audit.report import AuditReport, Severity
from tradepool.audit.reports.course import History, standing
from tradepool.audit.reports.figures import PoolFigures
from tradepool.audit.reports.folder import ReportFolder
from tradepool.audit.reports.kept import (
    KeptReport,
    ReportBrief,
    kept_form,
    read_brief,
    read_report,
    readable,
    surplus,
)
from tradepool.audit.reports.news import News, compare, told_by
from tradepool.audit.reports.paging import Pager, message, post, webhook_url
from tradepool.audit.rules.registry import Level
from tradepool.errors import Corrupt, Misconfigured, Unavailable, Undelivered
from tradepool.logger import CauseLog, Logger
from tradepool.settings import Settings
from tradepool.store.address import shown
from tradepool.store.audit_reports import ReportName
from tradepool.store.redis_store import RedisStore

__all__ = ["Reports"]

log = Logger(__name__)

_NO_NAME = re.compile(r"[^0-9A-Za-z_-]")
_RUN_ID_CHARS_MAX = 64
_READ_PAGE = 50
_PAGE_AGE_MAX_S = 600
"""A page that is older is written anew by whatever report."""
_PAGE_ATTEMPTS_MAX = 3
"""Further audits may end just then; the page of the last one is whole."""


class Reports:
    """The kept reports of one pool. `pager` has pages sent; without one they are sent on the spot, once.

    Raises: Misconfigured when the webhook's address is none, before there is anything to tell.
    """

    def __init__(
        self,
        store: RedisStore,
        settings: Settings,
        figures: PoolFigures,
        now_us: Callable[[], int],
        pager: Pager | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._figures = figures
        self._now_us = now_us
        self._pager = pager
        self.folder = ReportFolder(settings.data_dir)
        webhook_url(settings)
        self._troubles = {
            what: CauseLog(log, what, is_warning=True)
            for what in (
                "figures of the pool cannot be read",
                "known findings not kept",
                "report not kept in Redis",
                "report not kept in the folder",
                "page not written",
            )
        }

    def keep(self, report: AuditReport) -> AuditReport:
        """Keep `report`, tell of critical findings that are new, and write the page; the report with figures.

        Kept again under its run id it stays as it is, and is not told of twice, but where the process ended
        before it had told. What cannot be kept is a warning in the log.
        """
        report = self._completed(report)
        news = self._news(report)
        kept = KeptReport.of(report, news.new)
        self._keep_in_folder(kept)
        self._keep_in_store(kept)
        if news.new:
            self._told(kept, news)
        else:
            self._now_known(news)
            self._need_not_be_told(report)
        try:
            with self._survived("page not written"):
                if self._says_more_than_the_page(report, news):
                    self.write_page()
        except Exception:  # a plot that cannot be drawn must not take back an audit
            log.exception("page not written")
        return report

    def _says_more_than_the_page(self, report: AuditReport, news: News) -> bool:
        """Most digest reports say that all is as it was: they need no page of their own."""
        is_quiet = report.level == Level.DIGEST and not report.findings and not news.drop
        written_at = self.folder.page_written_at()
        return not is_quiet or written_at is None or self._now_us() - written_at > _PAGE_AGE_MAX_S * 1_000_000

    def last(self) -> dict[str, Any] | None:
        """The newest report, as JSON-able data; None before the first."""
        newest = self.newest(1)
        return newest[0] if newest else None

    def newest(self, limit: int, level: str | None = None) -> list[dict[str, Any]]:
        """The newest reports (of a level), the newest first, as JSON-able data.

        Raises: StoreUnavailable.
        """
        names = [name for name in self._store.kept_audits() if level in {None, name.level}]
        values = self._store.read_audits(names[::-1][:limit])
        return [kept_form(report) for report in readable(values, read_report)]

    def history(self) -> History:
        """All kept reports: those of Redis, and those that only the folder has. Raises: StoreUnavailable."""
        in_store = self._store.kept_audits()
        only_here = sorted(set(self._names_in_folder()) - set(in_store))
        briefs: list[ReportBrief] = []
        for start in range(0, len(in_store), _READ_PAGE):
            briefs += readable(self._store.read_audits(in_store[start : start + _READ_PAGE]), read_brief)
        briefs += readable(map(self._from_folder, only_here), read_brief)
        briefs.sort(key=lambda brief: brief.name)
        loaded = (self._load(brief.name) for brief in standing(briefs))
        return History(tuple(briefs), tuple(report for report in loaded if report is not None))

    def write_page(self, path: Path | None = None) -> Path:
        """Write the page of all kept reports to `path`, else into the folder; where it is.

        Raises: StoreUnavailable, OSError.
        """
        # Late, as the libraries that draw take a while to load, and most processes never do.
        from tradepool.audit.reports.page import page_of  # noqa: PLC0415

        for _ in range(_PAGE_ATTEMPTS_MAX):
            before = self._store.kept_audits()
            text = page_of(self.history(), pool=self._pool, now_us=self._now_us())
            written = self.folder.write_page(text, path)
            # Another audit may have ended meanwhile, and its page have been replaced by this one.
            if self._store.kept_audits() == before:
                break
        return written

    def deliver(self, run_id: str) -> None:
        """Tell of an audit now, once. Raises: Undelivered; Misconfigured when there is nobody to tell."""
        url = webhook_url(self._settings)
        if url is None:
            raise Misconfigured("set TRADEPOOL_AUDIT_WEBHOOK_URL where the workers of the queue audit run")
        post(url, message(self._report_of(run_id), pool=self._pool, file=self._file_of(run_id)))
        self._store.forget_undelivered_pages()

    def give_up(self, run_id: str, problem: Exception) -> None:
        """The page about an audit did not arrive: say so, and have the next audit tell what still stands."""
        log.critical("a page could not be delivered", run_id=run_id, problem=str(problem))
        with self._survived("known findings not kept"):
            self._store.note_undelivered_page(run_id, str(problem))
            self._store.change_known_critical({}, told_by(run_id, self._store.known_critical()))

    @property
    def _pool(self) -> str:
        """What people call the pool: its server, or the folder of one whose server is its own."""
        url = self._settings.redis_url
        return str(self._settings.data_dir.absolute()) if url.startswith("unix:") else shown(url)

    def _completed(self, report: AuditReport) -> AuditReport:
        figures: dict[str, int | str] = {}
        with self._survived("figures of the pool cannot be read"):
            figures = self._figures.read()
        # It becomes a part of a file's name, and may come from a message.
        run_id = _NO_NAME.sub("-", report.run_id)[:_RUN_ID_CHARS_MAX] or secrets.token_hex(8)
        return msgspec.structs.replace(report, run_id=run_id, figures=figures | report.figures)

    def _news(self, report: AuditReport) -> News:
        known: dict[str, str] = {}
        with self._survived("known findings not kept"):
            known = self._store.known_critical()
        return compare(report, known, can_page=self._can_page())

    def _keep_in_folder(self, kept: KeptReport) -> None:
        with self._survived("report not kept in the folder"):
            self.folder.write(kept.name, kept.encode() + b"\n", replace=bool(kept.news))
            too_old = surplus(self.folder.names(), self._settings.audits_kept)
            self.folder.drop(too_old, self._now_us() / 1_000_000)

    def _keep_in_store(self, kept: KeptReport) -> None:
        with self._survived("report not kept in Redis"):
            self._bring_back(kept.name)
            self._store.keep_audit(kept.name, kept.cut().encode(), replace=bool(kept.news))
            self._store.drop_audits(surplus(self._store.kept_audits(), self._settings.audits_kept))

    def _bring_back(self, newest: ReportName) -> None:
        """A server that was filled anew has no reports: what stands is said by the newest of each level."""
        in_store = {name.level: name for name in self._store.kept_audits()}
        for level, name in {name.level: name for name in self._names_in_folder()}.items():
            if name != newest and (level not in in_store or in_store[level] < name):
                for report in readable([self._from_folder(name)], read_report):
                    self._store.keep_audit(name, report.cut().encode(), replace=False)

    def _can_page(self) -> bool:
        try:
            return webhook_url(self._settings) is not None
        except Misconfigured:
            return False

    def _told(self, kept: KeptReport, news: News) -> None:
        """Known is only what somebody was told of: whoever dies before that leaves it to the next audit."""
        log.critical(
            "an audit found new critical faults",
            run_id=kept.run_id,
            new=kept.new_critical,
            rules=dict(Counter(finding.rule for finding in kept.news)),
            file=self._file_of(kept.run_id, kept.name),
        )
        try:
            if webhook_url(self._settings) is not None:
                send = self.deliver if self._pager is None else self._pager.send
                send(kept.run_id)
        except (Unavailable, Misconfigured, Corrupt) as problem:
            self._now_known(news.without_new())
            self.give_up(kept.run_id, problem)
        else:
            self._now_known(news)

    def _now_known(self, news: News) -> None:
        with self._survived("known findings not kept"):
            self._store.change_known_critical(news.put, news.drop)

    def _need_not_be_told(self, report: AuditReport) -> None:
        """What nobody could be told of is gone when an audit as deep finds nothing critical."""
        if report.severities.get(Severity.CRITICAL):
            return
        with self._survived("known findings not kept"):
            if undelivered := self._store.undelivered_pages():
                levels = {name.run_id: name.level for name in self._store.kept_audits()}
                seen = Level(report.level).runs
                gone = [run for run in undelivered if levels.get(run, report.level) in seen]
                self._store.forget_undelivered_pages(gone)

    def _report_of(self, run_id: str) -> KeptReport:
        for name in self._names(run_id):
            report = self._load(name)
            if report is not None:
                return report
        raise Undelivered(
            f"the report of the audit {run_id} is kept no more; run 'tradepool check-all-trades'"
        )

    def _file_of(self, run_id: str, name: ReportName | None = None) -> str:
        named = [name] if name is not None else self._names(run_id)
        return str(self.folder.file_of(named[0])) if named else str(self.folder.path)

    def _names(self, run_id: str) -> list[ReportName]:
        names = {*self._store.kept_audits(), *self._names_in_folder()}
        return [name for name in names if name.run_id == run_id]

    def _names_in_folder(self) -> list[ReportName]:
        try:
            return self.folder.names()
        except OSError:
            return []

    def _from_folder(self, name: ReportName) -> bytes | None:
        try:
            return self.folder.read(name)
        except OSError:
            return None

    def _load(self, name: ReportName) -> KeptReport | None:
        """A report, cut as Redis has it."""
        values = [*self._store.read_audits([name]), self._from_folder(name)]
        reports = readable(values, read_report)
        return reports[0].cut() if reports else None

    @contextmanager
    def _survived(self, what: str) -> Iterator[None]:
        trouble = self._troubles[what]
        try:
            yield
        except (Unavailable, Misconfigured, Corrupt, OSError, ValueError) as problem:
            trouble.failed(problem)
        else:
            trouble.worked()
