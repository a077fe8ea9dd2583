"""What tells how a pool is: everything in the store that whoever watches it asks for, in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from redis.cluster import RedisCluster

from tradepool.errors import Fenced
from tradepool.latencies import LatencyCounts
from tradepool.store import fence
from tradepool.store.audit_reports import ReportName, report_names
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.progress import OutboxHead, ask_outbox_heads
from tradepool.store.translation import text_of, translated
from tradepool.store.watermark import JournaledShard, parse_watermark

__all__ = [
    "BEAT_EVERY_S",
    "JournalLatencies",
    "Memory",
    "StoreVitals",
    "Vitals",
    "WorkerBeat",
    "worker_text",
]

BEAT_EVERY_S = 5.0
"""How often a worker tells that it lives."""
FORGOTTEN_AFTER_US = 3_600_000_000
"""After how long a worker that has fallen silent is no longer missed."""
_CREATED_FIELD = "created"


class JournalLatencies(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal's writer has measured since it began; `at` is µs."""

    at: int
    fsync: LatencyCounts
    """A group of changes onto the disk."""
    commit: LatencyCounts
    """From the commit on the server until it was on the disk and that was published."""


class Memory(NamedTuple):
    """What a server uses and may use, bytes; 0: without a limit. Of a cluster the node that is fullest."""

    used: int
    allowed: int

    @property
    def share(self) -> float:
        """How full it is; 0 without a limit."""
        return self.used / self.allowed if self.allowed else 0.0


class WorkerBeat(NamedTuple):
    """When a worker was last heard of, µs."""

    queues: tuple[str, ...]
    name: str
    at: int


def worker_text(queues: Iterable[str], name: str) -> str:
    """How a worker stands among the beats."""
    return f"{','.join(sorted(queues))} {name}"


class StoreVitals(msgspec.Struct, frozen=True, kw_only=True):
    """The store at one moment, as it is kept there."""

    is_open: bool
    created_at: int
    """When the pool was made, µs; 0 before its first recovery."""
    outboxes: list[OutboxHead]
    journaled: list[JournaledShard]
    mark_totals: dict[str, bytes]
    """Part of the pool → what its last mark came to."""
    marked: list[tuple[str, int, int]]
    """The last marks, newest first: the part, the time of the prices and when they were readable, µs."""
    book_checks: list[bytes]
    workers: list[WorkerBeat]
    latencies: JournalLatencies | None
    audits: list[ReportName]
    """The names of all kept reports, oldest first."""
    undelivered_pages: dict[str, str]
    """Run id of an audit → why nobody could be told what it found."""
    audit_runs: int
    """Audits that the fleet has begun and not ended."""
    quarantined: int
    """Trades in quarantine."""
    memory: Memory


class Vitals:
    """Reads and writes them. Threads share an instance. Every method raises StoreUnavailable."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._generation = ""

    def read(self, marks: int = 1) -> StoreVitals:
        """All of them, with the last `marks` marks.

        One round trip to a single server whose fence is as it was at the last look; to a cluster one to each
        of its nodes and three more.
        """
        keys = self._keys
        with translated():
            pipeline: Any = self._client.pipeline(transaction=False)
            ask_outbox_heads(pipeline, self._client, keys)
            for shard in keys.shards:
                pipeline.zcard(keys.quarantined(shard))
            pipeline.hmget(keys.journal, keys.journal_fields())
            pipeline.hget(keys.meta, _CREATED_FIELD)
            pipeline.hgetall(keys.mark_totals)
            pipeline.xrevrange(keys.mark_stream, count=marks)
            pipeline.hgetall(keys.book_checks)
            pipeline.zrange(keys.workers, 0, -1, withscores=True)
            pipeline.get(keys.latencies)
            pipeline.hkeys(keys.audits).hgetall(keys.undelivered_pages).hlen(keys.audit_runs)
            self._ask_server(pipeline)
            answers = pipeline.execute()
            heads, answers = answers[: keys.shard_count], answers[keys.shard_count :]
            quarantined, answers = answers[: keys.shard_count], answers[keys.shard_count :]
            watermark, created, totals, stream, checks, workers, latencies, *answers = answers
            audits, pages, runs, *of_server = answers
            return StoreVitals(
                is_open=self._is_open(of_server),
                created_at=int(created or 0),
                outboxes=[OutboxHead.told(head) for head in heads],
                journaled=[parse_watermark(value) for value in watermark],
                mark_totals={text_of(part): value for part, value in totals.items()},
                marked=[_marked(*entry) for entry in stream],
                book_checks=list(checks.values()),
                workers=[_beat(text_of(worker), int(at)) for worker, at in workers],
                latencies=_latencies(latencies),
                audits=report_names(audits),
                undelivered_pages={text_of(run): text_of(problem) for run, problem in pages.items()},
                audit_runs=runs,
                quarantined=sum(quarantined),
                memory=self._memory(of_server),
            )

    def beat(self, worker: str, at: int) -> None:
        """Note that `worker` (`worker_text`) lives at `at` (µs), and forget those long silent."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.zadd(self._keys.workers, {worker: at})
            pipeline.zremrangebyscore(self._keys.workers, "-inf", at - FORGOTTEN_AFTER_US)
            pipeline.execute()

    def leave(self, worker: str) -> None:
        """Note that `worker` has ended as it should: nobody misses it."""
        with translated():
            self._client.zrem(self._keys.workers, worker)

    def write_latencies(self, latencies: JournalLatencies) -> None:
        """Replace what the journal's writer has measured."""
        with translated():
            self._client.set(self._keys.latencies, msgspec.json.encode(latencies))

    def _ask_server(self, pipeline: Any) -> None:
        """A cluster's fence and memory are those of all its primaries, and asked by themselves."""
        if not isinstance(self._client, RedisCluster):
            pipeline.script_exists(fence.commit_sha(self._generation))
            # Behind it: while the generation is the same, its script was there.
            pipeline.hget(self._keys.meta, fence.GENERATION_FIELD)
            pipeline.info("memory")

    def _is_open(self, of_server: list[Any]) -> bool:
        if of_server:
            loaded, found, _ = of_server
            if self._generation and found is not None and text_of(found) == self._generation:
                return all(loaded)
        try:
            self._generation = fence.current_generation(self._client, self._generation)
        except Fenced:
            return False
        return True

    def _memory(self, of_server: list[Any]) -> Memory:
        if of_server:
            return _memory(of_server[-1])
        cluster: Any = self._client
        told: Mapping[str, Mapping[str, Any]] = cluster.info("memory", target_nodes=RedisCluster.PRIMARIES)
        # One full node refuses writes, however empty the others are.
        return max(map(_memory, told.values()), key=lambda memory: (memory.share, memory.used))


def _memory(info: Mapping[str, Any]) -> Memory:
    return Memory(int(info["used_memory"]), int(info["maxmemory"]))


def _latencies(stored: bytes | None) -> JournalLatencies | None:
    """None also for those of another release, which the next writer replaces."""
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored, type=JournalLatencies)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _beat(worker: str, at: int) -> WorkerBeat:
    queues, _, name = worker.partition(" ")
    return WorkerBeat(tuple(queues.split(",")), name, at)


def _marked(entry_id: bytes, fields: Mapping[bytes, bytes]) -> tuple[str, int, int]:
    return text_of(fields[b"part"]), int(fields[b"at"]), int(entry_id.partition(b"-")[0]) * 1000
