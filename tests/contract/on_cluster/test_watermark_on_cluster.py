"""The contract of the watermark, on a cluster."""

from __future__ import annotations

from tests.contract.test_watermark import *  # noqa: F403 - the same tests with other fixtures
