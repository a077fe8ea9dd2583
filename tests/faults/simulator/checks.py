"""What must hold once everything has come to rest, checked from the files and from the server.

Nothing here uses the code under test to find its own mistakes, except for `last_checks`, which runs the
pool's own audit and a recovery into an empty server as well.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from tests.audit_reports import contradictions
from tests.faults.simulator.answers import check_answers
from tests.faults.simulator.journal_lines import JournalFiles, Line, place_of, read_journal
from tests.faults.simulator.ledgers import check_ledgers
from tests.faults.simulator.server_process import ServerProcess
from tests.faults.simulator.stage import JOURNAL, SHARD_COUNT, Stage
from tests.faults.simulator.store_contents import Contents, actual_contents, expected_contents
from tests.faults.simulator.trades import check_trades
from tests.faults.simulator.workload import Batch
from tests.faults.simulator.writers import read_notes
from tradepool import wiring
from tradepool.errors import TradePoolError
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.journaling.recovery import recover
from tradepool.model import codec
from tradepool.model.commands import Command
from tradepool.store.connection import connect
from tradepool.store.keys import Keys

__all__ = ["check_everything"]

_SHOWN_MAX = 12


def check_everything(stage: Stage) -> tuple[list[str], dict[str, int]]:
    """All violations, in words, with the journal's lines that show them; and the lines of each kind."""
    journal = read_journal(stage.data_dir)
    found = list(journal.problems)
    found += check_lines(journal)
    commands = _commands(stage.plan.batches)
    answers = [
        answer
        for number in range(len(stage.plan.batches))
        for batch in read_notes(stage.notes(number))[1].values()
        for answer in batch
    ]
    found += check_answers(answers, journal, expected=_sent(stage))
    found += check_trades(answers, commands, journal)
    found += check_ledgers(commands, journal)
    if not found:
        found += _check_server(stage, journal)
    if not found:
        found += _last_checks(stage, journal)
    shown = found[:_SHOWN_MAX]
    shown += [f"… and {len(found) - len(shown)} more"] * (len(found) > len(shown))
    return shown, dict(Counter(line.k for line in journal.lines))


def check_lines(journal: JournalFiles) -> Iterator[str]:
    """Each record's versions run from 1 without gap or fork, each on the one before; no command twice."""
    for record_id, history in journal.history.items():
        made_of = ["", *(line.d for line in history)]
        if any((line.v, line.p) != (n, made_of[n - 1]) for n, line in enumerate(history, start=1)):
            yield f"record {record_id!r} is not one line of versions: {_shown(history)}"
        if len({line.s for line in history}) > 1:
            yield f"record {record_id!r} is in two shards: {_shown(history)}"
    yield from (
        f"a line's digest is not its record's: {line}" for line in journal.lines if line.digest != line.d
    )
    by_command: dict[str, list[Line]] = {}
    for line in journal.lines:
        # One run archives many trades, each once: it is the last version of its record.
        if line.k != "a":
            by_command.setdefault(line.e, []).append(line)
        elif line is not journal.history[line.id][-1]:
            yield f"an archived trade went on: {_shown(journal.history[line.id])}"
    for command_id, lines in by_command.items():
        if len(lines) > 1:
            yield f"command {command_id} is applied {len(lines)} times: {_shown(lines)}"


def _check_server(stage: Stage, journal: JournalFiles) -> list[str]:
    """Records, digests, counts, counters, indexes and claims are those of the journal; nothing waits."""
    keys = Keys(SHARD_COUNT)
    try:
        expected = expected_contents(journal, keys)
    except AssertionError as twice:
        return [f"the journal contradicts itself: {twice}"]
    with stage.server.client() as client:
        actual = actual_contents(client)
        found = list(_differences("the server", expected, actual))
        for shard in range(SHARD_COUNT):
            if client.xlen(keys.outbox(shard)):
                found.append(f"shard {shard}: the outbox is not empty after the journal was closed")
            found += _check_watermark(client.hget(keys.journal, keys.journal_field(shard)), shard, journal)
    return found


def _check_watermark(stored: bytes | None, shard: int, journal: JournalFiles) -> Iterator[str]:
    """What is published of a shard is what the files hold of it."""
    position, digest, count = (stored or b"0-0 0000000000000000 0").decode().split()
    newest = [history[-1] for history in journal.history.values() if history[-1].s == shard]
    xor = 0
    for line in newest:
        xor ^= int(line.d, 16)
    if place_of(position) != place_of(journal.positions.get(shard, "0-0")):
        yield f"shard {shard}: published {position}, journaled {journal.positions.get(shard)}"
    if (digest, int(count)) != (f"{xor:016x}", len(newest)):
        yield f"shard {shard}: published {digest} of {count}, the files hold {xor:016x} of {len(newest)}"


def _last_checks(stage: Stage, journal: JournalFiles) -> list[str]:
    """The pool's own audit, and a recovery of an empty server from the files alone."""
    with contextlib.closing(wiring.connect(stage.settings("checks"))) as services:
        report = services.audit.check_all_trades(deep=True)
        found = [f"audit: {finding}" for finding in contradictions(report)]
        found += _check_archive(services, journal)
    again = ServerProcess(stage.folder / "recovered")
    again.start()
    try:
        again.wait_ready()
        found += _recover(stage, again, expected_contents(journal, Keys(SHARD_COUNT)))
    finally:
        again.kill()
    return found


def _check_archive(services: wiring.Services, journal: JournalFiles) -> Iterator[str]:
    """An archived trade can still be read, as it was when it ended."""
    for trade_id, history in journal.history.items():
        if history[-1].k == "a":
            found = codec.encode_trade(services.queries.get_trade(trade_id))
            if found != bytes(history[-2].r):
                yield f"the archive has another {trade_id!r}: {found.decode()}\n    {history[-2]}"


def _recover(stage: Stage, server: ServerProcess, expected: Contents) -> list[str]:
    settings = stage.settings(JOURNAL).model_copy(update={"redis_url": server.url})
    keys = Keys(SHARD_COUNT)
    try:
        with connect(settings) as client, Journal(settings.data_dir / JOURNAL_NAME, SHARD_COUNT) as journal:
            recover(client, keys, journal, settings)
    except TradePoolError as problem:
        return [f"an empty server cannot be recovered: {type(problem).__name__}: {problem}"]
    with server.client() as client:
        return list(_differences("the recovered server", expected, actual_contents(client)))


def _differences(who: str, expected: Contents, actual: Contents) -> Iterator[str]:
    for key in sorted(expected.keys() | actual.keys()):
        wanted, found = expected.get(key, {}), actual.get(key, {})
        if key.endswith(":route"):
            # Who claims an id's route may die before its add; the claim of an unknown id harms nobody.
            found = {trade_id: slot for trade_id, slot in found.items() if trade_id in wanted}
        if wanted != found:
            yield f"{who}: {key}: {_difference(wanted, found)}"


def _difference(wanted: object, found: object) -> str:
    if isinstance(wanted, dict) and isinstance(found, dict):
        names = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        return "; ".join(f"{name}: {found.get(name)}, not {wanted.get(name)}" for name in sorted(names)[:3])
    return f"{found}, not {wanted}"


def _commands(batches: tuple[tuple[Batch, ...], ...]) -> dict[str, Command]:
    return {
        command.command_id: command
        for of_writer in batches
        for batch in of_writer
        for command in batch.commands
    }


def _sent(stage: Stage) -> int:
    return sum(len(batch.commands) for of_writer in stage.plan.batches for batch in of_writer)


def _shown(lines: list[Line]) -> str:
    return "".join(f"\n    {line}" for line in lines[-40:])
