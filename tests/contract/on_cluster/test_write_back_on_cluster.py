"""The contract of several who write marks, on a cluster."""

from __future__ import annotations

from tests.contract.test_write_back import *  # noqa: F403 - the same tests with other fixtures
