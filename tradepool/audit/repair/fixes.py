"""One thing to write, and how a repair says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.report import RepairState, RepairStep, shown
from tradepool.store.mending import Look, Mending, Write

__all__ = ["CHANGED", "Fix", "mended", "refusal", "stated"]

CHANGED = "it has changed meanwhile; the next audit tells"


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that was there a moment ago, and what would be written about it.

    `act` writes it, if the fault is still the same; it returns why not, None once it is done.
    """

    action: str
    subject: str
    detail: str
    act: Callable[[], str | None] | None
    """None: nothing can be written, and `detail` says why."""
    user_id: str | None = None
    """Whose it is; None: it concerns more than one user."""
    overwrites: str = ""
    """What was there, as far as nothing else has it; for the log."""

    def planned(self) -> RepairStep:
        """The step before anything is written."""
        return self.step(RepairState.PLANNED if self.act is not None else RepairState.REFUSED)

    def step(self, state: RepairState, reason: str | None = None) -> RepairStep:
        """The step as it ended."""
        detail = self.detail if reason is None else f"{self.detail}: {reason}"
        return RepairStep(action=self.action, subject=self.subject, detail=detail, state=state)


def refusal(action: str, subject: str, why: str, user_id: str | None = None) -> Fix:
    """That nothing is written, and why."""
    return Fix(action=action, subject=shown(subject), detail=why, act=None, user_id=user_id)


def mended(pool: RepairedPool, looks: Iterable[Look], writes: Iterable[Write]) -> Callable[[], str | None]:
    """The action that writes if everything is as it was seen."""
    mending = Mending(list(looks), list(writes))
    return lambda: None if pool.mender.mend(mending) else CHANGED


def stated(value: object) -> str:
    """A value in a step's words."""
    return "nothing" if value is None else f"{value}"
