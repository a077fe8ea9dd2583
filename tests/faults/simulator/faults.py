"""What each fault does to the stage, and how it is undone."""

from __future__ import annotations

import signal
from collections.abc import Callable

import redis

from tests.faults.simulator.disk import Death, DiskMode
from tests.faults.simulator.plan import WIRE, Fault, FaultKind
from tests.faults.simulator.stage import JOURNAL, SERVER, Stage

__all__ = ["heal", "strike"]

_MEMORY_FULL_BYTES = 1
_DISK_MODES = {
    FaultKind.DISK_FULL: DiskMode.FULL,
    FaultKind.WRITE_EIO: DiskMode.WRITE_EIO,
    FaultKind.FSYNC_EIO: DiskMode.FSYNC_EIO,
}
_DEATHS = {
    FaultKind.DIE_IN_WRITE: Death.IN_WRITE,
    FaultKind.DIE_BEFORE_FSYNC: Death.BEFORE_FSYNC,
    FaultKind.DIE_AFTER_FSYNC: Death.AFTER_FSYNC,
}
_ONCE = {
    FaultKind.KILL_WRITER,
    FaultKind.KILL_JOURNAL,
    FaultKind.REWRITE_AOF,
    FaultKind.SNAPSHOT,
    FaultKind.ARCHIVE,
}

Undo = Callable[[], None]


def strike(stage: Stage, fault: Fault) -> Undo | None:
    """Let `fault` happen; what ends it, if it ends. A process that died is restarted by who watches it."""
    if fault.kind in WIRE:
        stage.wire(fault.kind, fault.amount / 1000 if fault.kind is FaultKind.DELAY else None)
        return lambda: stage.wire("restore")
    if fault.kind in _DISK_MODES:
        stage.disk.set(_DISK_MODES[fault.kind], fault.amount)
        return lambda: stage.disk.set(DiskMode.GOOD)
    if fault.kind in _DEATHS:
        stage.disk.arm(_DEATHS[fault.kind], fault.amount)
        return None
    if fault.kind in _ONCE:
        _strike_once(stage, fault)
        return None
    return _strike_for_a_while(stage, fault)


def heal(stage: Stage) -> None:
    """End every fault that could still be on; what died comes back by itself."""
    stage.disk.set(DiskMode.GOOD)
    stage.disk.arm(Death.NONE)
    stage.disk.clock_step_ns = 0
    stage.wire("restore")
    for name in (*stage.children, SERVER):
        stage.signal(name, signal.SIGCONT)
    stage.limit_journal_files(None)
    if stage.server.pid is None:
        stage.server.start()
    stage.server.wait_ready()
    _set_memory(stage, 0)


def _strike_once(stage: Stage, fault: Fault) -> None:
    """What is over as soon as it has happened."""
    match fault.kind:
        case FaultKind.KILL_WRITER:
            stage.children[fault.target].kill()
        case FaultKind.KILL_JOURNAL:
            stage.children[JOURNAL].kill()
        case FaultKind.REWRITE_AOF:
            _ask_server(stage, "BGREWRITEAOF")
        case FaultKind.SNAPSHOT:
            stage.order("write_snapshot")
        case FaultKind.ARCHIVE:
            stage.order("archive_closed_trades")


def _strike_for_a_while(stage: Stage, fault: Fault) -> Undo:
    match fault.kind:
        case FaultKind.STOP:
            stage.signal(fault.target, signal.SIGSTOP)
            return lambda: stage.signal(fault.target, signal.SIGCONT)
        case FaultKind.FILE_LIMIT:
            stage.limit_journal_files(fault.amount)
            return lambda: stage.limit_journal_files(None)
        case FaultKind.MEMORY_FULL:
            _set_memory(stage, _MEMORY_FULL_BYTES)
            return lambda: _set_memory(stage, 0)
        case FaultKind.JOURNAL_CLOCK:
            stage.disk.clock_step_ns = fault.amount * 10**9
            return lambda: setattr(stage.disk, "clock_step_ns", 0)
        case _:
            return _end_server(stage, fault)


def _end_server(stage: Stage, fault: Fault) -> Undo:
    if fault.kind is FaultKind.POWER_CUT:
        stage.children[JOURNAL].kill()
    stage.server.kill()
    if fault.kind is FaultKind.EMPTY_SERVER:
        stage.server.lose_everything()
    else:
        stage.server.lose_end(stage.choose, fault.amount)
    if fault.kind is FaultKind.POWER_CUT:
        stage.disk.lose_what_was_not_synced(stage.choose)

    def start() -> None:
        if stage.server.pid is None:
            stage.server.start()

    return start


def _set_memory(stage: Stage, size: int) -> None:
    _ask_server(stage, "CONFIG", "SET", "maxmemory", size)


def _ask_server(stage: Stage, *command: object) -> None:
    """One command straight to the server, unless it is away or stopped just now."""
    if stage.server.pid is None:
        return
    with stage.server.client(timeout_s=0.2) as client:
        try:
            client.execute_command(*command)
        except redis.RedisError:
            return
