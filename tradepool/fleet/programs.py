"""The programs of a fleet on one machine: what runs, in which order it starts and ends."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import SecretStr

from tradepool import wire
from tradepool.errors import Misconfigured
from tradepool.fleet.pool_sizes import (
    AUDIT_PROCESS_THREADS,
    PROCESS_THREADS_MAX,
    pool_sizes,
    process_sizes,
)
from tradepool.settings import Settings

__all__ = ["Program", "environment", "fleet_programs", "generated_login"]

_PASSWORD_BYTES = 12
_FLOWER_TASKS_MAX = "10000"
"""Messages that Flower remembers, at 6 to 8 KiB each; its own limit is 100,000."""
_FLOWER_DB_NAME = "flower"
_FLOWER_UMASK = 0o077
"""It has no setting for the rights of its database, which tells who sent what."""
_FLOWER_SAVE_EVERY_MS = "60000"
"""It answers nobody while it saves, which takes a third of a second for so many messages."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One process to keep running."""

    name: str
    arguments: tuple[str, ...]
    """After the Python interpreter; no passwords, everybody can read them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    ends_last: bool = False
    """Whether others need it while they finish: the journal of their last changes."""
    umask: int = -1
    """Which rights the files that it makes are denied; -1 for those that the supervisor's are."""


def fleet_programs(settings: Settings) -> tuple[Program, ...]:
    """Everything that `tradepool up` runs, in starting order: the journal first.

    Raises: Misconfigured for a Flower without a login.
    """
    workers = (_files_worker(), *_cpu_workers(settings.cpu_threads), *_gpu_workers(settings.pnl_devices))
    beat = Program(name="beat", arguments=_celery("beat", "--loglevel", "WARNING", "--pidfile="))
    metrics = Program(name="metrics", arguments=("-m", "tradepool.cli", "metrics"))
    return (*workers, beat, metrics, _flower(settings))


def generated_login(user: str = "tradepool") -> SecretStr:
    """A login for Flower that nobody knows yet: `user` and a random password."""
    return SecretStr(f"{user}:{secrets.token_urlsafe(_PASSWORD_BYTES)}")


def environment(settings: Settings) -> dict[str, str]:
    """The environment of the fleet's processes: ours, and `settings` in full.

    What the settings do not have, ours may not tell them either: a broker that it names is another pool's.
    """
    absent = {_variable(settings, name) for name, value in settings if value is None}
    return {
        # The C library would keep freed memory for each thread apart; Python's take turns.
        "MALLOC_ARENA_MAX": "2",
        **{name: value for name, value in os.environ.items() if name not in absent},
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": _python_path(),
        **_settings_variables(settings),
    }


def _cpu_workers(cpu_threads: int) -> Iterator[Program]:
    for pool, threads in pool_sizes(cpu_threads).items():
        threads_max = AUDIT_PROCESS_THREADS if pool == wire.QUEUE_AUDIT else PROCESS_THREADS_MAX
        for number, size in enumerate(process_sizes(threads, threads_max), start=1):
            yield _worker(f"{pool}-{number}", pool, "-P", "threads", "-c", str(size))


def _files_worker() -> Program:
    """The journal's home; two threads, so that a long snapshot does not hold up the next task."""
    return _worker("files", wire.QUEUE_FILES, "-P", "threads", "-c", "2", ends_last=True)


def _gpu_workers(devices: int) -> Iterator[Program]:
    """One for each device, one mark at a time; a prefetched tick would be old when its turn came."""
    for device, queue in enumerate(wire.device_queues(devices)):
        worker = _worker(queue.replace(".", "-"), queue, "-P", "solo", "-c", "1", "--disable-prefetch")
        yield replace(worker, environment={"TRADEPOOL_PNL_DEVICE": str(device)})


def _worker(name: str, queue: str, *options: str, ends_last: bool = False) -> Program:
    arguments = _celery("worker", "-Q", queue, "-n", f"{name}@%h", "--loglevel", "WARNING", *options)
    return Program(name=name, arguments=arguments, ends_last=ends_last)


def _flower(settings: Settings) -> Program:
    """Flower on the loopback by default: its metrics and health check answer without a password."""
    arguments = _celery("flower", f"--address={settings.flower_host}", f"--port={settings.flower_port}")
    secret = settings.flower_basic_auth
    if secret is None:
        raise Misconfigured(
            "Flower would be open to everybody; set TRADEPOOL_FLOWER_BASIC_AUTH=user:password"
        )
    variables = {
        "FLOWER_BASIC_AUTH": secret.get_secret_value(),
        # Flower's own variables, so that whoever sets one is heard.
        **{name: os.environ.get(name, usual) for name, usual in _flower_usual(settings.data_dir).items()},
    }
    return Program(name="flower", arguments=arguments, environment=variables, umask=_FLOWER_UMASK)


def _flower_usual(data_dir: Path) -> dict[str, str]:
    return {
        "FLOWER_MAX_TASKS": _FLOWER_TASKS_MAX,
        # What it has seen outlives it: saved when it ends, and now and then for the case that it is killed.
        "FLOWER_PERSISTENT": "true",
        "FLOWER_DB": _text(data_dir / _FLOWER_DB_NAME),
        "FLOWER_STATE_SAVE_INTERVAL": _FLOWER_SAVE_EVERY_MS,
    }


def _celery(command: str, *options: str) -> tuple[str, ...]:
    # Quiet: its banner is not a line of a log.
    return ("-m", "celery", "--quiet", "-A", "tasks", command, *options)


def _python_path() -> str:
    """Where `tasks` is found whatever the working directory: beside this package."""
    home = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return home if not inherited else os.pathsep.join((home, inherited))


def _settings_variables(settings: Settings) -> dict[str, str]:
    return {
        _variable(settings, name): _text(value)
        for name, value in settings
        if value is not None and not isinstance(value, SecretStr)
    }


def _variable(settings: Settings, name: str) -> str:
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def _text(value: object) -> str:
    return str(value.absolute()) if isinstance(value, Path) else str(value)
