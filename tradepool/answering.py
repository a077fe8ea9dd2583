"""What a client that waits for its commands could not learn from their records, or not for long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tradepool.calls import Call
from tradepool.deciding import Result
from tradepool.errors import Rejected
from tradepool.model import ids
from tradepool.model.changes import APPLIED_MAX
from tradepool.model.commands import PoolCommand
from tradepool.model.ledger import ReservationStatus
from tradepool.model.receipt import Receipt
from tradepool.model.token_commands import ReserveTokens, TokenCommand

__all__ = ["answers_to"]


def answers_to(calls: Iterable[Call], results: Iterable[Sequence[Result]]) -> dict[str, str]:
    """Outcomes by short command id, of the calls of tasks, given in the order in which they were applied.

    A record shows its last few commands; so those are told that changed nothing, or that others of the same
    batch will have pushed out. Refusals are not among them.
    """
    told = [
        pair
        for call, of_call in zip(calls, results, strict=True)
        if call.task_id
        for pair in zip(call.commands, of_call, strict=True)
    ]
    answers: dict[str, str] = {}
    later: Counter[str] = Counter()
    for command, result in reversed(told):
        if isinstance(result, Rejected):
            continue
        if result.outcome == "applied":
            later[result.trade_id] += 1
            is_seen = later[result.trade_id] <= APPLIED_MAX and not isinstance(command, TokenCommand)
            if is_seen:
                continue
        answers[ids.short_id(command.command_id)] = _answer(command, result)
    return answers


def _answer(command: PoolCommand, receipt: Receipt) -> str:
    """The outcome; of a reserve that found its key used up what it is for a bot: too late."""
    held = receipt.reservation
    is_gone = held is not None and held.status is not ReservationStatus.OPEN
    return "stale" if isinstance(command, ReserveTokens) and is_gone else receipt.outcome
