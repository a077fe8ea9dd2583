"""Repairs of one pool: what would be written about findings, and writing it.

Each stage is worked out from the store as it is when its turn comes, never from the text of a finding alone:
first keys and records, then what follows from records, then sums, reservations and files.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tradepool.audit.registry import RULES, Repair
from tradepool.audit.repair.beside import Scope, beside_fixes
from tradepool.audit.repair.fixes import Fix, Tools, refusal
from tradepool.audit.repair.holds import hold_fixes
from tradepool.audit.repair.journaled import await_journal
from tradepool.audit.repair.keys_themselves import key_fixes
from tradepool.audit.repair.quarantining import quarantine_fixes
from tradepool.audit.repair.records import RecordRepairs
from tradepool.audit.repair.repair_log import RepairLog
from tradepool.audit.repair.sums import sum_fixes
from tradepool.audit.report import Finding, RepairState, RepairStep
from tradepool.errors import Corrupt, JournalUnavailable, Misconfigured
from tradepool.settings import Settings

__all__ = ["Repairs"]

_REPAIR_BYTES = 6
_BY_OWNER = (Repair.SNAPSHOT, Repair.BOOK)


class Repairs:
    """What an audit's findings have written, and nothing else writes."""

    def __init__(self, tools: Tools, settings: Settings) -> None:
        self._tools = tools
        self._settings = settings
        self._folder: Path = settings.data_dir

    def plan(self, findings: Iterable[Finding], *, user_id: str | None = None) -> tuple[RepairStep, ...]:
        """What would be written about `findings` (of one user); writes nothing.

        What cannot be written is `refused`, and says why. Raises: StoreUnavailable, Fenced.
        """
        return tuple(fix.planned() for fix in self._fixes(list(findings), user_id))

    def carry_out(self, findings: Iterable[Finding], *, user_id: str | None = None) -> tuple[RepairStep, ...]:
        """Write it; each step is `done`, or `refused` with the reason.

        Each looks again at what is wrong at that moment; what is no fault any more is no step. Durable on
        return. Raises: StoreUnavailable, Fenced, JournalUnavailable; ResourceUnavailable where the log cannot
        be written. Then part of it may be done, and it may be called again.
        """
        return self._carried_out(self._fixes(list(findings), user_id))

    def quarantine(self, findings: Iterable[Finding]) -> tuple[RepairStep, ...]:
        """Quarantine the trades with a critical fault that nothing can repair, and write nothing else.

        Raises: as `carry_out`.
        """
        return self._carried_out(_guarded("trades", quarantine_fixes(self._tools, list(findings))))

    def _carried_out(self, fixes: Iterator[Fix]) -> tuple[RepairStep, ...]:
        log = RepairLog(self._folder, secrets.token_hex(_REPAIR_BYTES))
        generation = self._tools.store.generation()
        steps = [self._carry_out(fix, log) for fix in fixes]
        if any(step.state is RepairState.DONE for step in steps):
            await_journal(self._tools, self._tools.keys.shards)
            self._tools.store.check_generation(generation)
        return tuple(steps)

    def _carry_out(self, fix: Fix, log: RepairLog) -> RepairStep:
        if fix.act is None:
            return fix.planned()
        log.tell(fix, RepairState.PLANNED, self._tools.now_us())
        try:
            reason = fix.act()
        except Corrupt as problem:
            reason = str(problem)
        state = RepairState.DONE if reason is None else RepairState.REFUSED
        log.tell(fix, state, self._tools.now_us(), reason)
        return fix.step(state, reason)

    def _fixes(self, findings: Sequence[Finding], user_id: str | None) -> Iterator[Fix]:
        """What to write, stage by stage: each is worked out once those before it are written."""
        told: set[tuple[str, str, str]] = set()
        for fix in self._stages(findings, user_id):
            name = (fix.action, fix.subject, fix.detail)
            if (user_id is None or fix.user_id in (None, user_id)) and name not in told:
                told.add(name)
                yield fix

    def _stages(self, findings: Sequence[Finding], user_id: str | None) -> Iterator[Fix]:
        tools = self._tools
        yield from _guarded("keys", key_fixes(tools, findings))
        records = RecordRepairs(tools)
        yield from _guarded("records", records.fixes(findings))
        yield from _guarded("trades", quarantine_fixes(tools, findings, records))
        yield from _guarded("indexes", self._following(findings, records, user_id))
        yield from _guarded("reservations", hold_fixes(tools, findings))
        yield from self._by_owner(findings)

    def _following(
        self, findings: Sequence[Finding], records: RecordRepairs, user_id: str | None
    ) -> Iterator[Fix]:
        """What follows from records, shard by shard: their state is too much to have of all at once."""
        tools = self._tools
        scope = Scope.of(tools, findings, records, user_id)
        for shard in sorted(scope.shards):
            yield from _guarded(f"shard {shard:02x}", beside_fixes(tools, shard, scope, records))
        for shard in sorted(scope.summed):
            fixes = sum_fixes(tools, shard, soundness=records.soundness(shard))
            yield from _guarded(f"shard {shard:02x}", fixes)

    def _by_owner(self, findings: Iterable[Finding]) -> Iterator[Fix]:
        """What only some processes can write anew: the snapshot, the book."""
        wanted = {RULES[finding.rule].repair for finding in findings if finding.rule in RULES}
        for action in _BY_OWNER:
            if action in wanted:
                yield Fix(
                    action=action,
                    subject=action.name.lower(),
                    detail="what there is → a new one",
                    act=partial(self._as_owner, action),
                )

    def _as_owner(self, action: Repair) -> str | None:
        try:
            self._tools.owner[action]()
        except Misconfigured as problem:
            return str(problem)
        return None


def _guarded(subject: str, fixes: Iterator[Fix]) -> Iterator[Fix]:
    """What else is broken ends its own stage: an audit is not to fail for what it could not repair."""
    try:
        yield from fixes
    except (Corrupt, JournalUnavailable, ValueError) as problem:
        yield refusal("look at it again", subject, f"{problem}; a person has to decide")
