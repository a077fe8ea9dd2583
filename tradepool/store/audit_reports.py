"""Kept audit reports, critical findings that are known, and pages that could not be delivered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated

__all__ = ["AuditReports", "ReportName", "report_names"]

UNDELIVERED_MAX = 100
"""Pages that could not be delivered and are remembered: a webhook may be away for weeks."""
_FIELD = re.compile(r"(\d{1,18}):([a-z]+):([0-9A-Za-z_-]+)", re.ASCII)


class ReportName(NamedTuple):
    """Which report: in the order of these three, all reports are in the order of their beginning."""

    started_at: int
    """µs since 1970."""
    level: str
    run_id: str

    @property
    def field(self) -> str:
        """How the report is called among the kept ones."""
        return f"{self.started_at}:{self.level}:{self.run_id}"


def report_names(fields: Iterable[bytes | str]) -> list[ReportName]:
    """The names that stand in `fields` of `Keys.audits`, oldest first; what is no name is left out."""
    found = (_FIELD.fullmatch(text_of(field)) for field in fields)
    return sorted(ReportName(int(name[1]), name[2], name[3]) for name in found if name is not None)


class AuditReports:
    """The part of the store that keeps what audits said. All methods raise StoreUnavailable."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def keep_audit(self, name: ReportName, value: bytes, *, replace: bool) -> None:
        """Keep a report, as JSON; one that is kept already stays as it is unless it is to `replace` that."""
        with translated():
            put = self._client.hset if replace else self._client.hsetnx
            put(self.keys.audits, name.field, value.decode())

    def kept_audits(self) -> list[ReportName]:
        """The names of all kept reports, oldest first."""
        with translated():
            fields: Any = self._client.hkeys(self.keys.audits)
        return report_names(fields)

    def read_audits(self, names: Sequence[ReportName]) -> list[bytes | None]:
        """The reports of these names, as JSON; None where one is not kept any more."""
        if not names:
            return []
        with translated():
            found: Any = self._client.hmget(self.keys.audits, [name.field for name in names])
        return [value.encode() if isinstance(value, str) else value for value in found]

    def drop_audits(self, names: Iterable[ReportName]) -> None:
        """Keep these reports no longer."""
        fields = [name.field for name in names]
        if fields:
            with translated():
                self._client.hdel(self.keys.audits, *fields)

    def known_critical(self) -> dict[str, str]:
        """Critical findings that stand, and that a page was sent for."""
        return self._fields(self.keys.known_critical)

    def change_known_critical(self, put: Mapping[str, str], drop: Iterable[str]) -> None:
        """Add or replace `put`, and remove `drop`."""
        fields: dict[Any, Any] = dict(put)
        dropped = list(drop)
        with translated():
            pipeline = self._client.pipeline(transaction=True)
            if fields:
                pipeline.hset(self.keys.known_critical, mapping=fields)
            if dropped:
                pipeline.hdel(self.keys.known_critical, *dropped)
            if fields or dropped:
                pipeline.execute()

    def undelivered_pages(self) -> dict[str, str]:
        """Run id of the audit → why its page could not be delivered; none since a page arrived."""
        return self._fields(self.keys.undelivered_pages)

    def note_undelivered_page(self, run_id: str, problem: str) -> None:
        """Keep that the page about an audit could not be delivered, and why; of very many audits the last."""
        with translated():
            stored: Any = self._client.hkeys(self.keys.undelivered_pages)
            pipeline = self._client.pipeline(transaction=True)
            if len(stored) >= UNDELIVERED_MAX:
                pipeline.hdel(self.keys.undelivered_pages, *stored)
            pipeline.hset(self.keys.undelivered_pages, run_id, problem)
            pipeline.execute()

    def forget_undelivered_pages(self, run_ids: Sequence[str] | None = None) -> None:
        """Pages arrive again, or those about these audits need not arrive any more."""
        with translated():
            if run_ids is None:
                self._client.delete(self.keys.undelivered_pages)
            elif run_ids:
                self._client.hdel(self.keys.undelivered_pages, *run_ids)

    def _fields(self, key: str) -> dict[str, str]:
        with translated():
            stored: Any = self._client.hgetall(key)
        return {text_of(field): text_of(value) for field, value in stored.items()}
