"""A server that lost something is brought back to the journal before anybody may write."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from tests.pool_at_work import USERS, PoolAtWork, contents, digests, image_of, snapshot
from tests.store_changes import change, filled, new_trade
from tradepool.errors import Corrupt, Fenced, JournalAhead, Misconfigured, SequenceGap, StoreUnavailable
from tradepool.files.checkpoint import checkpoint_of, save_checkpoint
from tradepool.files.lines import NewLine
from tradepool.files.reading import read_lines
from tradepool.files.snapshot_info import SNAPSHOT_NAME, TRADES_NAME
from tradepool.journaling import recovery, refilling
from tradepool.model.codec import TRADE_KIND, digest_of, encode_trade, pack
from tradepool.model.trade import Trade
from tradepool.settings import Settings
from tradepool.store import fence, filling
from tradepool.store.redis_store import RedisStore


def test_an_empty_server_gets_everything_back(pool):
    pool.trade_a_while()
    pool.drain()
    before, positions = contents(pool), digests(pool)
    pool.lose_everything()
    report = pool.begin()
    assert (report.opened, report.from_snapshot, report.replayed) == (True, 0, pool.journal.point.seq)
    assert contents(pool) == before
    assert digests(pool) == positions
    assert {user: pool.store.counters(user)["real|USDT|pnl"] for user in USERS} == dict.fromkeys(USERS, 10**9)


@pytest.mark.parametrize("changed_since", [False, True])
def test_a_snapshot_saves_replaying_what_it_holds(pool, changed_since):
    pool.trade_a_while()
    snapshot(pool)
    held = pool.journal.point.seq
    records = sum(digest.count for digest in digests(pool))
    if changed_since:
        pool.trade_a_while()
        pool.drain()
    before, positions = contents(pool), digests(pool)
    pool.lose_everything()
    report = pool.begin()
    assert (report.from_snapshot, report.replayed) == (records, pool.journal.point.seq - held)
    assert contents(pool) == before
    assert digests(pool) == positions


def test_an_older_server_gets_only_what_it_lacks(pool):
    pool.trade_a_while()
    pool.drain()
    image = image_of(pool.client)
    held = pool.journal.point.seq
    pool.trade_a_while()
    pool.drain()
    before, positions = contents(pool), digests(pool)
    pool.come_back_as(image)
    report = pool.begin()
    assert (report.replayed, report.from_snapshot) == (pool.journal.point.seq - held, 0)
    assert contents(pool) == before
    assert digests(pool) == positions


@pytest.mark.parametrize("held_at_checkpoint", [True, False])
def test_the_log_is_read_from_the_checkpoint_if_the_server_is_not_older(
    pool, monkeypatch, held_at_checkpoint
):
    pool.add("ann")
    pool.drain()
    image = image_of(pool.client)
    if not held_at_checkpoint:
        pool.add("ann")
        pool.drain()
    checkpoint = pool.journal.point
    save_checkpoint(pool.log, pool.journal.id, checkpoint, reached=checkpoint.offset)
    pool.add("ann")
    pool.drain()
    before, places = contents(pool), []

    def read_from(path, *, since, until):
        places.append(since)
        return read_lines(path, since=since, until=until)

    monkeypatch.setattr(recovery, "read_lines", read_from)
    pool.come_back_as(image)
    pool.begin()
    assert places == [checkpoint if held_at_checkpoint else None]
    assert contents(pool) == before


def test_a_server_that_lost_only_some_shards_keeps_the_others(pool):
    pool.trade_a_while()
    pool.drain()
    image = image_of(pool.client)
    pool.add("ann")
    pool.drain()
    before = contents(pool)
    pool.come_back_as(image)
    assert pool.begin().replayed == 2
    assert contents(pool) == before


def test_what_the_journal_has_not_seen_yet_is_journaled_not_replayed(pool):
    pool.add("ann")
    pool.drain()
    pool.add("bob")
    before = contents(pool)
    pool.client.script_flush()
    assert pool.begin().replayed == 0
    assert pool.drain() == 2
    assert contents(pool) == before


def test_the_fence_opens_last(pool, monkeypatch):
    pool.add("ann")
    pool.drain()
    pool.lose_everything()

    def fail(*_args):
        raise Corrupt("the replay went wrong")

    monkeypatch.setattr(recovery, "_check_digest", fail)
    with pytest.raises(Corrupt, match="went wrong"):
        pool.recover()
    assert not fence.is_open(pool.client)
    with pytest.raises(Fenced):
        pool.add("bob")
    monkeypatch.undo()
    pool.begin()
    pool.add("bob")
    assert fence.is_open(pool.client)


class Died(BaseException):
    """Stands for a process that ends in the middle of something."""


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_a_filling_that_dies_again_and_again_ends_as_if_it_never_had(pool, monkeypatch, with_snapshot):
    for _ in range(3):
        pool.trade_a_while()
        pool.archive_closed("ann")
        if with_snapshot:
            snapshot(pool)
    pool.drain()
    before, positions = contents(pool), digests(pool)
    pool.lose_everything()
    monkeypatch.setattr(filling, "_PIPELINE_BYTES", 2000)
    deaths = 0
    while dies_at_pipeline(deaths + 1, pool):
        assert not fence.is_open(pool.client)
        deaths += 1
    assert deaths > 5
    assert contents(pool) == before
    assert digests(pool) == positions


def dies_at_pipeline(number: int, pool: PoolAtWork) -> bool:
    """Recover, dying when half of that pipeline is through; whether it came to that."""
    send, calls = filling.Filling._send, []

    def die(self: filling.Filling) -> None:
        calls.append(self)
        if len(calls) == number:
            half = len(self._packed) // 2
            del self._packed[half:], self._absent[half:]
            send(self)
            self._await_answers()
            raise Died
        send(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(filling.Filling, "_send", die)
        try:
            pool.begin()
        except Died:
            return True
    return False


def test_a_replay_that_died_half_way_is_simply_repeated(pool, monkeypatch):
    pool.trade_a_while()
    pool.drain()
    image = image_of(pool.client)
    for _ in range(3):
        pool.trade_a_while()
    pool.drain()
    before = contents(pool)
    pool.come_back_as(image)
    restore, calls = RedisStore.restore, []

    def die_at_the_third(store, shard, changes):
        calls.append(shard)
        if len(calls) == 3:
            raise Died
        restore(store, shard, changes)

    monkeypatch.setattr(RedisStore, "restore", die_at_the_third)
    with pytest.raises(Died):
        recovery.recover(
            pool.client, pool.keys, pool.journal, pool.settings.model_copy(update={"batch_max": 5})
        )
    monkeypatch.undo()
    pool.begin()
    assert contents(pool) == before


def test_who_fills_cuts_off_whoever_was_filling_before(pool):
    """A killed process's last commands may still be on their way, or its host have forgotten to die."""
    pool.trade_a_while()
    pool.drain()
    before = contents(pool)
    pool.lose_everything()
    mark = filling.prepare(pool.client, pool.keys, shards := range(4))
    with filling.Filling(pool.client, pool.settings, shards, mark) as earlier:
        pool.begin()
        for _ in range(2):
            earlier.count_archived("ann", {"real|USDT|pnl": 1})
            with pytest.raises(StoreUnavailable):
                earlier.finish()
    assert contents(pool) == before


def test_who_comes_too_late_to_fill_is_turned_away(pool):
    shards = range(4)
    mark = filling.prepare(pool.client, pool.keys, shards)
    filling.prepare(pool.client, pool.keys, shards)
    with pytest.raises(Fenced, match="somebody else has begun"):
        filling.Filling(pool.client, pool.settings, shards, mark)


def test_a_recovered_outbox_goes_on_behind_the_journal(pool):
    pool.add("ann")
    pool.drain()
    ahead = "9999999999999-5"
    shard = pool.keys.shard_of_user("ann")
    pool.store.advance_outbox(shard, ahead)
    pool.add("ann")
    pool.drain()
    assert pool.journal.point.position(shard).startswith("9999999999999-")
    pool.lose_everything()
    pool.begin()
    pool.add("ann")
    assert pool.drain() == 2


def test_an_open_fence_means_nothing_to_do(pool):
    pool.add("ann")
    report = pool.recover()
    assert (report.opened, report.replayed) == (False, 0)


def test_a_second_recovery_changes_nothing(pool):
    pool.trade_a_while()
    pool.drain()
    pool.lose_everything()
    pool.begin()
    before = pool.client.hgetall(pool.keys.counters(pool.keys.shard_of_user("ann"), "ann"))
    pool.client.script_flush()
    assert pool.begin().replayed == 0
    assert pool.client.hgetall(pool.keys.counters(pool.keys.shard_of_user("ann"), "ann")) == before
    assert before


def test_what_a_recovery_writes_is_no_state_that_anybody_has_seen(pool, monkeypatch):
    pool.trade_a_while()
    pool.drain()
    image, seen = image_of(pool.client), pool.store.revision("ann")
    pool.trade_a_while()
    pool.drain()
    pool.come_back_as(image)
    assert pool.store.revision("ann") == seen

    def die(_):
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(fence, "open_fence", die)
        with pytest.raises(Died):
            pool.begin()
    between = pool.store.revision("ann")
    assert (between == seen, pool.store.changes_since("ann", seen)) == (False, None)
    pool.begin()
    assert pool.store.changes_since("ann", between) is None


def test_ids_without_a_slot_are_found_again(pool):
    trade = pool.add("ann", trade_id="trade:0001")
    pool.drain()
    pool.lose_everything()
    pool.client.hset(pool.keys.routes(pool.keys.route_shard("trade:0001")), "trade:0001", "4711")
    pool.begin()
    assert pool.store.shard_of_trade(trade.trade_id) == pool.keys.shard_of_user("ann")


def test_a_log_that_lost_confirmed_lines_is_refused(pool):
    pool.add("ann")
    pool.drain()
    kept = pool.log.read_bytes()
    pool.add("ann")
    pool.drain()
    pool.journal.close()
    pool.log.write_bytes(kept)
    checkpoint_of(pool.log).unlink()
    pool.client.script_flush()
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal, pytest.raises(SequenceGap, match=r"was confirmed: lines are missing; restore it"):
        again.recover()
    assert not fence.is_open(pool.client)
    assert pool.log.read_bytes() == kept


def test_a_deleted_log_is_refused(pool):
    pool.add("ann")
    pool.drain()
    pool.journal.close()
    shutil.rmtree(pool.settings.data_dir)
    pool.client.script_flush()
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal, pytest.raises(Corrupt, match="put the right log back"):
        again.recover()


def test_a_deleted_log_beside_its_snapshot_is_refused_even_by_an_empty_server(pool):
    pool.add("ann")
    snapshot(pool)
    pool.journal.close()
    pool.log.unlink()
    checkpoint_of(pool.log).unlink()
    pool.lose_everything()
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal, pytest.raises(Corrupt, match="put the right log back, or remove the snapshot"):
        again.recover()


def test_emptying_a_store_closes_its_fence_so_recovery_refills_it(pool):
    pool.add("ann")
    pool.drain()
    before = contents(pool)
    pool.client.flushall()
    with pytest.raises(Fenced):
        pool.add("bob")
    assert pool.begin().replayed == 2
    assert contents(pool) == before


def test_a_store_set_back_behind_an_open_fence_is_refused(pool):
    pool.add("ann")
    pool.drain()
    image = image_of(pool.client)
    pool.add("ann")
    pool.drain()
    pool.come_back_as(image)
    fence.open_fence(pool.client)
    with pytest.raises(JournalAhead, match="lacks changes"):
        pool.recover()


def test_a_store_with_other_records_than_the_journals_is_refused(pool):
    pool.add("ann")
    pool.drain()
    image = image_of(pool.client)
    pool.add("ann")
    pool.drain()
    pool.come_back_as(image)
    shard = pool.keys.shard_of_user("ann")
    pool.client.hset(pool.keys.digest(shard), "0", f"{7:016x}:1")
    with pytest.raises(Corrupt, match=r"holds \d+ records .* empty the store"):
        pool.recover()
    assert not fence.is_open(pool.client)


@pytest.mark.parametrize("what", ["record", "fill"])
def test_a_journal_that_adds_something_twice_is_refused(pool, monkeypatch, what):
    """What a commit's checks would have found is found without them, from what the server counts as new."""
    monkeypatch.setattr(refilling, "_BATCH_MIN", 1)
    monkeypatch.setattr(refilling, "_LINES_WAITING_MAX", 1)
    first = filled(new_trade("ann"), fill_id="v")
    first = msgspec.structs.replace(first, version=1)
    again = msgspec.structs.replace(first, trade_id=new_trade("ann").trade_id) if what == "fill" else first
    shard = pool.keys.shard_of_user("ann")
    pool.journal.append(journaled(shard, trade, f"{n}-0") for n, trade in enumerate((first, again), 1))
    pool.journal.commit({shard: "2-0"})
    pool.lose_everything()
    with pytest.raises(Corrupt, match="is there already"):
        pool.recover()
    assert not fence.is_open(pool.client)


@pytest.mark.parametrize("has_older", [False, True])
def test_a_line_of_a_newer_releases_kind_is_refused(pool, has_older):
    """Replayed as something else, it would be gone without a word."""
    if has_older:
        pool.add("ann")
        pool.drain()
    image, shard = image_of(pool.client), pool.keys.shard_of_user("ann")
    pool.journal.append([journaled(shard, new_trade("ann"), f"{2**62}-0", kind="z")])
    pool.journal.commit({shard: f"{2**62}-0"})
    pool.come_back_as(image)
    with pytest.raises(Corrupt, match="kind 'z'; only a newer release can read it"):
        pool.recover()
    assert not fence.is_open(pool.client)


def journaled(shard: int, trade: Trade, position: str, kind: str = TRADE_KIND) -> NewLine:
    return NewLine(
        shard=shard,
        position=position.encode(),
        place=0,
        kind=kind.encode(),
        record_id=trade.trade_id.encode(),
        command_id=b"",
        task_id=b"",
        version=1,
        digest=digest_of(encode_trade(trade)).encode(),
        previous=b"",
        status=trade.status.code.encode(),
        record=encode_trade(trade),
    )


def test_a_version_that_differs_from_the_journals_is_refused(pool):
    trade = new_trade("ann")
    shard = pool.keys.shard_of_user("ann")
    pool.store.commit(shard, [change(None, trade)])
    pool.drain()
    image = image_of(pool.client)
    pool.store.commit(shard, [change(trade, filled(trade))])
    pool.drain()
    pool.come_back_as(image)
    record = pool.keys.records(shard, pool.keys.bucket_of(trade.trade_id))
    other = msgspec.json.encode({"other": 1})
    for version, problem in ((1, "does not follow"), (2, "is not the journal's")):
        pool.client.hset(record, trade.trade_id, pack(version, other, "t", "p"))
        with pytest.raises(Corrupt, match=problem):
            pool.recover()


def test_another_shard_count_is_refused(pool):
    pool.add("ann")
    pool.drain()
    other = Settings(data_dir=pool.settings.data_dir.with_name("other"), shard_count=8)
    again = PoolAtWork(pool.client, other)
    with again.journal, pytest.raises(Misconfigured, match="made with 4 shards, the settings say 8"):
        again.recover()


def test_a_damaged_snapshot_costs_only_a_longer_replay(pool):
    pool.trade_a_while()
    snapshot(pool)
    before = contents(pool)
    trades = pool.settings.data_dir / TRADES_NAME
    trades.write_bytes(trades.read_bytes().replace(b"BTC", b"ETH", 1))
    pool.lose_everything()
    report = pool.begin()
    assert (report.from_snapshot, report.replayed) == (0, pool.journal.point.seq)
    assert contents(pool) == before


def test_a_snapshot_newer_than_the_log_is_refused(pool):
    pool.add("ann")
    pool.drain()
    kept = pool.log.read_bytes()
    pool.add("ann")
    snapshot(pool)
    pool.journal.close()
    pool.log.write_bytes(kept)
    checkpoint_of(pool.log).unlink()
    pool.lose_everything()
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal, pytest.raises(SequenceGap, match="ends before its snapshot"):
        again.recover()
    assert (pool.settings.data_dir / SNAPSHOT_NAME).exists()
