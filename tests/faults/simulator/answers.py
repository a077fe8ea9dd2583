"""Every answer a writer got, held against the journal: there once, at its version, in order of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.simulator.journal_lines import JournalFiles, Line, place_of
from tests.faults.simulator.writers import Answer
from tradepool.model.receipt import Receipt

__all__ = ["check_answers"]


def check_answers(answers: list[Answer], journal: JournalFiles, *, expected: int) -> Iterator[str]:
    """Nothing acknowledged is missing, nothing refused is applied, and nobody saw a record go back."""
    if len(answers) != expected:
        yield f"{len(answers)} answers to {expected} commands"
    by_command = {line.e: line for line in journal.lines}
    applied_first: dict[str, Answer] = {}
    for answer in answers:
        line = by_command.get(answer.command_id)
        if answer.receipt is None:
            continue
        if not answer.receipt.durable:
            yield f"not durable: {_shown(answer, line)}"
        yield from _check_receipt(answer, answer.receipt, line, journal)
        if answer.receipt.outcome == "applied":
            earlier = applied_first.setdefault(answer.command_id, answer)
            if earlier is not answer:
                yield f"applied twice: {_shown(answer, line)}"
    yield from _check_refusals(answers, by_command)
    yield from _check_order(answers)


def _check_receipt(
    answer: Answer, receipt: Receipt, line: Line | None, journal: JournalFiles
) -> Iterator[str]:
    """An applied command is in the journal as its receipt says; any version that was told is there."""
    history = journal.history.get(receipt.trade_id, [])
    if receipt.outcome == "applied":
        if line is None:
            yield f"acknowledged and not in the journal: {_shown(answer, line)}"
        elif (line.id, line.v) != (receipt.trade_id, receipt.version):
            yield f"the journal has it otherwise: {_shown(answer, line)}"
        elif place_of(line.x) > place_of(receipt.position):
            yield f"it stands behind the position of its receipt: {_shown(answer, line)}"
    elif receipt.version > len(history) or (receipt.version == 0 and receipt.outcome == "duplicate"):
        yield f"a version was told that is not in the journal: {_shown(answer, line)}"


def _check_refusals(answers: list[Answer], by_command: dict[str, Line]) -> Iterator[str]:
    """A command that was refused each time it was answered changed nothing."""
    accepted = {answer.command_id for answer in answers if answer.receipt is not None}
    for answer in answers:
        line = by_command.get(answer.command_id)
        if answer.receipt is None and line is not None and answer.command_id not in accepted:
            yield f"refused, and in the journal: {_shown(answer, line)}"


def _check_order(answers: list[Answer]) -> Iterator[str]:
    """Whoever asks after somebody has been answered sees at least that version: history is one line."""
    by_record: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.receipt is not None:
            by_record[answer.receipt.trade_id].append(answer)
    for of_record in by_record.values():
        ended = sorted(of_record, key=lambda answer: answer.ended_s)
        newest, place = 0, 0
        for answer in sorted(of_record, key=lambda answer: answer.begun_s):
            while ended[place].ended_s < answer.begun_s:
                newest = max(newest, _version(ended[place]))
                place += 1
            is_new = answer.receipt is not None and answer.receipt.outcome == "applied"
            if _version(answer) < newest + is_new:
                yield f"version {newest} was told before, then: {_shown(answer, None)}"


def _version(answer: Answer) -> int:
    return 0 if answer.receipt is None else answer.receipt.version


def _shown(answer: Answer, line: Line | None) -> str:
    receipt = answer.receipt
    told = (
        answer.refusal if receipt is None else f"{receipt.outcome} {receipt.trade_id!r} v={receipt.version}"
    )
    at = "" if receipt is None else f" at {receipt.position}"
    return f"writer {answer.writer} {answer.command_id} ({answer.op}): {told}{at}\n    {line or 'no line'}"
