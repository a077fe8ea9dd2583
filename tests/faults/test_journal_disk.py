"""A disk that is full, read-only or failing: only what is there is confirmed, and it goes on by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.journal_entries import SHARDS, entry, group, reopened, write_groups
from tradepool.errors import Corrupt, JournalUnavailable
from tradepool.files.checkpoint import checkpoint_of
from tradepool.files.durable import replacing
from tradepool.files.journal import Journal
from tradepool.files.reading import read_lines

BIG = [entry(f"big-{i}", 1, shard=3, size=2000) for i in range(200)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "trade_pool.log"


@pytest.fixture
def limited_disk(tmp_path):
    """Let files of this process grow to 64 KiB only, until the limit is lifted."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def commit(journal: Journal, entries, position: str) -> None:
    journal.append(entries)
    journal.commit({entries[0].shard: position})


def record_ids(log: Path) -> list[str]:
    return [line.record_id for line in read_lines(log)]


def test_a_group_that_does_not_fit_is_cut_back_and_written_once_it_does(log, limited_disk):
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        before = journal.point
        for _ in range(2):
            with pytest.raises(JournalUnavailable, match="cannot be written"):
                commit(journal, BIG, "2-0")
            assert journal.point == before
            assert record_ids(log) == ["1-a", "1-b"]
        limited_disk()
        commit(journal, BIG, "2-0")
        after = journal.point
    assert record_ids(log) == ["1-a", "1-b", *(e.record_id.decode() for e in BIG)]
    checkpoint_of(log).unlink()
    with reopened(log) as again:
        assert again.point == after


def test_a_smaller_group_is_written_over_the_rest_of_one_that_did_not_fit(log, limited_disk):
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        with pytest.raises(JournalUnavailable):
            commit(journal, BIG, "2-0")
        assert log.stat().st_size == 1 << 16
        commit(journal, group(2), "2-0")
    assert record_ids(log) == ["1-a", "1-b", "2-a", "2-b"]
    assert log.stat().st_size == journal.point.offset


def test_a_killed_writer_leaves_what_it_confirmed(log):
    """Killed by the kernel in the middle of a write: SIGXFSZ at the size limit."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from tests.faults.test_journal_disk import BIG, commit
        from tests.journal_entries import SHARDS, group
        from tradepool.files.journal import Journal

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        journal = Journal(Path(sys.argv[1]), SHARDS)
        commit(journal, group(1), "1-0")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        commit(journal, BIG, "2-0")
        """
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(log)], cwd=Path(__file__).parents[2], check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGXFSZ
    assert log.stat().st_size == 1 << 16
    write_groups(log, [group(2)])
    assert record_ids(log) == ["1-a", "1-b", "2-a", "2-b"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_every_disk_error_is_unavailable_and_passes(log, monkeypatch, call, code):
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        with monkeypatch.context() as broken:
            broken.setattr(os, call, failing(code))
            with pytest.raises(JournalUnavailable, match=os.strerror(code)):
                commit(journal, group(2), "2-0")
        commit(journal, group(2), "2-0")
    assert record_ids(log) == ["1-a", "1-b", "2-a", "2-b"]


def test_after_a_failed_fsync_the_group_is_written_through_a_new_descriptor(log, monkeypatch):
    """The old one would report success for pages that the kernel has given up."""
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(JournalUnavailable):
            commit(journal, group(2), "2-0")
        monkeypatch.undo()
        assert journal._fd is None
        written = watched(monkeypatch, "pwrite")
        cut = watched(monkeypatch, "ftruncate")
        cut_synced = watched(monkeypatch, "fsync")
        commit(journal, group(2), "2-0")
        assert cut == cut_synced[:1] == [journal._fd]
        assert set(written) == {journal._fd}


def test_a_group_that_was_written_but_not_synced_is_made_durable_by_the_next_opener(log, monkeypatch):
    """Killed between write and fsync, or after a failed one: the bytes may be in memory only."""
    write_groups(log, [group(1)], checkpoint=False)
    first_end = log.stat().st_size
    write_groups(log, [group(2)], checkpoint=False)
    content = log.read_bytes()
    written: list[tuple[bytes, int]] = []
    pwrite = os.pwrite

    def watch(fd, data, offset):
        written.append((bytes(data), offset))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", watch)
    synced = watched(monkeypatch, "fdatasync")
    journal = reopened(log)
    monkeypatch.undo()
    assert written[-1] == (content[first_end:], first_end)
    assert len(synced) == 1
    assert log.read_bytes() == content
    journal.close()


def test_an_opener_that_cannot_make_the_last_group_durable_is_refused(log, monkeypatch):
    write_groups(log, [group(1)], checkpoint=False)
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    with pytest.raises(JournalUnavailable, match="cannot be opened"):
        reopened(log)
    monkeypatch.undo()
    reopened(log).close()


def test_a_disk_that_stays_read_only_stays_unavailable(log, monkeypatch):
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
        monkeypatch.setattr(os, "ftruncate", failing(errno.EROFS))
        for _ in range(3):
            with pytest.raises(JournalUnavailable):
                commit(journal, group(2), "2-0")
        assert record_ids(log)[:2] == ["1-a", "1-b"]
        monkeypatch.undo()
        commit(journal, group(2), "2-0")
    assert record_ids(log) == ["1-a", "1-b", "2-a", "2-b"]


def test_confirmed_lines_that_vanish_after_a_failure_are_not_written_over(log, monkeypatch):
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(JournalUnavailable):
            commit(journal, group(2), "2-0")
        monkeypatch.undo()
        log.write_bytes(log.read_bytes()[: journal.point.offset - 10])
        with pytest.raises(Corrupt, match="changed by somebody else"):
            commit(journal, group(2), "2-0")


def test_a_checkpoint_that_cannot_be_written_costs_nothing_but_time(log, monkeypatch):
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    monkeypatch.undo()
    assert not checkpoint_of(log).exists()
    assert sorted(path.name for path in log.parent.iterdir()) == ["trade_pool.lock", "trade_pool.log"]
    with reopened(log) as journal:
        assert journal.point.seq == 2


def test_a_pool_cannot_begin_on_a_full_disk_and_leaves_nothing_half_made(log, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(JournalUnavailable, match="cannot be opened"):
        Journal(log, SHARDS)
    monkeypatch.undo()
    assert [path.name for path in log.parent.iterdir()] == ["trade_pool.lock"]
    Journal(log, SHARDS).close()


def test_a_replaced_file_is_durable_and_so_is_its_name(tmp_path, monkeypatch):
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert synced == [False, True]
    assert (tmp_path / "file").read_bytes() == b"new"


def done(program: str, *arguments: str | Path) -> bool:
    """Whether this machine has the program and lets us run it."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    return (
        path is not None
        and not subprocess.run([path, *arguments], check=False, capture_output=True).returncode
    )


@pytest.fixture
def mounted(tmp_path):
    """Mounts file systems that are gone at the end."""
    with contextlib.ExitStack() as undo:

        def mount(name: str, *options: str | Path) -> Path:
            folder = tmp_path / name
            folder.mkdir()
            if not done("mount", *options, folder):
                pytest.skip("mounting a file system needs root")
            undo.callback(done, "umount", folder)
            return folder

        yield mount


@pytest.fixture
def small_disk(mounted):
    """A real file system of 256 KiB, where this machine lets us mount one."""
    return mounted("disk", "-t", "tmpfs", "-o", "size=256k", "tmpfs")


class FailingDisk:
    """A disk that says it has 16 MiB, has less than 2, and tells nobody before an fsync."""

    def __init__(self, mounted) -> None:
        self._below = mounted("below", "-t", "tmpfs", "-o", "size=2m", "tmpfs")
        image = self._below / "image"
        with image.open("wb") as file:
            file.truncate(16 << 20)
        if not done("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image):
            pytest.skip("there is no mkfs.ext4 here")
        self._options = ("-o", "loop", image)
        self.folder = mounted("disk", *self._options)

    def fail(self) -> None:
        """From now on what is written to new places is lost."""
        assert done("sync", "-f", self.folder)
        fd = os.open(self._below / "filler", os.O_CREAT | os.O_WRONLY)
        with contextlib.suppress(OSError):
            while os.write(fd, bytes(4096)):
                pass
        os.close(fd)

    def heal(self) -> None:
        (self._below / "filler").unlink()

    def forget(self) -> None:
        """Drop what is in memory only, as a power cut does."""
        assert done("umount", self.folder)
        assert done("mount", *self._options, self.folder)


@pytest.mark.slow
def test_what_a_real_fsync_failed_for_is_cut_and_written_anew(mounted):
    """The kernel counts pages that it could not write as clean, and shows them until they are forgotten."""
    disk = FailingDisk(mounted)
    log = disk.folder / "trade_pool.log"
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        confirmed = log.stat().st_size
        disk.fail()
        for _ in range(2):
            with pytest.raises(JournalUnavailable, match="cannot be written"):
                commit(journal, BIG, "2-0")
            assert log.stat().st_size > confirmed, "the write went through, the fsync did not"
        journal.cut_unconfirmed()
        assert log.stat().st_size == confirmed
    disk.forget()
    assert len(record_ids(log)) == 2
    with Journal(log, SHARDS) as journal:
        disk.heal()
        commit(journal, BIG, "2-0")
    disk.forget()
    assert record_ids(log)[2:] == [f"big-{number}" for number in range(len(BIG))]


def test_a_really_full_disk_is_waited_for(small_disk):
    log = small_disk / "trade_pool.log"
    with Journal(log, SHARDS) as journal:
        commit(journal, group(1), "1-0")
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (200 << 10))
        with pytest.raises(JournalUnavailable, match="No space left"):
            commit(journal, BIG[:100], "2-0")
        filler.unlink()
        commit(journal, BIG[:100], "2-0")
    assert len(record_ids(log)) == 102


def failing(code: int):
    def fail(*_args):
        raise OSError(code, os.strerror(code))

    return fail


def watched(monkeypatch, call: str) -> list[int]:
    """The descriptors that `os.<call>` is used with from now on."""
    seen: list[int] = []
    real = getattr(os, call)

    def watch(fd, *args):
        seen.append(fd)
        return real(fd, *args)

    monkeypatch.setattr(os, call, watch)
    return seen


def test_a_lock_whose_note_cannot_be_written_is_let_go(log, monkeypatch):
    """Else this process could not open its own journal once the disk has room."""
    for call in ("ftruncate", "pwrite"):
        with monkeypatch.context() as broken:
            broken.setattr(os, call, failing(errno.ENOSPC))
            with pytest.raises(JournalUnavailable, match="No space"):
                Journal(log, SHARDS)
        Journal(log, SHARDS).close()
