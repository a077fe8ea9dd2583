"""How the machine's threads are divided among the pools of the fleet."""

from __future__ import annotations

from tradepool import wire

__all__ = [
    "AUDIT_PROCESS_THREADS",
    "PROCESS_THREADS_MAX",
    "SHARES",
    "TRADES_THREADS_MIN",
    "pool_sizes",
    "process_sizes",
]

SHARES = {wire.QUEUE_TRADES: 5, wire.QUEUE_TOKENS: 1, wire.QUEUE_AUDIT: 1}
"""Eighths of `cpu_threads` by pool; the last eighth is for journal, beat, Flower and the server."""

PROCESS_THREADS_MAX = 8
"""A worker's event loop is its ceiling: more processes of modest size, never one of 64 threads."""

TRADES_THREADS_MIN = PROCESS_THREADS_MAX
"""Threads that apply single trades mostly wait for the journal, and commit together what has gathered
meanwhile. On two cores one process with eight takes 0.6 of the processor time a trade that one with a single
thread takes."""

AUDIT_PROCESS_THREADS = 1
"""The parts of a deep audit compute; threads of one process would take turns."""


def pool_sizes(cpu_threads: int) -> dict[str, int]:
    """Threads of each CPU pool, at least one each, and enough for trades to be committed together."""
    sizes = {pool: max(1, cpu_threads * share // 8) for pool, share in SHARES.items()}
    return sizes | {wire.QUEUE_TRADES: max(sizes[wire.QUEUE_TRADES], TRADES_THREADS_MIN)}


def process_sizes(threads: int, process_threads_max: int = PROCESS_THREADS_MAX) -> list[int]:
    """Threads of each worker process of a pool, as even as they go, at most so many in one."""
    processes = -(-threads // process_threads_max)
    return [threads // processes + (number < threads % processes) for number in range(processes)]
