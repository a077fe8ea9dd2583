"""What fails again and again is told once for each cause, then rarely."""

from __future__ import annotations

import pytest
import structlog

from tradepool import logger
from tradepool.logger import REMIND_AFTER_S, CauseLog, Logger

AWAY, FULL = ConnectionError("away"), OSError("full")


def events(log: CauseLog, *happened: Exception | None) -> list[str]:
    """The lines about failures (None: it worked) that come one after the other."""
    with structlog.testing.capture_logs() as lines:
        for problem in happened:
            log.worked() if problem is None else log.failed(problem)
    return [line.get("problem", line["event"]) for line in lines]


@pytest.fixture
def causes() -> CauseLog:
    return CauseLog(Logger("test"), "it fails")


def test_causes_that_take_turns_are_told_once_each(causes: CauseLog):
    assert events(causes, AWAY, FULL, AWAY, FULL, None) == [
        "ConnectionError: away",
        "OSError: full",
        "works again",
    ]
    assert events(causes, None, AWAY) == ["ConnectionError: away"]


def test_a_cause_that_lasts_is_told_again_now_and_then(causes: CauseLog, monkeypatch: pytest.MonkeyPatch):
    now_s = 0.0
    monkeypatch.setattr(logger.time, "monotonic", lambda: now_s)
    told = []
    for now_s in (0.0, 1.0, REMIND_AFTER_S - 1, REMIND_AFTER_S, REMIND_AFTER_S + 1):  # noqa: B007 - the clock reads it
        told += events(causes, AWAY)
    assert told == ["ConnectionError: away"] * 2


def test_the_cause_is_there_to_ask_for_while_it_lasts(causes: CauseLog):
    assert causes.cause == ""
    causes.failed(AWAY)
    assert causes.cause == "ConnectionError: away"
    causes.worked()
    assert causes.cause == ""


def test_texts_that_are_others_each_time_do_not_pile_up(causes: CauseLog):
    events(causes, *(ConnectionError(f"port {number}") for number in range(1000)))
    assert len(causes._told_at_s) <= 20
