"""The clock by which trades are old enough to be moved away: it may be wrong, and be set right again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradepool.clock import now_us
from tradepool.files.steady_clock import STEP_MAX_US, Uptime, steady_now_us, uptime

HOUR_US = 3600 * 1_000_000
DAY_US = 24 * HOUR_US


@pytest.fixture
def asked(tmp_path):
    def ask(wall_us: int, since_us: int, boot_id: str = "a") -> int:
        return steady_now_us(tmp_path / "clock", wall_us, Uptime(boot_id=boot_id, since_us=since_us))

    return ask


def test_a_clock_that_goes_on_evenly_is_believed(asked):
    assert [asked(DAY_US + at, at) for at in (0, 5, HOUR_US, 9 * DAY_US)] == [
        DAY_US + at for at in (0, 5, HOUR_US, 9 * DAY_US)
    ]


def test_a_step_ahead_does_not_count_however_often_it_is_asked(asked):
    asked(DAY_US, 0)
    assert [asked(31 * DAY_US + at, at) for at in (0, HOUR_US, DAY_US)] == [
        DAY_US,
        DAY_US + HOUR_US,
        2 * DAY_US,
    ]
    assert asked(3 * DAY_US, 2 * DAY_US) == 3 * DAY_US, "it was set right"


def test_corrections_are_believed_each_on_its_own(asked):
    asked(DAY_US, 0)
    assert asked(DAY_US + STEP_MAX_US, 0) == DAY_US + STEP_MAX_US
    assert asked(DAY_US + 2 * STEP_MAX_US, 0) == DAY_US + 2 * STEP_MAX_US
    assert asked(DAY_US + 3 * STEP_MAX_US + 1, 0) == DAY_US + 2 * STEP_MAX_US
    assert asked(5, 0) == 5, "and those back always"
    assert asked(DAY_US, 0) == 5


def test_after_a_restart_of_the_machine_or_without_its_mark_the_clock_is_believed(asked, tmp_path):
    asked(DAY_US, 9)
    assert asked(31 * DAY_US, 0, "b") == 31 * DAY_US
    (tmp_path / "clock").unlink()
    assert asked(99 * DAY_US, 0, "b") == 99 * DAY_US
    (tmp_path / "clock").write_bytes(b"{")
    assert asked(999 * DAY_US, 0, "b") == 999 * DAY_US
    assert steady_now_us(tmp_path / "clock", 2, None) == 2


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="another kernel")
def test_the_kernel_tells_how_long_it_has_been_up():
    first, second = uptime(), uptime()
    assert first is not None
    assert second is not None
    assert first.boot_id == second.boot_id
    assert 0 < first.since_us <= second.since_us < now_us()
