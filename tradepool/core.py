"""The write side: commands in, receipts out (the old trade_pool_core).

One call is one batch. Its commands find their shards (`tradepool.placing`), the pure model decides
against one fresh read (`tradepool.deciding`), and each shard gets one all-or-nothing commit, or several
where there are more than `batch_max` commands for it; all shards share their round trips. What lost a race
is decided again. With `durability = journal` a call returns only after the journal has fsynced what it
reports.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from tradepool.answering import answers_to
from tradepool.batching import batched
from tradepool.calls import Call, divided, joined
from tradepool.clock import now_us
from tradepool.commanding import add_trade_or_refusal, checked_trades
from tradepool.deciding import Result, ShardBatch
from tradepool.errors import Fenced, Rejected, VersionConflict
from tradepool.expiring import expire_reservations
from tradepool.grouping import Grouping
from tradepool.model import ids
from tradepool.model.commands import AddTrade, PoolCommand
from tradepool.placing import Placed, place
from tradepool.settings import Durability, Settings
from tradepool.store.answers import refused
from tradepool.store.durability import await_durable
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["Result", "TradeCore"]

WINDOW = 2000
"""Commands that share their round trips. They scatter over all shards, and what a commit costs the server
is the less for each of them the more of one shard it gets; `batch_max` of one shard at most."""
GROUPED_MAX = 20
"""Commands of a call that shares its commit with other threads' calls; a larger one has its own."""
BATCHES_AHEAD_MAX = 4
"""Batches that `apply_all` commits before it waits for the journal to have the first of them."""

_PAUSE_FIRST_S = 0.001
_PAUSE_MAX_S = 0.1


class _Begun(NamedTuple):
    """Calls committed together: their results in order, each shard's position, the generation they began in.

    The results call durable what will be, once the journal has it.
    """

    calls: Sequence[Call]
    results: list[Result]
    positions: dict[int, str]
    generation: str


class TradeCore:
    """Applies commands: the only writer of records."""

    def __init__(
        self,
        store: RedisStore,
        watermark: Watermark,
        settings: Settings,
        clock: Callable[[], int] = now_us,
    ) -> None:
        """`clock` tells the time, µs, at which reservations are over."""
        self._now_us = clock
        self._store = store
        self._watermark = watermark
        self._settings = settings
        self._is_journaled = settings.durability is Durability.JOURNAL
        self._grouping = Grouping(
            self._begin, self._finish, size_of=attrgetter("size"), size_max=settings.batch_max
        )

    def apply(self, commands: Sequence[PoolCommand], *, task_id: str = "") -> list[Result]:
        """Apply `commands` in order; one receipt or refusal for each, in the same order.

        A refusal concerns its own command only. With `durability = journal` every receipt is durable
        on return. `task_id` names the fleet's task in the journal; with it, a command that changed
        nothing, or that its record may soon not show, leaves an answer for the client that waits for it.

        A few commands are committed with those that other threads bring meanwhile (`Grouping`). That shows
        in nothing but the time it takes.

        Raises: StoreUnavailable, Fenced, JournalUnavailable, VersionConflict, Corrupt. Part of the
        batch may then be applied; sending the same commands again is safe.
        """
        if 0 < len(commands) <= GROUPED_MAX:
            return self._grouping.make(Call(commands, task_id))
        windows = self.apply_all(batched(commands, WINDOW), task_id=task_id)
        return [result for results in windows for result in results]

    def apply_all(
        self, batches: Iterable[Sequence[PoolCommand]], *, task_id: str = ""
    ) -> Iterator[list[Result]]:
        """`apply` of each batch, in order: the next ones are committed while the journal syncs the first.

        No more than `BATCHES_AHEAD_MAX` and the one to come are in memory.

        Raises: as `apply`; then the batches that were not returned may be applied or not.
        """
        begun: deque[_Begun] = deque()
        for commands in batches:
            begun.append(self._begin([Call(commands, task_id)]))
            if len(begun) > BATCHES_AHEAD_MAX:
                yield from self._finish(begun.popleft())
        while begun:
            yield from self._finish(begun.popleft())

    def add_all(self, trades: object) -> Iterator[Result]:
        """Add trades, given as a Trade or a dict; one result for each, in order.

        Raises: as `apply_all`.
        """
        given = checked_trades(trades)
        refusals: deque[list[Rejected | None]] = deque()

        def batches() -> Iterator[list[AddTrade]]:
            for batch in batched(given, WINDOW):
                made = [add_trade_or_refusal(trade) for trade in batch]
                refusals.append([given if isinstance(given, Rejected) else None for given in made])
                yield [given for given in made if isinstance(given, AddTrade)]

        for results in self.apply_all(batches()):
            applied = iter(results)
            for refusal in refusals.popleft():
                yield next(applied) if refusal is None else refusal

    def expire_reservations(self) -> int:
        """Give back every reservation whose time is over; how many this call gave back.

        Several may run at once: each reservation is given back by one of them. Raises: as `apply`.
        """
        return expire_reservations(self._store, self.apply, self._now_us)

    def refuse(self, command: PoolCommand, error: Rejected) -> None:
        """Leave the refusal of `command` as an answer for the client that waits for it."""
        self._store.put_answers({ids.short_id(command.command_id): refused(error)})

    def _begin(self, calls: Sequence[Call]) -> _Begun:
        """Commit, once more where the server was recovered since this process last looked.

        The generation is taken before, so that a recovery in between cannot be missed.
        """
        generation = self._store.commit_generation()
        commands, task_ids = joined(calls)
        try:
            results, positions = self._commit(commands, task_ids, generation)
        except Fenced:
            if (current := self._store.generation()) == generation:
                raise
            generation = current
            results, positions = self._commit(commands, task_ids, generation)
        return _Begun(calls, results, positions, generation)

    def _finish(self, begun: _Begun) -> list[list[Result]]:
        """The results of each call."""
        if self._is_journaled:
            wait_s = self._settings.journal_wait_s
            await_durable(self._store, self._watermark, begun.positions, begun.generation, wait_s)
        results = divided(begun.calls, begun.results)
        answers = answers_to(begun.calls, results)
        if answers:
            self._store.put_answers(answers)
        return results

    def _commit(
        self, commands: Sequence[PoolCommand], task_ids: Sequence[str], generation: str
    ) -> tuple[list[Result], dict[int, str]]:
        """Results in order, and for each shard the position that covers its part of them.

        What loses a race to another writer is placed and decided again, a bounded number of times.

        Raises: Fenced when the server is not of `generation`; VersionConflict.
        """
        results: dict[int, Result] = {}
        positions: dict[int, str] = {}
        waiting: Mapping[int, PoolCommand] = dict(enumerate(commands))
        for attempt in range(self._settings.commit_attempts_max):
            placement = place(self._store, waiting)
            results.update(placement.refused)
            for wave in self._waves(placement.shards):
                batches = self._decide(wave, task_ids, is_first=attempt == 0)
                committed = self._commit_all(batches, generation)
                for shard, position in committed.items():
                    results |= batches[shard].results(position, durable=self._is_journaled)
                    positions[shard] = position
                for shard in batches.keys() - committed.keys():
                    # What comes after in the shard was not decided on what is there now.
                    del placement.shards[shard]
            waiting = {number: command for number, command in waiting.items() if number not in results}
            if not waiting:
                return [results[number] for number in range(len(commands))], positions
            _step_aside(attempt)
        attempts = self._settings.commit_attempts_max
        raise VersionConflict(f"lost {attempts} races in a row; send the same commands again")

    def _waves(self, shards: Mapping[int, list[Placed]]) -> Iterator[dict[int, list[Placed]]]:
        """The commands of all shards in steps, of each shard as many as one commit takes.

        A shard that is deleted from `shards` meanwhile is left out from then on.
        """
        size = self._settings.batch_max
        for start in range(0, max(map(len, shards.values()), default=0), size):
            parts = {shard: items[start : start + size] for shard, items in shards.items()}
            yield {shard: part for shard, part in parts.items() if part}

    def _decide(
        self, placed: Mapping[int, list[Placed]], task_ids: Sequence[str], *, is_first: bool
    ) -> dict[int, ShardBatch]:
        """The batch of each shard, decided against one read of all their records.

        A first attempt takes the ids, keys and fills of new trades for free: the commit refuses what is
        not, and the next attempt asks.
        """
        wanted = {
            (shard, record_id): None
            for shard, items in placed.items()
            for item in items
            for record_id in item.to_read(is_first=is_first)
        }
        values = dict(zip(wanted, self._store.read(list(wanted)), strict=True)) if wanted else {}
        now, batches = self._now_us(), {}
        for shard, items in placed.items():
            batch = ShardBatch(self._store, shard, task_ids=task_ids, look_up_owners=not is_first, now_us=now)
            record_ids = [i for item in items for i in (*item.record_ids, *item.to_read(is_first=True))]
            batch.decide(items, {record_id: values.get((shard, record_id)) for record_id in record_ids})
            batches[shard] = batch
        return batches

    def _commit_all(self, batches: Mapping[int, ShardBatch], generation: str) -> dict[int, str]:
        """The position of each shard that went through.

        A shard without changes stands at its newest position, which covers whatever its commands repeat, if
        that was read in `generation`: no commit has looked.
        """
        lost = self._claim_routes(batches)
        changes = {
            shard: batch.changes for shard, batch in batches.items() if batch.changes and shard not in lost
        }
        committed = self._store.commit_all(changes) if changes else {}
        unchanged = [shard for shard, batch in batches.items() if not batch.changes]
        if not unchanged:
            return committed
        positions = self._store.positions_in(generation, unchanged)
        return committed | dict(zip(unchanged, positions, strict=True))

    def _claim_routes(self, batches: Mapping[int, ShardBatch]) -> set[int]:
        """Make new trades findable whose ids carry no slot, before they exist.

        Shards in the result have to be decided again: another user was faster with the same id.
        """
        wanted = {
            trade_id: (shard, slot) for shard, batch in batches.items() for trade_id, slot in batch.routes()
        }
        if not wanted:
            return set()
        owners = self._store.put_routes({trade_id: slot for trade_id, (_, slot) in wanted.items()})
        return {shard for trade_id, (shard, slot) in wanted.items() if owners[trade_id] != slot}


def _step_aside(attempt: int) -> None:
    """Let the others through: after each lost race a pause of random length, twice as long at most."""
    time.sleep(random.uniform(0, min(_PAUSE_FIRST_S * 2**attempt, _PAUSE_MAX_S)))  # noqa: S311 - guards nothing
