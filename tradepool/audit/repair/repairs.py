"""Repairs of one pool: what would be written about findings, and writing it.

Each stage is worked out from the store as it is when its turn comes, never from the text of a finding alone:
first keys and records, then what follows from records, then sums, reservations and files.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tradepool.audit.repair.beside import Scope, beside_fixes
from tradepool.audit.repair.cures import PERSON, cure_fixes
from tradepool.audit.repair.fixes import Fix, refusal
from tradepool.audit.repair.holds import hold_fixes
from tradepool.audit.repair.journaled import Lost, await_journal
from tradepool.audit.repair.keys_themselves import key_fixes, published_fixes
from tradepool.audit.repair.quarantining import quarantine_fixes, quarantined_count
from tradepool.audit.repair.records import RecordRepairs
from tradepool.audit.repair.repair_log import RepairLog
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.strays import Strays
from tradepool.audit.repair.sums import sum_fixes
from tradepool.audit.report import Finding, RepairState, RepairStep
from tradepool.audit.rules.file_rules import digest
from tradepool.audit.rules.registry import RULES, Repair
from tradepool.errors import Corrupt, JournalUnavailable, Misconfigured, ResourceUnavailable
from tradepool.logger import Logger
from tradepool.settings import Settings
from tradepool.store.keys import Keys

__all__ = ["QUARANTINED_MAX", "STEPS_MAX", "Repairs"]

log = Logger(__name__)

QUARANTINED_MAX = 100
"""Trades in quarantine beyond which audits put none there by themselves."""
STEPS_MAX = 10_000
"""Steps of one repair; each is on disk twice, in the log."""
_AGAIN = "look at it again"
_REPAIR_BYTES = 6
_BY_OWNER = (Repair.SNAPSHOT, Repair.BOOK)


class Repairs:
    """What an audit's findings have written, and nothing else writes."""

    def __init__(self, pool: RepairedPool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._folder: Path = settings.data_dir

    def plan(self, findings: Iterable[Finding], *, user_id: str | None = None) -> tuple[RepairStep, ...]:
        """What would be written about `findings` (of one user); writes nothing.

        What cannot be written is `refused`, and says why. Raises: StoreUnavailable, Fenced.
        """
        pool = self._pool_now()
        return tuple(fix.planned() for fix in self._fixes(pool, list(findings), user_id))

    def carry_out(self, findings: Iterable[Finding], *, user_id: str | None = None) -> tuple[RepairStep, ...]:
        """Write it; each step is `done`, or `refused` with the reason.

        Each looks again at what is wrong at that moment; what is no fault any more is no step. Durable on
        return, unless the last step says why not: the journal or the log cannot be written. Raises:
        StoreUnavailable, Fenced; then part of it may be done, and it may be called again.
        """
        pool = self._pool_now()
        return self._carried_out(pool, self._fixes(pool, list(findings), user_id))

    def quarantine(self, findings: Iterable[Finding]) -> tuple[RepairStep, ...]:
        """Quarantine the trades with a critical fault that nothing can repair, and write nothing else.

        None of them where more than `QUARANTINED_MAX` would be in quarantine then: so many faults are one
        fault of something else, and a person decides. Raises: as `carry_out`.
        """
        pool = self._pool_now()
        there = quarantined_count(pool)
        fixes: list[Fix] = []
        for fix in _guarded("trades", quarantine_fixes(pool, list(findings))):
            fixes.append(fix)
            if there + sum(one.act is not None for one in fixes) > QUARANTINED_MAX:
                log.critical("audits quarantine no more trades by themselves", most=QUARANTINED_MAX)
                why = f"more than {QUARANTINED_MAX} trades would be there; a person has to decide"
                return (refusal(Repair.QUARANTINE, "trades", why).planned(),)
        return self._carried_out(pool, iter(fixes))

    def _pool_now(self) -> RepairedPool:
        """What mends the server only as it is now: after a recovery nothing holds that was seen before."""
        generation = self._pool.store.generation()
        return self._pool._replace(mender=self._pool.mender.of(generation), generation=generation)

    def _carried_out(self, pool: RepairedPool, fixes: Iterator[Fix]) -> tuple[RepairStep, ...]:
        """An audit is not to be lost with its findings because the disk is full or the journal away."""
        told = RepairLog(self._folder, secrets.token_hex(_REPAIR_BYTES))
        steps: list[RepairStep] = []
        try:
            steps.extend(self._carry_out(fix, told) for fix in fixes)
            if any(step.state is RepairState.DONE for step in steps):
                await_journal(pool, pool.keys.shards)
                pool.store.check_generation(pool.generation)
        except (JournalUnavailable, ResourceUnavailable, Corrupt) as problem:
            steps.append(refusal(_AGAIN, "repairs", f"{problem}; then repair again").planned())
        return tuple(steps)

    def _carry_out(self, fix: Fix, told: RepairLog) -> RepairStep:
        if fix.act is None:
            return fix.planned()
        told.tell(fix, RepairState.PLANNED, self._pool.now_us())
        try:
            reason = fix.act()
        except (Corrupt, Misconfigured) as problem:
            reason = str(problem)
        state = RepairState.DONE if reason is None else RepairState.REFUSED
        told.tell(fix, state, self._pool.now_us(), reason)
        return fix.step(state, reason)

    def _fixes(self, pool: RepairedPool, findings: Sequence[Finding], user_id: str | None) -> Iterator[Fix]:
        """What to write, stage by stage: each is worked out once those before it are written."""
        told: set[tuple[str, str, str]] = set()
        for fix in self._stages(pool, findings, user_id):
            name = (fix.action, fix.subject, fix.detail)
            if (user_id is None or fix.user_id in (None, user_id)) and name not in told:
                if len(told) >= STEPS_MAX:
                    yield refusal(_AGAIN, "repairs", f"more than {STEPS_MAX} steps; repair these, then again")
                    return
                told.add(name)
                yield fix
        if all(action == PERSON for action, _, _ in told):
            yield from _unexplained(pool, findings)

    def _stages(self, pool: RepairedPool, findings: Sequence[Finding], user_id: str | None) -> Iterator[Fix]:
        yield from _guarded("keys", key_fixes(pool, findings))
        records = RecordRepairs(pool)
        yield from _guarded("records", _record_fixes(pool, findings, records))
        yield from _guarded("trades", quarantine_fixes(pool, findings, records))
        yield from _guarded("indexes", self._following(pool, findings, records, user_id))
        yield from _guarded("reservations", hold_fixes(pool, findings))
        yield from self._by_owner(findings)
        yield from cure_fixes(findings)

    def _following(
        self, pool: RepairedPool, findings: Sequence[Finding], records: RecordRepairs, user_id: str | None
    ) -> Iterator[Fix]:
        """What follows from records, shard by shard: their state is too much to have of all at once."""
        scope = Scope.of(pool, findings, records, user_id)
        lost = Lost(pool, scope.shards)
        for shard in sorted(scope.shards):
            fixes = beside_fixes(pool, shard, scope, records, lost)
            yield from _guarded(f"shard {shard:02x}", fixes, quiet=shard in scope.mistyped)
        for shard in sorted(scope.summed):
            fixes = sum_fixes(pool, shard, soundness=records.soundness(shard))
            yield from _guarded(f"shard {shard:02x}", fixes, quiet=shard in scope.mistyped)
        fields = [Keys.journal_field(shard) for shard in sorted(scope.differing)]
        yield from _guarded(Keys.journal, published_fixes(pool, fields))

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
            self._pool.owner[action]()
        except Misconfigured as problem:
            return str(problem)
        return None


def _unexplained(pool: RepairedPool, findings: Sequence[Finding]) -> Iterator[Fix]:
    """Sums that differ though each is right by itself: a record differs, and a deeper audit names it."""
    for subject in sorted({finding.subject for finding in findings if finding.rule == digest.name}):
        shard = int(subject.rpartition(" ")[2], 16)
        ours, theirs = pool.store.digest(shard), pool.store.journaled([shard])[0]
        if ours.position == theirs.position and (ours.digest, ours.count) != (theirs.digest, theirs.count):
            yield refusal(PERSON, subject, "an audit of the standard level names the record that differs")


def _record_fixes(pool: RepairedPool, findings: Sequence[Finding], records: RecordRepairs) -> Iterator[Fix]:
    """Records are put in their places first, then what stands in others goes."""
    strays = Strays(pool, findings)
    yield from records.fixes(findings, without=strays.names(), homeless=strays.homeless())
    yield from strays.fixes(records)


def _guarded(subject: str, fixes: Iterator[Fix], *, quiet: bool = False) -> Iterator[Fix]:
    """What else is broken ends its own stage: an audit is not to fail for what it could not repair.

    Where that is a key of a wrong type which has a step of its own, it is not told again: `quiet`.
    """
    try:
        yield from fixes
    except (Corrupt, JournalUnavailable, Misconfigured, ValueError) as problem:
        if not (quiet and isinstance(problem, Corrupt)):
            yield refusal(_AGAIN, subject, f"{problem}; a person has to decide")
