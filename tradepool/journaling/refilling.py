"""Filling empty shards of a fenced store from the files: the snapshot, if there is one, then the journal.

Working out what to write costs several times what the server needs to take it, so a large pool is filled
by several processes, each with some of the shards. They read the same files and share nothing else.
"""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Protocol

import msgspec
import redis
from redis.cluster import RedisCluster

from tradepool import errors
from tradepool.files.lines import JournalLine
from tradepool.files.point import JournalPoint, Place
from tradepool.files.reading import read_lines
from tradepool.files.snapshot import StoredRecord, read_archived_counters, read_snapshot
from tradepool.journaling.replay import Replay, ReplayTarget, Restoring
from tradepool.settings import Settings
from tradepool.store.connection import Client, connect, unbroken
from tradepool.store.filling import Filling, prepare
from tradepool.store.keys import Keys
from tradepool.store.plan import CHANGES_MAX
from tradepool.store.redis_store import RedisStore
from tradepool.store.translation import translated

__all__ = ["Refill", "Refilled", "refill", "serve"]

_LINES_WAITING_MAX = 32_768
"""Lines of a process that wait for more of their shard, about 2 kB each."""
_BATCH_MIN = 64
_RECORDS_PER_PROCESS_MIN = 50_000
"""A process takes half a second to start."""
_PROCESSES_MAX = 8
"""More would wait for the server."""
_PING_S = 5.0
_SERVE = "from tradepool.journaling.refilling import serve; serve()"


class Refill(msgspec.Struct, frozen=True, kw_only=True):
    """What to fill, and from what."""

    journal: Path
    records: dict[int, int]
    """Each shard that is to be filled, and how many records it will have."""
    snapshot: JournalPoint | None
    """Where the journal stood before its snapshot was taken; None to go without snapshot."""
    until: Place
    """Where the journal stands: what its files have behind that is not confirmed."""


class Refilled(msgspec.Struct, frozen=True, kw_only=True):
    """Journal lines that were read for it, records taken from the snapshot, processes that did it."""

    replayed: int = 0
    from_snapshot: int = 0
    processes: int = 1


class _Target(ReplayTarget, Protocol):
    def count_archived(self, user_id: str, amounts: Mapping[str, int]) -> None:
        """Count a user's archived trades whose versions nobody has any more; before his records come."""


def refill(client: Client, settings: Settings, work: Refill) -> Refilled:
    """Write all that the files have of the shards: in bulk, and when that was cut short, from the start.

    A cluster gets it through the commit script, for its client may send a pipeline twice.

    Raises: Corrupt, StoreUnavailable, and what reading the journal raises.
    """
    if isinstance(client, RedisCluster):
        store = RedisStore(client, Keys(settings.shard_count), settings)
        return _replayed(Restoring(store), store.keys, work, is_empty=False)
    mark = prepare(client, Keys(settings.shard_count), work.records)
    parts = _parts(work)
    if len(parts) == 1:
        return _filled(client, settings, work, mark)
    return _filled_by_processes(client, settings, parts, mark)


def serve() -> None:
    """Be one of the processes: fill what standard input says, answer on standard output.

    Ends at once when standard input ends: then nobody wants the answer any more.
    """
    settings, work, mark = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    threading.Thread(target=_end_with_owner, daemon=True).start()
    try:
        with closing(connect(settings)) as client, unbroken(client) as server:
            assert isinstance(server, redis.Redis)
            answer: Refilled | errors.TradePoolError = _filled(server, settings, work, mark)
    except errors.TradePoolError as problem:
        answer = problem
    sys.stdout.buffer.write(pickle.dumps(answer))


def _filled(client: redis.Redis, settings: Settings, work: Refill, mark: str) -> Refilled:
    with Filling(client, settings, work.records, mark) as filling:
        done = _replayed(filling, Keys(settings.shard_count), work, is_empty=True)
        filling.finish()
    return done


def _replayed(target: _Target, keys: Keys, work: Refill, *, is_empty: bool) -> Refilled:
    """Write to `target`; `is_empty` promises that it has nothing of the shards yet."""
    batch_max = max(_BATCH_MIN, _LINES_WAITING_MAX // len(work.records))
    if isinstance(target, Restoring):
        batch_max = min(batch_max, CHANGES_MAX)
    replay = Replay(target, batch_max=batch_max, begins_empty=is_empty)
    from_snapshot = 0
    if work.snapshot is not None:
        for user_id, counters in read_archived_counters(work.journal.parent):
            if keys.shard_of_user(user_id) in work.records:
                target.count_archived(user_id, counters)
        from_snapshot = replay.records(_records(keys, work))
    replayed = replay.lines(_lines(work))
    return Refilled(replayed=replayed, from_snapshot=from_snapshot)


def _records(keys: Keys, work: Refill) -> Iterator[tuple[int, StoredRecord]]:
    wanted = read_snapshot(work.journal.parent, lambda user_id: keys.shard_of_user(user_id) in work.records)
    return ((keys.shard_of_user(record.content.user_id), record) for record in wanted)


def _lines(work: Refill) -> Iterator[JournalLine]:
    lines = read_lines(work.journal, since=work.snapshot, until=work.until)
    return (line for line in lines if line.shard in work.records)


def _parts(work: Refill) -> list[Refill]:
    """The work for each process: as many records for one as for the other, about."""
    wanted = sum(work.records.values()) // _RECORDS_PER_PROCESS_MIN
    count = max(1, min(wanted, os.cpu_count() or 1, _PROCESSES_MAX, len(work.records)))
    by_size = sorted(work.records, key=lambda shard: work.records[shard])
    return [
        msgspec.structs.replace(work, records={shard: work.records[shard] for shard in by_size[i::count]})
        for i in range(count)
    ]


def _filled_by_processes(
    client: redis.Redis, settings: Settings, parts: Collection[Refill], mark: str
) -> Refilled:
    with ExitStack() as running:
        processes = [_started(running, pickle.dumps((settings, part, mark))) for part in parts]
        answers = [_answer(process, client) for process in processes]
    return Refilled(
        replayed=sum(answer.replayed for answer in answers),
        from_snapshot=sum(answer.from_snapshot for answer in answers),
        processes=len(answers),
    )


def _started(running: ExitStack, work: bytes) -> subprocess.Popen[bytes]:
    """A process at `work`, which is killed when `running` ends."""
    try:
        # Not multiprocessing: that would run the main module of whoever uses this library once more.
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
            # Ctrl-C is for its owner, who ends it.
            start_new_session=True,
        )
    except OSError as problem:
        raise errors.ResourceUnavailable(
            f"no process can be started to fill the store: {problem.strerror}; make room for one"
        ) from problem
    running.enter_context(process)
    running.callback(process.kill)
    assert process.stdin is not None
    # One that is dead already gives no answer either.
    with suppress(BrokenPipeError):
        process.stdin.write(work)
        process.stdin.flush()
    return process


def _answer(process: subprocess.Popen[bytes], client: redis.Redis) -> Refilled:
    assert process.stdout is not None
    # The client's one connection must not be cut off as idle, and a server that died need not be waited for.
    while not select.select([process.stdout], [], [], _PING_S)[0]:
        with translated():
            client.ping()
    words = process.stdout.read()
    if not words:
        raise errors.StoreUnavailable("a process that was filling the store has ended; recovery begins again")
    answer: Refilled | errors.TradePoolError = pickle.loads(words)  # noqa: S301 - our own process's
    if isinstance(answer, errors.TradePoolError):
        raise answer
    return answer


def _end_with_owner() -> None:
    # Not through the buffer, whose lock the interpreter wants when it ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)
