"""The contract of expiries, on a cluster."""

from __future__ import annotations

from tests.contract.test_store_expiries import *  # noqa: F403 - the same tests with other fixtures
