"""The contract of changes since a revision, on a cluster."""

from __future__ import annotations

from tests.contract.test_store_changes import *  # noqa: F403 - the same tests with other fixtures
