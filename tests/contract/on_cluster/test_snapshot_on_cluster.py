"""The contract of snapshots, on a cluster."""

from __future__ import annotations

from tests.contract.test_snapshot import *  # noqa: F403 - the same tests with other fixtures
