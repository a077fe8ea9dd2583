"""The part of `TradePool` that checks: audits, repairs and their reports; it only delegates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradepool import wiring
from tradepool.audit.report import AuditReport
from tradepool.audit.rules.registry import known_level
from tradepool.errors import InvalidQuery, ResourceUnavailable
from tradepool.narrowing import part, path_of

if TYPE_CHECKING:
    from tradepool.audit.parts.run_board import Ended, RunningAudit
    from tradepool.audit.parts.runner import Progress

__all__ = ["PoolChecks"]


class PoolChecks:
    """What can be proved of a pool."""

    _services: wiring.Services

    def check_trades(self, user_id: str, *, deep: bool = True, repair: bool = False) -> AuditReport:
        """Audit one user: records, indexes, counters, computed figures and (deep) the journal.

        The report's `repairs` are what could be written about it, or (`repair`) what was: docs/audit.md.
        """
        return self._services.audit.check_trades(user_id, deep=deep, repair=repair)

    def check_all_trades(
        self,
        *,
        deep: bool = False,
        repair: bool = False,
        level: str | None = None,
        venue: object = None,
        progress: Progress | None = None,
    ) -> AuditReport:
        """Audit the pool at a `level`: `digest` (if none is given), `standard` or `deep`; docs/audit.md.

        `venue` holds positions and balances as venues tell them, to be compared with open trades and ledgers.
        The report's `repairs` say what would be written, or (repair) what was. `progress` is called with how
        many parts are done, and how many there are. Memory is bounded by a group of shards.

        Raises: InvalidQuery for a `venue` that cannot be read, and for an unknown level; above the digest
        level ResourceUnavailable when there is no room for work files beside the journal.
        """
        return self._services.audit.check_all_trades(
            deep=deep, repair=repair, level=level, venue=venue, progress=progress
        )

    def get_running_audits(self) -> tuple[RunningAudit, ...]:
        """The audits that the fleet's audit workers are doing together, the oldest first."""
        return self._services.audit.running()

    def get_audit_progress(self, run_id: str) -> RunningAudit | Ended | None:
        """How far an audit is that was given to the fleet as `run_id`, or how it has ended.

        None: nobody has begun it, or it ended more than an hour ago.
        """
        return self._services.audit.progress(run_id)

    def get_last_audit(self) -> dict[str, Any] | None:
        """The report of the last `check_all_trades`, as JSON-able data; None before the first."""
        return self._services.audit.last_report()

    def get_audits(self, limit: int = 20, *, level: str | None = None) -> list[dict[str, Any]]:
        """The newest `limit` reports of `check_all_trades` (of one `level`), the newest first.

        JSON-able data as of `get_last_audit`; of findings, repairs and undecided subjects the first ones,
        `totals` says how many there are. Raises: InvalidTrade for a wrong limit, InvalidQuery for a wrong
        level.
        """
        return self._services.reports.newest(part(limit).limit, None if level is None else known_level(level))

    def write_audit_page(self, path: str | Path | None = None) -> Path:
        """Write the HTML page of the kept reports to `path`, else to `audits/index.html`; where it is.

        Raises: InvalidTrade for a `path` that is none, InvalidQuery for one that cannot be written,
        ResourceUnavailable when the pool's own folder cannot; StoreUnavailable.
        """
        try:
            return self._services.reports.write_page(None if path is None else path_of(path))
        except OSError as problem:
            why = problem.strerror or type(problem).__name__
            if path is None:
                raise ResourceUnavailable(
                    f"the page of audits: {why}; name a file to write it to"
                ) from problem
            raise InvalidQuery(why, field="path", value=path, cure="name a file to write") from problem
