"""What the records of a run must hold at its end, read from journal and store.

The journal is read by the fault simulator's reader and the store is compared with its model of it, which
share no code with the product; only the deep audit at the end is the pool's own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from tests.faults.simulator.journal_lines import JournalFiles, Line, read_journal
from tests.faults.simulator.store_contents import actual_contents, expected_contents
from tests.fleet.chaos.stage import CLIENTS, Stage
from tests.fleet.chaos.workload import ASSET, TOLD, Step, client_trades, users_of, windows_of
from tradepool.pool import TradePool
from tradepool.store.keys import Keys

__all__ = ["check_lines", "check_records"]

_SHOWN_MAX = 12
_REPAIR = "repair:"
"""What the ids of commands begin with that no client has sent."""


def check_records(stage: Stage) -> list[str]:
    """Journal and store hold what the clients handed in, each command once, and nothing else."""
    journal = read_journal(stage.data_dir)
    found = list(journal.problems)
    found += check_lines(journal)
    expected = _expected(stage)
    found += _check_histories(expected, journal)
    with TradePool.connect(stage.settings) as pool:
        if not found:
            found += _check_store(pool, journal)
            found += _check_sums(pool, expected)
        report = pool.check_all_trades(deep=True)
        if not report.ok or report.undecided:
            found.append(f"deep audit: {report.counts} {report.findings[:_SHOWN_MAX]} {report.undecided}")
    return found[:_SHOWN_MAX] + [f"… and {len(found) - _SHOWN_MAX} more"] * (len(found) > _SHOWN_MAX)


def _expected(stage: Stage) -> dict[str, list[Step]]:
    """Of every record the commands that make its versions, in order."""
    records: defaultdict[str, dict[int, Step]] = defaultdict(dict)
    for client in range(CLIENTS):
        for window in windows_of(stage.seed, client, client_trades(stage.trades, CLIENTS, client)):
            for step in window.steps:
                records[step.record_id][step.version] = step
                if step.beside:
                    records[f"{step.user_id}\x1fdefault"][step.beside] = step
    return {record_id: [steps[v] for v in sorted(steps)] for record_id, steps in records.items()}


def check_lines(journal: JournalFiles) -> Iterator[str]:
    """Each record's versions run from 1, each made from the one before; a command makes one version of it."""
    for record_id, history in journal.history.items():
        made_of = ["", *(line.d for line in history)]
        if any((line.v, line.p) != (n, made_of[n - 1]) for n, line in enumerate(history, start=1)):
            yield f"{record_id!r} is not one line of versions: {list(map(str, history))}"
        if any(line.digest != line.d for line in history):
            yield f"{record_id!r} has another digest than its lines say: {list(map(str, history))}"
        commands = Counter(line.e for line in history)
        twice = [command_id for command_id, times in commands.items() if times > 1]
        yield from (f"command {one} was applied twice to {record_id!r}" for one in twice)
        # The fleet's audits put a trade in quarantine, and with it back into a journal that has lost it.
        mended = [str(line) for line in history if line.e.startswith(_REPAIR)]
        yield from (f"{record_id!r} needed a repair: {line}" for line in mended)


def _check_histories(expected: dict[str, list[Step]], journal: JournalFiles) -> Iterator[str]:
    for record_id in expected.keys() - journal.history.keys():
        yield f"{record_id!r} was handed in and is not in the journal"
    for record_id in journal.history.keys() - expected.keys():
        yield f"{record_id!r} is in the journal and nobody handed it in"
    for record_id, steps in expected.items():
        history = journal.history.get(record_id, [])
        if history and len(history) != len(steps):
            made = [str(line) for line in history]
            yield f"{record_id!r}: {len(steps)} commands, {len(history)} versions: {made}"
        elif history:
            yield from _check_ledger(steps, history) if history[0].k == "l" else _check_trade(steps, history)


def _check_trade(steps: list[Step], history: list[Line]) -> Iterator[str]:
    """Each version shows what its command asked, and filled and closed are the sums."""
    filled = closed = Decimal(0)
    for step, line in zip(steps, history, strict=True):
        made = msgspec.json.decode(line.r)
        match step.op:
            case "add":
                is_shown = all(made[name] == value for name, value in step.given["trade"].items())
            case "fill":
                filled += Decimal(step.given["fill"]["amount"])
                is_shown = [fill["fill_id"] for fill in made["fills"]].count(
                    step.given["fill"]["fill_id"]
                ) == 1
            case "update":
                is_shown = made["stop_loss"] == step.given["stop_loss"]
            case _:
                closed = filled
                is_shown = Decimal(made["fills"][-1]["price"]) == Decimal(step.given["price"])
        sums = (Decimal(made.get("filled", "0")), Decimal(made.get("closed", "0")))
        if not is_shown or sums != (filled, closed):
            yield f"{step} made something else: {line} {line.r!r}"


def _check_ledger(steps: list[Step], history: list[Line]) -> Iterator[str]:
    """Each version has what is free and what is set aside after its command."""
    free = reserved = Decimal(0)
    for step, line in zip(steps, history, strict=True):
        match step.op:
            case "told":
                free = TOLD
            case "add":
                reserved += Decimal(step.given["reserve"]["amount"])
            case _:
                free -= Decimal(step.given["spent"])
                reserved -= Decimal(step.given["spent"])
        asset = msgspec.json.decode(line.r)["assets"][ASSET]
        if (Decimal(asset.get("free", "0")), Decimal(asset.get("reserved", "0"))) != (free, reserved):
            yield f"after {step} the ledger is {asset}, and should have {free} free, {reserved} reserved"


def _check_store(pool: TradePool, journal: JournalFiles) -> Iterator[str]:
    """The server holds what follows from the journal, key by key, and nothing waits for the journal."""
    keys = Keys(pool.settings.shard_count)
    expected = expected_contents(journal, keys, recent_max=pool.settings.recent_max)
    actual = actual_contents(pool.redis)
    for key in sorted(expected.keys() | actual.keys()):
        if expected.get(key) != actual.get(key):
            yield f"{key}: {str(actual.get(key))[:300]}, the journal makes {str(expected.get(key))[:300]}"
    if any(pool.store.outbox_lengths()):
        yield f"outboxes are not empty: {pool.store.outbox_lengths()}"


def _check_sums(pool: TradePool, expected: dict[str, list[Step]]) -> Iterator[str]:
    """Each user's realised PnL is the sum over his closed trades, added up here."""
    realised: defaultdict[str, Decimal] = defaultdict(Decimal)
    for steps in expected.values():
        if steps[-1].op == "close":
            trade = steps[0].given["trade"]
            gain = Decimal(steps[-1].given["price"]) - Decimal(trade["price"])
            realised[steps[0].user_id] += gain * Decimal(trade["amount"])
    for user_id in (user for client in range(CLIENTS) for user in users_of(client)):
        blocks = pool.get_user_summary(user_id, source="all").by_currency
        stored = blocks[ASSET].pnl if ASSET in blocks else Decimal(0)
        if stored != realised[user_id]:
            yield f"{user_id} has made {stored}, his closed trades say {realised[user_id]}"
