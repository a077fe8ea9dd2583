"""A real Prometheus where there is one; in CI there has to be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.tidy.source_tree import ROOT

UNPACKED = ROOT / ".venv" / "prometheus" / "usr" / "bin"


def _program(name: str) -> Path:
    """The program that PROMETHEUS_BIN (a folder) has, else `make prometheus`, else the PATH."""
    folders = [os.environ.get("PROMETHEUS_BIN", ""), str(UNPACKED), os.environ.get("PATH", "")]
    found = shutil.which(name, path=os.pathsep.join(filter(None, folders)))
    if found is None:
        without = pytest.fail if os.environ.get("CI") else pytest.skip
        return without(f"there is no {name} here; run: make prometheus")
    return Path(found)


@pytest.fixture(scope="session")
def promtool() -> Path:
    return _program("promtool")


@pytest.fixture(scope="session")
def prometheus_binary() -> Path:
    return _program("prometheus")
