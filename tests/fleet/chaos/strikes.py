"""How each fault is done to the processes of a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

import psutil
import redis

from tests.fleet.chaos.fleet_process import PREFORK
from tests.fleet.chaos.plan import Fault, FaultKind
from tests.fleet.chaos.stage import Stage
from tests.tcp_proxy import TcpProxy
from tradepool.files.journal import JOURNAL_NAME

__all__ = ["NobodyThereError", "strike"]

_FILES = "files"
_BEAT = "beat"
_NO_LIMIT = -1
_PART_OF_A_WRITE_BYTES = 8192
_One = TypeVar("_One")


class NobodyThereError(Exception):
    """There is nobody whom the fault could strike at this moment."""


def strike(stage: Stage, fault: Fault) -> Callable[[], object] | None:
    """Do it; what is to be called when it is over, if anything. Raises: NobodyThereError."""
    wires = {FaultKind.CLIENT_WIRE: stage.client_wire, FaultKind.WORKER_WIRE: stage.worker_wire}
    match fault.kind:
        case FaultKind.SERVER | FaultKind.RESTART:
            is_kill = fault.kind is FaultKind.SERVER
            undo = _end_server(stage, signal.SIGKILL if is_kill else signal.SIGTERM)
        case FaultKind.CLIENT:
            undo = _kill_client(stage, fault)
        case FaultKind.CLIENT_WIRE | FaultKind.WORKER_WIRE:
            undo = _break_wire(wires[fault.kind], fault)
        case FaultKind.UP:
            undo = _kill_up(stage)
        case FaultKind.STOP:
            undo = _stop_worker(stage, fault)
        case FaultKind.DISK:
            undo = _fill_disk(stage, fault)
        case FaultKind.MEMORY:
            undo = _use_memory_up(stage)
        case _:
            undo = None
            _kill_process(stage, fault)
    return undo


def _end_server(stage: Stage, how: signal.Signals) -> Callable[[], object]:
    if not stage.server.is_running():
        raise NobodyThereError
    stage.end_server(how)
    return stage.server.start_again


def _kill_client(stage: Stage, fault: Fault) -> Callable[[], object]:
    number = _picked(fault, [n for n, client in stage.clients.items() if client.poll() is None])
    stage.clients[number].kill()
    stage.clients[number].wait()
    return lambda: stage.start_client(number)


def _kill_up(stage: Stage) -> Callable[[], object]:
    if stage.up_pid is None:
        raise NobodyThereError
    stage.kill_up()
    return stage.start_fleet


def _break_wire(wire: TcpProxy, fault: Fault) -> Callable[[], object] | None:
    """Half of the times for a while and for everybody; else those who are connected now, for good."""
    if fault.pick < 0.5:
        wire.strand()
        return None
    wire.half_open()
    return wire.restore


def _stop_worker(stage: Stage, fault: Fault) -> Callable[[], object]:
    workers = [process for name, process in stage.programs().items() if not name.startswith(_BEAT)]
    stopped = _picked(fault, sorted(workers, key=lambda process: process.pid))
    _send(stopped, signal.SIGSTOP)
    return lambda: _send(stopped, signal.SIGCONT)


def _fill_disk(stage: Stage, fault: Fault) -> Callable[[], object]:
    """Let no file of the journal's worker grow beyond what the journal has now, and some of a write."""
    files = _picked(fault, [process for name, process in stage.programs().items() if name == _FILES])
    try:
        size = (stage.data_dir / JOURNAL_NAME).stat().st_size
        files.rlimit(psutil.RLIMIT_FSIZE, (size + int(fault.pick * _PART_OF_A_WRITE_BYTES), _NO_LIMIT))
    except (psutil.NoSuchProcess, FileNotFoundError) as gone:
        raise NobodyThereError from gone
    return lambda: _free_disk(files)


def _free_disk(files: psutil.Process) -> None:
    # Whoever was started in its place has no limit.
    with contextlib.suppress(psutil.NoSuchProcess):
        files.rlimit(psutil.RLIMIT_FSIZE, (_NO_LIMIT, _NO_LIMIT))


def _use_memory_up(stage: Stage) -> Callable[[], object]:
    """Have the server allow itself less than it uses, and evict nothing."""
    _allow_memory(stage, 1)
    return lambda: _allow_memory(stage, 0)


def _allow_memory(stage: Stage, bytes_max: int) -> None:
    with contextlib.closing(stage.server.client()) as client:
        try:
            client.config_set("maxmemory", bytes_max)
        except redis.ConnectionError as gone:
            # One that is started again has forgotten the limit.
            if bytes_max:
                raise NobodyThereError from gone


def _kill_process(stage: Stage, fault: Fault) -> None:
    programs = stage.programs()
    match fault.kind:
        case FaultKind.PREFORK_CHILD:
            victims = stage.prefork_children()
        case FaultKind.BEAT:
            victims = [process for name, process in programs.items() if name.startswith(_BEAT)]
        case FaultKind.PREFORK_PARENT:
            victims = [process for name, process in programs.items() if name == PREFORK]
        case FaultKind.FILES:
            victims = [process for name, process in programs.items() if name == _FILES]
        case _:
            others = (PREFORK, _FILES)
            victims = [p for n, p in programs.items() if n not in others and not n.startswith(_BEAT)]
    _send(_picked(fault, victims), signal.SIGKILL)


def _picked(fault: Fault, victims: Sequence[_One]) -> _One:
    if not victims:
        raise NobodyThereError
    return victims[int(fault.pick * len(victims))]


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess as gone:
        if number is not signal.SIGCONT:
            raise NobodyThereError from gone
