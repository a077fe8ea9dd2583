"""The plain app beside the fleet's, whose import sets the restart guard for the whole process."""

from __future__ import annotations

import tasks.app  # noqa: F401 - for the guard that it sets
from tests.fleet.plain import app

__all__ = ["app"]
