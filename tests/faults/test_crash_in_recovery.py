"""A server that crashes while it is being recovered, and what only half of the files confirm."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from tests.pool_at_work import PoolAtWork, at_work, contents, image_of
from tests.servers import Server
from tradepool.errors import Corrupt, Fenced, JournalUnavailable, StoreUnavailable, VersionConflict
from tradepool.files.journal import Journal
from tradepool.files.reading import read_lines
from tradepool.journaling import recovery, refilling
from tradepool.settings import Settings
from tradepool.store import fence
from tradepool.store.redis_store import RedisStore

MOMENTS = {
    "positions were read": (recovery, "_check_belongs"),
    "nothing is lost": (recovery, "_check_nothing_lost"),
    "a shard was checked": (recovery, "_check_digest"),
    "the marks are gone": (recovery, "clear_marks"),
}
"""Steps of a recovery, in order: what calls each."""


def failing(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def pool(redis_client, settings) -> Iterator[PoolAtWork]:
    with at_work(redis_client, settings) as pool:
        yield pool


@pytest.fixture
def server(server_binary, tmp_path) -> Iterator[Server]:
    with Server(tmp_path / "server") as server:
        yield server


def image_a_change_behind(pool: PoolAtWork) -> dict[bytes, bytes]:
    """The server as it was one journaled change ago, with ann's trade before that in it."""
    pool.add("ann")
    pool.drain()
    image = image_of(pool.client)
    pool.add("ann")
    pool.drain()
    return image


def crash(server: Server, aof_bytes: int) -> None:
    """The server restarts without what came after that length of its append-only file."""
    server.kill()
    server.set_back(aof_bytes)
    server.start()


def then_once(call: Callable[..., object], happen: Callable[[], None]) -> Callable[..., object]:
    """`call`, after whose first return something happens."""
    left = [happen]

    def calling(*arguments: object) -> object:
        answer = call(*arguments)
        if left:
            left.pop()()
        return answer

    return calling


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_server_that_crashes_during_its_recovery_is_recovered_anew(server, tmp_path, monkeypatch, moment):
    """The process that comes back has lost more than the one that recovery has looked at."""
    settings = Settings(redis_url=server.url, data_dir=tmp_path / "pool", shard_count=4)
    client = server.client()
    with client, at_work(client, settings) as pool:
        assert pool.keys.shard_of_user("ann") != pool.keys.shard_of_user("bob")
        lengths = []
        for user_id in ("ann", "bob", "ann", "bob"):
            pool.add(user_id)
            pool.drain()
            lengths.append(server.aof_bytes())
        expected = contents(pool)
        crash(server, lengths[2])
        module, name = MOMENTS[moment]
        crashing = then_once(getattr(module, name), lambda: crash(server, lengths[1]))
        monkeypatch.setattr(module, name, crashing)

        with pytest.raises(StoreUnavailable):
            pool.begin()
        assert not fence.is_open(client)
        pool.begin()
        assert contents(pool) == expected


def test_a_filler_that_meets_another_process_has_met_an_outage(server, tmp_path, monkeypatch):
    """Fillers have connections of their own; what they find after a crash says nothing about the journal."""
    settings = Settings(redis_url=server.url, data_dir=tmp_path / "pool", shard_count=4)
    client = server.client()
    with client, at_work(client, settings) as pool:
        begun = server.aof_bytes()
        pool.add("ann")
        pool.drain()
        expected = contents(pool)
        crash(server, begun)
        prepared = then_once(refilling.prepare, lambda: crash(server, begun))
        monkeypatch.setattr(refilling, "prepare", prepared)
        with pytest.raises(StoreUnavailable) as found:
            pool.begin()
        assert any(isinstance(error, Fenced) for error in causes(found.value))
        pool.begin()
        assert contents(pool) == expected


@pytest.mark.parametrize("is_cut", [True, False])
@pytest.mark.parametrize("is_empty", [False, True])
def test_a_group_whose_fsync_failed_is_not_replayed(pool, monkeypatch, is_empty, is_cut):
    """The log holds a whole group behind the journal's point, which nobody confirmed."""
    pool.add("ann")
    pool.drain()
    image = {} if is_empty else image_of(pool.client)
    pool.add("ann")
    pool.drain()
    expected, confirmed = contents(pool), list(read_lines(pool.log))
    pool.add("ann")
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(JournalUnavailable):
        pool.drain()
    monkeypatch.undo()
    assert len(list(read_lines(pool.log))) > len(confirmed)
    assert list(read_lines(pool.log, until=pool.journal.point)) == confirmed

    if not is_cut:
        monkeypatch.setattr(Journal, "cut_unconfirmed", lambda _: None)
    pool.come_back_as(image)
    pool.begin()
    assert contents(pool) == expected
    # Were its owner killed now, the next one would take what is in the log for confirmed.
    assert (list(read_lines(pool.log)) == confirmed) == is_cut


def test_no_server_is_opened_while_the_log_cannot_be_cut(pool, monkeypatch):
    image = image_of(pool.client)
    pool.add("ann")
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(JournalUnavailable):
        pool.drain()
    monkeypatch.setattr(os, "fsync", failing)
    pool.come_back_as(image)
    with pytest.raises(JournalUnavailable):
        pool.begin()
    assert not fence.is_open(pool.client)
    monkeypatch.undo()
    pool.begin()
    assert list(read_lines(pool.log)) == []


def test_a_replay_whose_earlier_attempt_arrives_late_begins_again(pool, monkeypatch):
    """The server stood still; now it comes to what was sent before, too."""
    image = image_a_change_behind(pool)
    expected, restore = contents(pool), RedisStore.restore

    def twice(*arguments: object) -> None:
        restore(*arguments)
        restore(*arguments)

    pool.come_back_as(image)
    monkeypatch.setattr(RedisStore, "restore", twice)
    with pytest.raises(StoreUnavailable, match="arrives late"):
        pool.begin()
    monkeypatch.undo()
    pool.begin()
    assert contents(pool) == expected


def test_a_replay_that_meets_a_taken_key_is_no_outage(pool, monkeypatch):
    image = image_a_change_behind(pool)

    def taken(*_: object) -> None:
        raise VersionConflict("its idempotency key")

    pool.come_back_as(image)
    monkeypatch.setattr(RedisStore, "restore", taken)
    with pytest.raises(Corrupt, match="twice"):
        pool.begin()
