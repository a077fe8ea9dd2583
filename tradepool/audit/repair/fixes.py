"""One thing to write, and what all repairs work with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from tradepool.audit.registry import Repair
from tradepool.audit.report import RepairState, RepairStep, shown
from tradepool.deciding import Result
from tradepool.model.commands import PoolCommand
from tradepool.store.keys import Keys
from tradepool.store.mending import Look, Mender, Mending, Write
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["CHANGED", "Fix", "Tools", "mended", "refusal", "stated"]

CHANGED = "it has changed meanwhile; the next audit tells"


class Tools(NamedTuple):
    """The pool as repairs see it."""

    store: RedisStore
    mender: Mender
    apply: Callable[[Sequence[PoolCommand]], list[Result]]
    """Applies commands as `TradeCore.apply` does."""
    watermark: Watermark
    journal: Path
    now_us: Callable[[], int]
    recent_max: int
    """Trades that a shard's list of recent ones keeps."""
    owner: Mapping[Repair, Callable[[], object]]
    """What only some processes can do: how this one does it."""
    generation: str = ""
    """That of the server when the repair began."""

    @property
    def keys(self) -> Keys:
        """The keys of the store."""
        return self.store.keys


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


def mended(tools: Tools, looks: Iterable[Look], writes: Iterable[Write]) -> Callable[[], str | None]:
    """The action that writes if everything is as it was seen."""
    mending = Mending(list(looks), list(writes))
    return lambda: None if tools.mender.mend(mending) else CHANGED


def stated(value: object) -> str:
    """A value in a step's words."""
    return "nothing" if value is None else f"{value}"
