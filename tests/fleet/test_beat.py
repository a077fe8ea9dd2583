"""Two beats, one leader: killed, or stopped beyond its lock, it is succeeded, and no tick is doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from tasks.config import BEAT_LOCK_S, BEAT_LOOP_MAX_S
from tests.fleet.conftest import Fleet, running_fleet
from tests.waiting import eventually
from tradepool import wire
from tradepool.fleet.programs import environment

pytestmark = pytest.mark.slow

TICK_S = 0.5
LOCK_KEY = "redbeat::lock"
GAP_MAX_S = BEAT_LOCK_S + BEAT_LOOP_MAX_S + TICK_S
"""The lock expires, the other beat looks for it, and its first tick is due at once."""
START_S = 30.0


class Beats:
    """Beats of one fleet, as processes; each name is its log's."""

    def __init__(self, fleet: Fleet, folder: Path, resources: ExitStack) -> None:
        self._fleet = fleet
        self._folder = folder
        self._resources = resources
        self.client: redis.Redis = fleet.pool.redis
        self.sent: list[dict[str, object]] = []

    def start(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--pidfile=", "--loglevel", "INFO"]
        log = self._resources.enter_context((self._folder / name).open("wb"))
        beat = subprocess.Popen(command, stdout=log, stderr=log, env=environment(self._fleet.settings))
        self._resources.callback(beat.wait)
        self._resources.callback(beat.kill)
        return beat

    def log(self, name: str) -> str:
        return (self._folder / name).read_text(encoding="utf-8")

    def leads(self, name: str) -> bool:
        return "Acquired lock" in self.log(name)

    def take_ticks(self) -> int:
        """Take what is on the gpu queue, as its worker would; how many ticks there were in all."""
        while raw := self.client.rpop("gpu"):
            self.sent.append(wire.decode(raw)["headers"])
        return len(self.sent)

    def more_ticks(self, count: int, timeout_s: float = START_S) -> None:
        wanted = self.take_ticks() + count
        eventually(lambda: self.take_ticks() >= wanted, timeout_s)

    def gaps_s(self) -> list[float]:
        times = [header["sent_at"] / 1e6 for header in self.sent]
        return [after - before for before, after in pairwise(times)]


@pytest.fixture
def beats(tmp_path: Path) -> Iterator[Beats]:
    with running_fleet(tmp_path / "pool", mark_every_s=TICK_S) as fleet, ExitStack() as resources:
        yield Beats(fleet, tmp_path, resources)


def two_beats(beats: Beats) -> subprocess.Popen[bytes]:
    """The leader, while another waits."""
    leader = beats.start("first")
    eventually(lambda: beats.leads("first"), START_S)
    beats.start("second")
    eventually(lambda: "Starting" in beats.log("second"), START_S)
    beats.more_ticks(4)
    assert not beats.leads("second")
    return leader


def kill(leader: subprocess.Popen[bytes]) -> None:
    leader.kill()


def stop_beyond_its_lock(leader: subprocess.Popen[bytes]) -> None:
    leader.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("strike", [kill, stop_beyond_its_lock])
def test_the_other_beat_takes_over_and_no_tick_is_doubled(
    beats: Beats, strike: Callable[[subprocess.Popen[bytes]], None]
):
    leader = two_beats(beats)
    strike(leader)
    eventually(lambda: beats.leads("second"), 2 * GAP_MAX_S)
    beats.more_ticks(4)
    if leader.poll() is None:
        leader.send_signal(signal.SIGCONT)
        eventually(lambda: leader.poll() is not None, START_S)
        assert "another beat may lead now" in beats.log("first")
        beats.more_ticks(4)
    assert max(Counter(header["id"] for header in beats.sent).values()) == 1
    due = [header["tick"]["due_ms"] for header in beats.sent]
    assert due == sorted(set(due))
    assert max(beats.gaps_s()) <= GAP_MAX_S + TICK_S


def test_a_beat_that_ends_by_itself_hands_over_at_once(beats: Beats):
    leader = two_beats(beats)
    leader.terminate()
    eventually(lambda: beats.leads("second"), BEAT_LOCK_S)
    assert leader.wait(START_S) == 0
    beats.more_ticks(2)


def test_two_leaders_of_one_moment_make_each_tick_once(beats: Beats):
    """The server forgets the lock, as one does that was killed before it had written it to its disk."""
    two_beats(beats)
    beats.client.delete(LOCK_KEY)
    eventually(lambda: "another beat may lead now" in beats.log("first") or beats.leads("second"), START_S)
    beats.more_ticks(6)
    assert max(Counter(header["id"] for header in beats.sent).values()) == 1


def test_a_beat_lives_through_a_server_that_is_killed(beats: Beats, tmp_path: Path):
    beat = beats.start("first")
    beats.more_ticks(3)
    beats._fleet.restart_server(signal.SIGKILL)
    beats.more_ticks(3, timeout_s=2 * START_S)
    assert beat.poll() is None
    assert beats.log("first").count("Traceback") == 0


@pytest.mark.parametrize("server_is", ["stopped", "killed"])
def test_a_beat_that_is_asked_to_end_while_the_server_is_away_ends(beats: Beats, server_is: str):
    """It cannot give its lock back, and is most likely in the midst of a tick, which outlives lost wires."""
    beat = beats.start("first")
    beats.more_ticks(3)
    server = beats._fleet.server
    os.kill(server.pid, signal.SIGSTOP if server_is == "stopped" else signal.SIGKILL)
    try:
        # Longer than the pause between two ticks.
        eventually(lambda: "the clock stands still" in beats.log("first") or beat.poll() is not None, START_S)
        beat.terminate()
        assert beat.wait(2 * START_S) == 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)
    assert "lock is left to run out" in beats.log("first")
