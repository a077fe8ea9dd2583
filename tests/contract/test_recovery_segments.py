"""Recovery across the segments of a journal, and when old ones were moved away."""

from __future__ import annotations

import pytest

from tests.pool_at_work import PoolAtWork, at_work, contents, image_of
from tradepool.errors import SequenceGap
from tradepool.snapshots import write_snapshot
from tradepool.store import fence


@pytest.fixture
def pool(redis_client, settings):
    with at_work(redis_client, settings.model_copy(update={"segment_bytes": 8192})) as pool:
        yield pool


def fill_segments(pool: PoolAtWork) -> None:
    """Trade until the active segment is another one."""
    begun = pool.journal.point.segment
    while pool.journal.point.segment < begun + 2:
        pool.trade_a_while()
        pool.drain()


def move_away_older_segments(pool: PoolAtWork, than: int) -> None:
    pool.journal.close()
    away = pool.settings.data_dir / "moved"
    away.mkdir()
    for number in range(1, than):
        found = list(pool.settings.data_dir.glob(f"trade_pool.{number:08d}.log*"))
        assert found
        for path in found:
            path.rename(away / path.name)


def test_everything_comes_back_from_all_segments(pool):
    fill_segments(pool)
    before = contents(pool)
    pool.lose_everything()
    assert pool.begin().replayed == pool.journal.point.seq
    assert contents(pool) == before


def test_an_older_server_is_read_from_the_segment_where_it_stood(pool):
    fill_segments(pool)
    image, held = image_of(pool.client), pool.journal.point
    fill_segments(pool)
    before = contents(pool)
    pool.come_back_as(image)
    move_away_older_segments(pool, than=held.segment)
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal:
        assert again.recover().replayed == again.journal.point.seq - held.seq
    assert contents(pool) == before


def test_a_snapshot_makes_the_segments_before_it_needless(pool):
    fill_segments(pool)
    info = write_snapshot(pool.store, pool.journal, pool.settings.data_dir)
    assert info.point.segment == pool.journal.point.segment > 1
    fill_segments(pool)
    before = contents(pool)
    pool.lose_everything()
    move_away_older_segments(pool, than=info.point.segment)
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal:
        report = again.recover()
        assert report.replayed == again.journal.point.seq - info.point.seq
    assert contents(pool) == before


def test_without_a_snapshot_a_missing_segment_is_refused(pool):
    fill_segments(pool)
    before = contents(pool)
    pool.lose_everything()
    move_away_older_segments(pool, than=2)
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal:
        with pytest.raises(SequenceGap, match="put back what was moved away"):
            again.recover()
        assert not fence.is_open(pool.client)
        for path in (pool.settings.data_dir / "moved").iterdir():
            path.rename(pool.settings.data_dir / path.name)
        again.recover()
    assert contents(pool) == before
