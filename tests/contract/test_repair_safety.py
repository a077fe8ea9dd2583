"""Repairs make nothing worse: while bots trade, killed at any step, told of faults that are none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audit_plants import PLANTS, Scene
from tests.faults.simulator.store_contents import actual_contents
from tests.loose_trades import buy
from tests.repairing import audit, keys_of, recovered_contents
from tests.varied_trades import trade_on, varied_trades
from tests.waiting import eventually
from tradepool.audit.repair import repair_log
from tradepool.audit.report import Finding, RepairState, Severity
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.registry import Repair
from tradepool.model import codec
from tradepool.store import mending, redis_store

MIXTURE = (
    *("corrupt_record", "summary_fold", "index_missing", "index_extra", "expiry_missing", "claim_missing"),
    *("claim_extra", "key_ttl", "orphan_reservation", "missing_in_journal", "quantities"),
)
LOOKED_AT_AGAIN = [
    *sorted(
        name
        for name, rule in RULES.items()
        if rule.repair in (Repair.JOURNAL, Repair.INDEX, Repair.COUNTERS, Repair.RELEASE, Repair.KEY)
    ),
    *sorted(name for name, rule in RULES.items() if rule.repair is Repair.QUARANTINE),
]
REPAIR = """
import sys
from pathlib import Path
from tradepool import TradePool
from tradepool.settings import Settings
settings = Settings(redis_url=sys.argv[1], data_dir=Path(sys.argv[2]), shard_count=2)
with TradePool.connect(settings) as pool:
    pool.check_all_trades(deep=True, repair=True)
"""
FAULTS = 2
KILLS = 6
SEED = 20260_1123


def plant(scene, names=MIXTURE):
    """Each of the faults, with a user of its own."""
    for name in names:
        PLANTS[name](Scene(scene.pool, scene.journal, None, f"{name} {random.getrandbits(40):x}"))


def check_is_sound(scene):
    """Nothing is left but what a person has to look at, and the journal alone brings back the same."""
    after = audit(scene)
    assert set(after.counts) <= {"quantities"}
    assert (after.undecided, after.repairs) == ((), ())
    kept = actual_contents(scene.redis)
    assert recovered_contents(scene.pool, scene.journal) == kept


class Killed(BaseException):
    """As a kill: nothing catches it."""


@contextmanager
def killed_at(step, patch):
    """End the repair right before (even) or right after (odd) one of its steps."""
    reached = []

    def counted(method):
        def call(*args, **kwargs):
            reached.append(method)
            number = 2 * len(reached)
            if number - 2 == step:
                raise Killed
            answer = method(*args, **kwargs)
            if number - 1 == step:
                raise Killed
            return answer

        return call

    with patch.context() as inner:
        for owner, name in (
            (mending.Mender, "mend"),
            (mending.Mender, "recount"),
            (redis_store.RedisStore, "_commit_each"),
            (repair_log.RepairLog, "_append"),
        ):
            inner.setattr(owner, name, counted(getattr(owner, name)))
        yield reached


def kill_at(scene, step, patch, names=MIXTURE):
    """Plant, kill a repair at a step, repair again; whether there was such a step."""
    plant(scene, names)
    was_killed = False
    with killed_at(step, patch):
        try:
            audit(scene, repair=True)
        except Killed:
            was_killed = True
    audit(scene, repair=True)
    after = audit(scene)
    assert set(after.counts) <= {"quantities"}, (step, after.findings)
    return was_killed


def test_a_repair_that_is_killed_at_some_step_is_repeated_and_leaves_no_trace(scene, monkeypatch):
    assert kill_at(scene, random.Random(SEED).randrange(20), monkeypatch)
    check_is_sound(scene)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, len(MIXTURE), FAULTS))
def test_a_repair_that_is_killed_at_any_step_is_repeated_and_leaves_no_trace(scene, monkeypatch, first):
    names = MIXTURE[first : first + FAULTS]
    step = 0
    while kill_at(scene, step, monkeypatch, names):
        step += 1
    assert step > 2 * len(names)
    check_is_sound(scene)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_is_killed_while_it_repairs_leaves_no_trace(scene):
    draw = random.Random(SEED)
    log = scene.pool.settings.data_dir / "audits" / "repairs.log"
    place = [scene.pool.settings.redis_url, str(scene.pool.settings.data_dir)]
    for _ in range(KILLS):
        plant(scene)
        written = log.stat().st_size if log.exists() else 0
        until = written + draw.randrange(1, 4000)
        process = subprocess.Popen([sys.executable, "-c", REPAIR, *place], cwd=Path(__file__).parents[2])

        def is_there(until=until, process=process):
            return process.poll() is not None or (log.exists() and log.stat().st_size >= until)

        eventually(is_there, 60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        audit(scene, repair=True)
        assert set(audit(scene).counts) <= {"quantities"}
    check_is_sound(scene)


def faults_under_way(scene, draw, closed):
    """Faults in what stands beside records, in sums, and in records that nobody changes any more."""
    user = draw.choice(
        [user for shard in scene.keys.shards for user in sorted(scene.pool.store.users(shard))]
    )
    keys, client = scene.keys, scene.redis
    shard = keys.shard_of_user(user)
    trade_id = draw.choice(closed)
    match draw.randrange(7):
        case 0:
            client.hincrby(keys.counters(shard, user), "real|USDT|pnl", 7)
        case 1:
            client.zpopmin(keys.user_index(shard, user))
        case 2:
            client.zadd(keys.open_trades(shard), {keys.open_member(user, "ghost"): 0})
        case 3:
            client.zpopmin(keys.open_trades(shard))
        case 4:
            client.hset(keys.digest(shard), "0", "0" * 16 + ":7")
        case 5:
            client.hdel(scene.records(trade_id), trade_id)
        case 6:
            scene.put(trade_id, codec.pack_trade(scene.pool.get_trade_history(trade_id)[0]))


@contextmanager
def bots_at_work(scene, count):
    """Bots that trade until the block ends; what one of them raised comes out of it."""
    stop, problems = threading.Event(), []

    def work(bot):
        try:
            number = 0
            while not stop.is_set():
                trade_on(scene.pool, f"user {bot * 7 + number % 5}", number := number + 1)
        except Exception as problem:  # noqa: BLE001 - told where the block ends
            problems.append(problem)

    bots = [threading.Thread(target=work, args=(bot,)) for bot in range(count)]
    for bot in bots:
        bot.start()
    try:
        yield
    finally:
        stop.set()
        for bot in bots:
            bot.join()
    assert problems == []


def repair_among_bots(scene, rounds, bots):
    draw = random.Random(SEED)
    closed = [scene.closed() for _ in range(5)]
    with bots_at_work(scene, bots):
        for _ in range(rounds):
            for _ in range(3):
                faults_under_way(scene, draw, closed)
            audit(scene, repair=True)
    audit(scene, repair=True)
    check_is_sound(scene)


def test_repairs_among_trading_bots_leave_a_sound_pool(scene):
    repair_among_bots(scene, rounds=2, bots=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_repairs_among_trading_bots_leave_a_sound_pool(scene):
    repair_among_bots(scene, rounds=25, bots=3)


@pytest.mark.slow
def test_two_repairs_at_once_come_to_one(scene):
    plant(scene)
    both = [threading.Thread(target=audit, args=(scene,), kwargs={"repair": True}) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    audit(scene, repair=True)
    check_is_sound(scene)


def test_of_a_sound_pool_nothing_is_planned_whatever_findings_say(scene):
    scene.pool.add_trades(varied_trades(30, 3))
    scene.filled(trade_id="7")
    scene.archived()
    names = [key.decode() for key in scene.redis.scan_iter("tp:{*")]
    ids = [trade.trade_id for trade in scene.pool.get_all_trades()]
    subjects = [*names, *ids, "ann", "bob", "ann/default", "nobody", "shard 00", "shard 01", "ann/order-1"]
    before = keys_of(scene.redis)

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from(LOOKED_AT_AGAIN), st.sampled_from(subjects)), min_size=1))
    def check(told):
        findings = [
            Finding(rule=rule, severity=Severity.CRITICAL, subject=_fitting(rule, subject), detail="00: x")
            for rule, subject in told
        ]
        steps = scene.pool._services.repairs.plan(findings)
        planned = [step for step in steps if step.state is RepairState.PLANNED]
        # A string of changed ids says nothing of what it should be.
        assert [step for step in planned if ":n:" not in step.subject] == []

    check()
    assert keys_of(scene.redis) == before
    assert scene.pool.add_trade(buy(user_id="ann")).outcome == "applied"


def _fitting(rule, subject):
    """The sums of a shard are named as shards are."""
    return "shard 00" if rule in ("digest", "bucket_sums") else subject
