"""Killed, out of disk or watched while one segment follows another: no line is lost, none is there twice."""

from __future__ import annotations

import errno
import os
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journal_entries import SEGMENT_BYTES, SHARDS, commit_numbered, finished_files, write_segments
from tests.waiting import eventually
from tradepool.files import sealing
from tradepool.files.journal import Journal
from tradepool.files.reading import read_groups, read_lines
from tradepool.files.segments import active_header, compressed_path, sealed_path
from tradepool.files.verification import verify_log

CALLS = ("open", "link", "rename", "replace", "unlink", "fchmod", "ftruncate", "pwrite", "fsync", "fdatasync")
"""Everything with which the journal changes the disk; a step is one such call."""
KILLED = 9
STEPS_MAX = 200


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "trade_pool.log"


def opened(log: Path) -> Journal:
    return Journal(log, SHARDS, segment_bytes=SEGMENT_BYTES)


def grow(journal: Journal) -> None:
    commit_numbered(journal, journal.point.seq + 1)


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a process of its own; the child's id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the end of the child, whatever it is
        traceback.print_exc()
        os._exit(1)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_before_step(number: int) -> None:
    """End this process, without any clearing up, just before its `number`-th change of the disk."""
    left = [number]

    def wrapped(call: str) -> Callable[..., object]:
        real = getattr(os, call)

        def step(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os._exit(KILLED)
            return real(*args, **kwargs)

        return step

    for call in CALLS:
        setattr(os, call, wrapped(call))


def seqs(log: Path) -> list[int]:
    return [line.seq for line in read_lines(log)]


def test_a_writer_killed_at_any_step_of_a_rotation_loses_nothing(log):
    """From the commit that finishes a segment to the end of its compression."""
    write_segments(log, 4)
    with opened(log) as journal:
        while journal.point.offset < SEGMENT_BYTES:
            grow(journal)
        before = journal.point
    folder = {path.name: path.read_bytes() for path in log.parent.iterdir()}
    for step in range(1, STEPS_MAX):
        for path in log.parent.iterdir():
            path.unlink()
        for name, content in folder.items():
            (log.parent / name).write_bytes(content)
        code = exit_code(in_child(lambda step=step: rotate_until(log, step)))
        assert code in (0, KILLED)
        confirmed = before.seq + (2 if code == 0 else 0)
        goes_on_after_a_kill(log, confirmed)
        if code == 0:
            break
    assert step > 15, "the steps of a rotation and of a compression were among those"


def rotate_until(log: Path, step: int) -> None:
    journal = opened(log)
    finished = journal.point.segment
    die_before_step(step)
    grow(journal)
    eventually(lambda: compressed_path(log, finished).exists() and not sealed_path(log, finished).exists())


def goes_on_after_a_kill(log: Path, confirmed: int) -> None:
    found = seqs(log)
    assert found == list(range(1, len(found) + 1))
    assert len(found) in (confirmed, confirmed + 2)
    with opened(log) as journal:
        assert journal.point.seq == len(found)
        commit_numbered(journal, 1000)
        eventually(lambda: all(path.suffix == ".zst" for path in finished_files(log)))
    assert seqs(log) == list(range(1, len(found) + 3))
    assert verify_log(log).segments == active_header(log)[0].segment >= 3
    assert not list(log.parent.glob("trade_pool*.new"))


def test_a_tail_torn_at_any_byte_behind_finished_segments_is_cut(log):
    places = write_segments(log, 6)
    whole = log.read_bytes()
    begin = places[-2].offset
    (log.parent / "journal.checkpoint").unlink()
    for end in range(begin, len(whole), 11):
        log.write_bytes(whole[:end])
        assert seqs(log) == list(range(1, 11))
        with opened(log) as journal:
            assert journal.point.seq == 10
            commit_numbered(journal, 100)
        assert seqs(log) == list(range(1, 13))
        (log.parent / "journal.checkpoint").unlink()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["link", "rename", "fsync", "fchmod"])
def test_a_disk_that_refuses_a_rotation_delays_nothing(log, monkeypatch, call, code):
    with opened(log) as journal:
        while journal.point.offset < SEGMENT_BYTES:
            grow(journal)
        with monkeypatch.context() as broken:
            broken.setattr(os, call, failing(code))
            for _ in range(4):
                grow(journal)
        assert journal.point.segment == 1
        assert [path.name for path in log.parent.glob("trade_pool.*log*")] == [log.name]
        while journal.point.segment == 1:
            grow(journal)
    assert seqs(log) == list(range(1, journal.point.seq + 1))


def test_every_step_is_durable_before_the_next_builds_on_it(log, monkeypatch):
    with opened(log) as journal:
        while journal.point.offset < SEGMENT_BYTES:
            grow(journal)
        journal._sealer._begin = lambda: None
        steps = recorded(monkeypatch)
        grow(journal)
        monkeypatch.undo()
    new_header, second_name = ["fsync file"], ["link", "fsync folder"]
    active_name, cut = ["rename"], ["ftruncate", "fsync file", "fsync folder"]
    assert steps == [*new_header, *second_name, *active_name, *cut, "pwrite", "fdatasync"]


def recorded(monkeypatch) -> list[str]:
    """The steps that are taken from now on, in order."""
    steps: list[str] = []

    def watched(call: str) -> Callable[..., object]:
        real = getattr(os, call)

        def step(target, *args, **kwargs):
            kind = ""
            if call == "fsync":
                kind = " folder" if stat.S_ISDIR(os.fstat(target).st_mode) else " file"
            steps.append(call + kind)
            return real(target, *args, **kwargs)

        return step

    for call in ("link", "rename", "ftruncate", "pwrite", "fsync", "fdatasync"):
        monkeypatch.setattr(os, call, watched(call))
    return steps


def test_no_line_goes_into_a_segment_whose_name_is_not_durable(log, monkeypatch):
    """The rename is done, the folder cannot be synced: the next acknowledgement waits for that."""
    with opened(log) as journal:
        while journal.point.offset < SEGMENT_BYTES:
            grow(journal)
        real, renamed = os.rename, []
        monkeypatch.setattr(os, "rename", lambda *args: (real(*args), renamed.append(args)))
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda fd: failing(errno.EIO)() if renamed else fsync(fd))
        for _ in range(2):
            with pytest.raises(Exception, match="cannot be written"):
                grow(journal)
        monkeypatch.undo()
        reached = journal.point.seq
        assert seqs(log) == list(range(1, reached + 1))
        grow(journal)
    assert journal.point.segment == 2
    assert seqs(log) == list(range(1, reached + 3))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_compression_that_fails_is_tried_again_and_delays_nothing(log, monkeypatch, code):
    failures = []

    def full(*_args):
        failures.append(code)
        raise OSError(code, os.strerror(code))

    real = sealing.compress
    monkeypatch.setattr(sealing, "compress", full)
    monkeypatch.setattr(sealing, "RETRY_S", 0.01)
    with opened(log) as journal:
        while journal.point.segment < 3:
            grow(journal)
        eventually(lambda: len(failures) > 3)
        assert [path.suffix for path in finished_files(log)] == [".log", ".log"]
        monkeypatch.setattr(sealing, "compress", real)
        eventually(lambda: [path.suffix for path in finished_files(log)] == [".zst", ".zst"])
    assert seqs(log) == list(range(1, journal.point.seq + 1))


def test_readers_see_every_line_once_while_segments_are_finished_and_compressed(log):
    """A writer process rotates some forty times under readers that follow it and that begin anew."""
    groups = 200
    opened(log).close()
    child = in_child(lambda: write_all(log, groups))
    followed: list[int] = []
    place, rounds, is_running = None, 0, True
    while is_running:
        is_running = os.waitpid(child, os.WNOHANG) == (0, 0)
        for group in read_groups(log, since=place):
            followed += [entry.seq for entry in group.entries()]
            place = group.end
        found = seqs(log)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= len(followed)
        rounds += 1
    assert followed == list(range(1, 2 * groups + 1))
    assert rounds > 3
    assert place is not None
    assert place.segment > 30
    assert len({line.record_id for line in read_lines(log)}) == 2 * groups


def write_all(log: Path, groups: int) -> None:
    with opened(log) as journal:
        for _ in range(groups):
            grow(journal)
        eventually(lambda: all(path.suffix == ".zst" for path in finished_files(log)))


def failing(code: int) -> Callable[..., object]:
    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return fail
