"""A line of the log that cannot be written ends nothing."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator

import pytest
import structlog

from tradepool.logger import Logger


class FullDisk(io.StringIO):
    """A stream whose disk has no room."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def as_configured_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical", "exception"])
def test_a_line_that_cannot_be_written_is_dropped(level):
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(FullDisk()))
    getattr(Logger("name"), level)("said", field=1)


def test_so_is_one_for_a_closed_stream():
    out = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(out))
    out.close()
    Logger("name").info("said")


def test_every_other_line_is_written_with_its_level_and_fields():
    with structlog.testing.capture_logs() as lines:
        Logger("name").warning("said", field=1)
    assert lines == [{"event": "said", "field": 1, "log_level": "warning"}]
