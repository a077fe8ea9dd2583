"""The contract of recovery, on a cluster."""

from __future__ import annotations

from tests.contract.test_recovery import *  # noqa: F403 - the same tests with other fixtures
