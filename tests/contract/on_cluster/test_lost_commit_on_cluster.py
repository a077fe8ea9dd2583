"""The contract of lost commits, on a cluster."""

from __future__ import annotations

from tests.contract.test_lost_commit import *  # noqa: F403 - the same tests with other fixtures
