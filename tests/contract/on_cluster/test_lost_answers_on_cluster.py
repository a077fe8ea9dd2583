"""The contract of lost answers, on a cluster."""

from __future__ import annotations

from tests.contract.test_lost_answers import *  # noqa: F403 - the same tests with other fixtures
