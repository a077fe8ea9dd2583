"""The contract of the journal's writer, on a cluster."""

from __future__ import annotations

from tests.contract.test_journaling import *  # noqa: F403 - the same tests with other fixtures
