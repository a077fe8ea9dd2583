"""Audits in parts: whoever does them, in whichever order, however often, and whatever dies in between."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import contextmanager, suppress
from itertools import count

import msgspec
import pytest

from tests.archived_trades import closed_trade
from tests.loose_trades import buy
from tests.varied_trades import add_live_and_archived, trade_on, varied_trades
from tradepool import TradePool, errors
from tradepool.audit.parts import fleet_runs, group_audit, stages
from tradepool.audit.parts.run_board import Ended, RunningAudit
from tradepool.audit.rules.registry import Level
from tradepool.store import fence
from tradepool.store.keys import Keys


@pytest.fixture(scope="module")
def sick(server_binary, tmp_path_factory):
    """A pool of several segments and groups of shards, with a fault in records, files and archive each."""
    with TradePool.embedded(
        tmp_path_factory.mktemp("parts") / "pool", shard_count=4, segment_bytes=1 << 16
    ) as opened:
        add_live_and_archived(opened, varied_trades(60, 8))
        opened.write_snapshot()
        lost = opened.add_trade(buy(user_id="user 1")).trade_id
        shard = opened.store.keys.shard_of_user("user 1")
        opened.redis.hdel(opened.store.keys.records(shard, opened.store.keys.bucket_of(lost)), lost)
        opened.redis.set(opened.store.keys.counters(opened.store.keys.shard_of_user("bob"), "bob"), "7")
        next((opened.settings.data_dir / "archive").glob("day=*/*")).unlink()
        yield opened


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(stages, "_GROUP_RECORDS", 10)
    monkeypatch.setattr(stages, "_PIECE_BYTES", 2000)


class Post:
    """The audit queue, and workers that take its messages in some order."""

    def __init__(self, pool, seed=0):
        self.audits = pool._services.audit
        self.waiting = []
        self.draw = random.Random(seed)

    def start(self, run_id, level="deep", **asked):
        self.audits.start(run_id, self.send, level=level, **asked)

    def send(self, run_id, parts):
        self.waiting += [(run_id, part) for part in parts]

    def deliver(self, *, times=1, until=lambda _: False):
        """Deliver what waits, each message so many times, until nothing does or a message is the last."""
        while self.waiting:
            message = self.waiting.pop(self.draw.randrange(len(self.waiting)))
            for _ in range(times):
                self.audits.check_part(*message, self.send)
            if until(message):
                return

    def report(self, run_id):
        ended = self.audits.progress(run_id)
        assert isinstance(ended, Ended), ended
        return ended.report


def content(report):
    """What a report says of the pool."""
    data = msgspec.json.decode(msgspec.json.encode(report))
    return {name: data[name] for name in ("level", "checked", "findings", "undecided")}


def work_files(pool):
    return [path for path in (pool.settings.data_dir / "audits" / "work").rglob("*") if path.is_file()]


@pytest.mark.parametrize("level", ["standard", "deep"])
def test_parts_done_by_many_in_any_order_come_to_the_report_of_one_process(sick, level):
    here = sick.check_all_trades(level=level)
    post = Post(sick, seed=3)
    post.start(f"run-{level}", level)
    post.deliver()

    assert content(post.report(f"run-{level}")) == content(here)
    assert level == "standard" or {"missing_in_redis", "key_type", "archive_missing"} <= set(here.counts)
    assert work_files(sick) == []
    assert sick.get_running_audits() == ()


def test_a_part_that_is_delivered_again_changes_nothing(sick):
    here = sick.check_all_trades(deep=True)
    post = Post(sick, seed=4)
    post.start("again")
    delivered = []
    post.deliver(times=2, until=delivered.append)
    for message in delivered:
        post.audits.check_part(*message, post.send)
    post.start("again")

    assert post.waiting == []
    assert content(post.report("again")) == content(here)
    assert [kept["run_id"] for kept in sick.get_audits(limit=20)].count("again") == 1


def test_the_first_answer_to_a_part_stands(sick):
    store, first = sick._services.store, b'{"records":1}'
    given = {"at_us": 7, "kept_s": 60}
    assert store.claim_of_audit("claims", "part:a", first, **given)
    assert not store.claim_of_audit("claims", "part:a", b'{"records":2}', **given)
    assert store.fields_of_audit("claims", ["part:a", "part:b"]) == [first, None]
    assert 0 < sick.redis.ttl(Keys.audit_run("claims")) <= 60


def test_two_audits_at_once_do_not_meet(sick):
    here = sick.check_all_trades(deep=True)
    post = Post(sick, seed=5)
    post.start("one")
    post.start("two")
    post.deliver()

    assert content(post.report("one")) == content(post.report("two")) == content(here)


class Killed(BaseException):
    """The worker is gone."""


class Death:
    """Kills whoever makes the `at`th call, or the first that names `field`, before or after it is made."""

    def __init__(self, at=0, *, field=None, is_after):
        self.calls_left = at
        self.field = field
        self.is_after = is_after
        self.has_come = False

    def around(self, owner, name, monkeypatch):
        call = getattr(owner, name)

        def killing(*args, **kwargs):
            self.calls_left -= 1
            is_now = not self.has_come and (self.calls_left == 0 or self.field in args)
            if is_now and not self.is_after:
                self._come()
            answer = call(*args, **kwargs)
            if is_now:
                self._come()
            return answer

        monkeypatch.setattr(owner, name, killing)

    def _come(self):
        self.has_come = True
        raise Killed


def survived(post, run_id, death):
    """Have the audit done by workers of whom one dies; its message is delivered again at the end."""
    with died(death) as is_dead:
        post.start(run_id)
    if is_dead():
        post.start(run_id)
    while post.waiting:
        message = post.waiting.pop(0)
        with died(death) as is_dead:
            post.audits.check_part(*message, post.send)
        if is_dead():
            post.waiting.append(message)


@contextmanager
def died(death):
    before = death.has_come
    with suppress(Killed):
        yield lambda: death.has_come and not before


def is_survived(pool, run_id, death):
    """Whether an audit is what it is when nobody dies; None when nobody did, for there was no such step."""
    services, post = pool._services, Post(pool)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("claim_of_audit", "announce_audit", "forget_audit"):
            death.around(services.store, name, patch)
        death.around(services.reports, "keep", patch)
        death.around(post, "send", patch)
        survived(post, run_id, death)
    here = content(pool.check_all_trades(deep=True))
    return content(post.report(run_id)) == here if death.has_come else None


@pytest.mark.parametrize(
    ("field", "is_after"),
    [
        ("stage:0", True),
        ("stage:1", True),
        ("part:segment-00000001", False),
        ("joining", True),
        ("ended", False),
        ("ended", True),
    ],
)
def test_whoever_dies_between_two_stages_only_delays(sick, field, is_after):
    run_id = f"{field.replace(':', '-')}-{is_after}"
    assert is_survived(sick, run_id, Death(field=field, is_after=is_after))
    assert work_files(sick) == []
    assert sick.redis.hlen(Keys.audit_runs) == 0
    assert [kept["run_id"] for kept in sick.get_audits(limit=20)].count(run_id) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_after", [False, True])
def test_whoever_dies_at_any_step_only_delays(sick, is_after):
    for at in count(1):
        found = is_survived(sick, f"death-{is_after}-{at}", Death(at, is_after=is_after))
        if found is None:
            break
        assert found, at
    assert at > 40
    assert work_files(sick) == []


def test_a_recovery_in_between_begins_the_audit_again_and_after_the_third_it_ends(sick):
    here = sick.check_all_trades(deep=True)
    post = Post(sick, seed=6)
    post.start("recovered")
    post.deliver(until=lambda message: message[1].startswith("segment"))
    fence.open_fence(sick.redis)
    post.deliver()
    assert content(post.report("recovered")) == content(here)
    assert post.audits.progress("recovered").report["run_id"] == "recovered"

    post.start("hopeless")
    for _ in range(3):
        post.deliver(until=lambda message: message[1].startswith("segment"))
        fence.open_fence(sick.redis)
    post.deliver()

    ended = post.audits.progress("hopeless")
    assert (ended.report, "recovered" in ended.problem) == (None, True)
    assert sick.get_running_audits() == ()
    assert work_files(sick) == []


def test_an_audit_in_this_process_begins_again_after_a_recovery(sick, monkeypatch):
    here, work = sick.check_all_trades(deep=True), sick._services.audit._runner._work
    do, done = work.do, []

    def recovered(run, part, answers):
        done.append(part.name)
        if len(done) == recovered_at:
            fence.open_fence(sick.redis)
        return do(run, part, answers)

    monkeypatch.setattr(work, "do", recovered)
    recovered_at = 7
    assert content(sick.check_all_trades(deep=True)) == content(here)
    assert len(done) == 2 * len(set(done))

    monkeypatch.setattr(work, "do", lambda *given: fence.open_fence(sick.redis) or do(*given))
    with pytest.raises(errors.StoreUnavailable, match="recovered"):
        sick.check_all_trades(deep=True)
    assert work_files(sick) == []


def test_how_far_an_audit_is_can_be_asked(sick):
    post = Post(sick)
    assert sick.get_audit_progress("asked") is None
    post.start("asked")
    (begun,) = sick.get_running_audits()
    assert (begun.run_id, begun.level, begun.done, begun.lost) == ("asked", Level.DEEP, 0, False)
    post.deliver(until=lambda message: message[1].startswith("keys"))
    progress = sick.get_audit_progress("asked")
    assert isinstance(progress, RunningAudit)
    assert 0 < progress.done < progress.parts
    assert 0 <= progress.idle_s < 60

    seen = []
    sick.check_all_trades(deep=True, progress=lambda done, parts: seen.append((done, parts)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][0] == seen[-1][1]
    post.deliver()


def test_an_audit_that_ends_while_somebody_asks_is_not_taken_for_a_lost_one(sick, monkeypatch):
    post = Post(sick)
    post.start("ending")
    running = post.audits._fleet.running

    def ended_meanwhile():
        found = running()
        post.deliver()
        return found

    monkeypatch.setattr(post.audits._fleet, "running", ended_meanwhile)
    assert isinstance(sick.get_audit_progress("ending"), Ended)
    assert isinstance(sick.get_audit_progress("ending"), Ended)


def test_an_audit_that_nobody_goes_on_with_is_told_as_lost_and_never_becomes_a_report(sick, monkeypatch):
    post = Post(sick)
    post.start("parked")
    post.deliver(until=lambda message: message[1].startswith("segment"))
    sick.redis.delete(Keys.audit_run("parked"))
    folder = sick.settings.data_dir / "audits" / "work" / "parked"
    os.utime(folder, (1, 1))

    (lost,) = sick.get_running_audits()
    assert (lost.run_id, lost.lost, lost.done) == ("parked", True, 0)
    post.deliver()
    told = []
    monkeypatch.setattr(fleet_runs.log, "error", lambda what, **of: told.append((what, of)))
    post.audits.sweep()

    assert [(what, of["run_id"]) for what, of in told] == [("an audit never became a report", "parked")]
    assert sick.get_running_audits() == ()
    assert sick.get_audit_progress("parked") is None
    assert not folder.exists()
    post.audits.sweep()
    assert len(told) == 1


def test_work_files_of_the_living_are_left_alone(sick):
    post = Post(sick)
    post.start("alive")
    post.deliver(until=lambda message: message[1].startswith("segment"))
    folder = sick.settings.data_dir / "audits" / "work"
    held = sick._services.audit._runner._work.folder.held("here")
    (folder / "dead").mkdir()
    with held:
        for name in ("alive", "here", "dead"):
            os.utime(folder / name, (1, 1))
        (folder / "young").mkdir()
        post.audits.sweep()
        assert {path.name for path in folder.iterdir()} == {"alive", "here", "young"}
    post.deliver()
    shutil.rmtree(folder / "young")
    assert post.report("alive")


def test_a_part_whose_work_files_are_not_there_waits_for_them(sick):
    here = sick.check_all_trades(deep=True)
    post = Post(sick, seed=8)
    post.start("elsewhere")
    while not any(part.startswith("shards") for _, part in post.waiting):
        post.audits.check_part(*post.waiting.pop(), post.send)
    folder = sick.settings.data_dir / "audits" / "work" / "elsewhere"
    message = post.waiting.pop()
    folder.rename(folder.with_name("moved"))
    with pytest.raises(errors.ResourceUnavailable, match="share one data_dir"):
        post.audits.check_part(*message, post.send)
    folder.with_name("moved").rename(folder)
    rows = max(folder.rglob("*.rows"), key=lambda path: path.stat().st_size)
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-30])
    post.waiting.append(message)
    with pytest.raises(errors.ResourceUnavailable, match="not what was written"):
        post.deliver()
    rows.write_bytes(whole)
    post.start("elsewhere")
    shards = [part.name for part in post.audits._fleet.board.state("elsewhere").waiting()]
    post.send("elsewhere", shards)
    post.deliver()
    assert content(post.report("elsewhere")) == content(here)


def test_what_contradicts_itself_in_a_part_is_a_finding_and_not_the_end(sick, monkeypatch):
    here = sick.check_all_trades(deep=True)

    def broken(*_):
        raise errors.Corrupt("an outbox is a string")

    monkeypatch.setattr(sick._services.store, "last_position", broken)
    monkeypatch.setattr(sick._services.store, "users", broken)
    report = sick.check_all_trades(deep=True)

    found = {finding.rule for finding in report.findings}
    assert "key_value" in found
    assert any("an outbox is a string" in finding.detail for finding in report.findings)
    assert any(undecided.startswith("audit part shards") for undecided in report.undecided)
    assert not report.ok
    assert not here.ok


def test_an_end_of_the_journal_that_was_taken_back_meanwhile_is_no_damage(sick, monkeypatch):
    def taken_back(*_):
        raise errors.ChecksumMismatch("no line ends there")
        yield

    monkeypatch.setattr(group_audit, "rows_since", taken_back)
    assert "journal_damaged" in sick.check_all_trades(deep=True).counts
    monkeypatch.setattr(group_audit, "holds_place", lambda *_: False)
    report = sick.check_all_trades(deep=True)
    assert "journal_damaged" not in report.counts
    assert group_audit._CUT_BACK in report.undecided


def test_files_that_change_hands_between_the_parts_make_no_findings(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=4, segment_bytes=1 << 16) as pool:
        pool.add_trades(list(varied_trades(120, 8)))
        pool.write_snapshot()
        post, number = Post(pool, seed=9), 0
        post.start("moving")
        while post.waiting:
            post.deliver(until=lambda _: True)
            number += 1
            if number % 3 == 0:
                pool.add_trades(list(varied_trades(40, 8, seed=100 + number)))
                trade_on(pool, f"user {number % 8}", number)
            if number % 10 == 0:
                closed_trade(pool, f"user {number % 8}", days_ago=20, trade_id=f"old {number}")
                pool.write_snapshot()
                pool.archive_closed_trades()

        report = post.report("moving")
        assert (report["findings"], report["undecided"]) == ([], [])
        segments = list((tmp_path / "pool").glob("trade_pool.*.log*"))
        assert len(segments) > 5
