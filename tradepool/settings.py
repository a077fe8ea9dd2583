"""Settings of a pool and its fleet, read from `TRADEPOOL_*` environment variables."""

from __future__ import annotations

import difflib
import os
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tradepool.errors import Misconfigured
from tradepool.program_log import LogFormat

__all__ = [
    "SEGMENT_BYTES",
    "VISIBILITY_TIMEOUT_MIN_S",
    "Durability",
    "Settings",
    "load_settings",
    "secret_of",
]

VISIBILITY_TIMEOUT_MIN_S = 3
"""With less, a second in which a machine stands still has what every worker holds delivered once more."""
SEGMENT_BYTES = 64 << 20
"""The usual size of a part of the journal."""

_PREFIX = "TRADEPOOL_"
_OF_OTHERS = frozenset(
    f"{_PREFIX}{name}" for name in ("SERVER_BIN", "SERVER_IMAGE", "VERSION", "GPU_LOCK", "GRAFANA_PASSWORD")
)
"""Variables that are no settings: those of a private server and of `docker-compose.yml`."""


class Durability(StrEnum):
    """What has happened to a change when its call returns."""

    JOURNAL = "journal"
    REDIS = "redis"


class Settings(BaseSettings):
    """One pool's settings; every field can be given as `TRADEPOOL_<NAME>`.

    Times end in `_s` (seconds), sizes in what they count. Passwords belong in the URLs or the
    environment, never in a command line.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # What stands in the wrong place may be a password.
        hide_input_in_errors=True,
    )

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The store: `redis://`, `rediss://`, `unix://`, `redis+cluster://` or `redis+sentinel://`."""
    redis_username: str | None = None
    """The store's user, in place of the one in its URL."""
    redis_password: SecretStr | None = None
    """The store's password, in place of the one in its URL."""
    redis_password_file: Path | None = None
    """A file that holds nothing but the store's password."""
    redis_sentinel_password: SecretStr | None = None
    """The password of the Sentinels, where they have one."""
    redis_ca_file: Path | None = None
    """Certificates to trust on `rediss://`, of store and broker; the system's when absent."""
    redis_cert_file: Path | None = None
    """The certificate to show on `rediss://`, where a server asks for one."""
    redis_key_file: Path | None = None
    """The key of `TRADEPOOL_REDIS_CERT_FILE`."""
    broker_url: str | None = None
    """Celery's broker, a single server; the store's when absent."""
    broker_username: str | None = None
    """The broker's user, in place of the one in `TRADEPOOL_BROKER_URL`."""
    broker_password: SecretStr | None = None
    """The broker's password, in place of the one in `TRADEPOOL_BROKER_URL`."""
    broker_password_file: Path | None = None
    """A file that holds nothing but the broker's password."""
    broker_transport: Literal["celery", "atomic"] = "atomic"
    """How workers take messages: `atomic`, in one step with noting them as unfinished, or as Celery does."""
    data_dir: Path = Path("pool-data")
    """Where `trade_pool.log` and its segments, `trades.json`, the checkpoint and the archive live."""

    segment_bytes: int = Field(default=SEGMENT_BYTES, ge=1 << 16)
    """From which size on a part of the journal is finished, compressed and followed by another."""
    shard_count: int = Field(default=64, ge=1, le=256)
    """Shards of the store; fixed when a pool is created, written in the journal's header."""
    recent_max: int = Field(default=10_000, ge=1)
    """Trades kept in each shard's list of recent trades."""

    durability: Durability = Durability.JOURNAL
    """`journal`: a call returns when its change is fsynced; `redis`: when the server has it."""
    journal_wait_s: float = Field(default=30.0, gt=0)
    """How long a call waits for the journal before it raises JournalUnavailable."""
    batch_max: int = Field(default=200, ge=1, le=200)
    """Changes in one commit and in one message."""
    commit_attempts_max: int = Field(default=20, ge=2)
    """How often a commit that lost a race is decided again before VersionConflict."""
    socket_timeout_s: float = Field(default=15.0, gt=0)
    """How long a call to the server may take before it counts as away."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    """How long connecting to the server may take."""

    cpu_threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Threads of the CPU pools: 64 in production, this machine's count by default."""
    visibility_timeout_s: int = Field(default=900, ge=VISIBILITY_TIMEOUT_MIN_S)
    """After how long an unacknowledged message is delivered again; above every wait of a task, at least 3.
    A change of a trade that is not there waits twice as long for it to be added, then it is refused."""
    snapshot_every_s: int = Field(default=900, ge=1)
    """How often beat has `trades.json` written."""
    retention_s: int = Field(default=604_800, ge=0)
    """How long a closed trade stays in the store before it moves to the archive."""
    archive_every_s: int = Field(default=3600, ge=1)
    """How often beat has closed trades archived."""
    audit_every_s: int = Field(default=300, ge=1)
    """How often beat has the whole pool audited, at the digest level."""
    audits_kept: int = Field(default=500, ge=1)
    """How many reports of each level are kept, in Redis and in the folder `audits`."""
    audit_webhook_url: SecretStr | None = None
    """Where new critical findings are told: the `http(s)://` address of a chat service's webhook, or another.
    For whatever runs audits, and the workers of the queue `audit`."""
    audit_webhook_url_file: Path | None = None
    """A file that holds nothing but that address."""
    audit_quarantine: bool = True
    """Whether beat's audits put trades in quarantine whose critical fault nothing can repair."""
    mark_every_s: float = Field(default=1.0, gt=0)
    """How often beat has the open trades marked at the stored prices."""
    expire_every_s: float = Field(default=10.0, gt=0)
    """How often beat has reservations given back whose time is over."""
    summary_trades_max: int = Field(default=200_000, ge=0)
    """Trades that each process remembers for users' summaries, some 450 bytes each; a user who is not
    among them is read whole for his."""

    price_max_age_s: float = Field(default=60.0, ge=0)
    """From which age on a stored price is named as stale wherever marks are made at it; 0: never."""
    marks_stream_max: int = Field(default=3600, ge=1)
    """Ticks that the stream of marks keeps, about."""
    pnl_backend: Literal["auto", "numpy", "numba", "cuda"] = "auto"
    """What marks the book: `auto`, or one backend by name."""
    pnl_devices: int = Field(default=1, ge=1, le=64)
    """How many gpu workers share the shards, one for each device; all of them must agree."""
    pnl_device: int | None = Field(default=None, ge=0)
    """Which device this gpu worker has, from 0; `tradepool up` sets it. Unset: all shards, device 0."""
    book_save_every_s: float = Field(default=900.0, gt=0)
    """How often a gpu worker saves its book, to start from it again."""
    book_check_every_s: int = Field(default=3600, ge=1)
    """How often beat has the book compared with the store."""

    log_format: LogFormat = "auto"
    """How programs write their log: `json` or `text`; `auto`: text on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on our own lines are logged; of Celery's `--loglevel` decides."""

    flower_host: str = "127.0.0.1"
    """Where Flower listens; its metrics are open to whoever can reach it."""
    flower_port: int = Field(default=5555, ge=1, le=65535)
    """Flower's port."""
    flower_basic_auth: SecretStr | None = None
    """`user:password` for Flower."""

    metrics_host: str = "127.0.0.1"
    """Where `tradepool metrics` listens; it answers whoever can reach it."""
    metrics_port: int = Field(default=9470, ge=1, le=65535)
    """The port of `tradepool metrics`."""

    @field_validator("flower_basic_auth")
    @classmethod
    def _is_a_login(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            for login in secret.get_secret_value().split(","):
                user, _, password = login.partition(":")
                if not user or not password:
                    raise ValueError("it must be user:password, or several of them with a comma in between")
        return secret

    @field_validator("pnl_devices")
    @classmethod
    def _has_a_shard_for_each(cls, devices: int, info: ValidationInfo) -> int:
        shards = info.data.get("shard_count", devices)
        if devices > shards:
            raise ValueError(
                f"there are {shards} shards (TRADEPOOL_SHARD_COUNT) to share, at most one device each"
            )
        return devices

    @field_validator("pnl_device")
    @classmethod
    def _is_one_of_the_devices(cls, device: int | None, info: ValidationInfo) -> int | None:
        devices = info.data.get("pnl_devices", 1)
        if device is not None and device >= devices:
            raise ValueError(f"there are {devices} devices (TRADEPOOL_PNL_DEVICES), counted from 0")
        return device


def secret_of(variable: str, given: SecretStr | None, file: Path | None) -> SecretStr | None:
    """A secret that is given as `variable`, or in a file that `variable`_FILE names; None when it is not.

    Raises: Misconfigured when it is given both ways, or the file cannot be read.
    """
    if file is None:
        return given
    if given is not None:
        raise Misconfigured(f"set {variable} or {variable}_FILE, not both")
    try:
        return SecretStr(file.read_text(encoding="utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as problem:
        raise Misconfigured(f"{variable}_FILE: {file} cannot be read") from problem


def load_settings(**given: Any) -> Settings:
    """The settings of the environment, with those `given` in their place.

    A variable that is none of ours, though it begins like one, is a warning that names the nearest.

    Raises: Misconfigured naming the first variable that is wrong and what it may be, never what it is.
    """
    _warn_of_strangers()
    try:
        return Settings(**given)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
    # Outside the block: the error that pydantic raised keeps the values, and tracebacks would show it.
    name = f"{_PREFIX}{problem['loc'][0]}".upper()
    if problem["type"] == "extra_forbidden":
        raise Misconfigured(f"{name}: there is no such setting; docs/operations.md lists them all")
    raise Misconfigured(f"{name}: {problem['msg']}; correct this setting")


def _warn_of_strangers() -> None:
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} | _OF_OTHERS
    # Names are read in any case, as pydantic does.
    for name in sorted({name.upper() for name in os.environ} - known):
        if name.startswith(_PREFIX):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            # From one place: each is told once in a process, by whatever shows its warnings.
            warnings.warn(f"{name} is no setting and has no effect; the nearest is {near}", stacklevel=1)
