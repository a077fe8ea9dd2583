"""What a scrape gets, whatever state the pool is in, and what it costs."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.loose_trades import buy
from tests.servers import Server
from tests.tidy.source_tree import ROOT
from tests.waiting import eventually
from tradepool import TradePool, cli, wire
from tradepool.clock import now_us
from tradepool.errors import Corrupt, Misconfigured
from tradepool.fleet.metrics import PoolCollector
from tradepool.fleet.metrics_server import MetricsServer, metrics_text
from tradepool.fleet.problems import problems_of
from tradepool.fleet.state import PoolState, Watcher
from tradepool.journaling import writer
from tradepool.latencies import BOUNDS_S
from tradepool.server.embedded import free_port
from tradepool.settings import Settings
from tradepool.store.keys import Keys
from tradepool.store.vitals import Vitals, worker_text

SCRAPE_TIMEOUT_S = 10
HOUR_US = 3_600_000_000
OTHERS = {"up", "ALERTS", "scrape_duration_seconds"}
"""Series of Prometheus's own."""
LABELS = {
    "server",
    "queue",
    "entry",
    "level",
    "severity",
    "rule",
    "state",
    "currency",
    "le",
    "version",
    "python",
}

Samples = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture(scope="module")
def pool(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TradePool]:
    """One in which everything has happened once; tests leave it as it is."""
    # Marks of a slow machine are not to be old.
    with TradePool.embedded(tmp_path_factory.mktemp("pool"), shard_count=4, mark_every_s=60) as opened:
        for number in range(40):
            opened.add_trade(buy(user_id=f"user-{number}", status="filled"))
        opened.set_prices({"BTC/USDT": "101"})
        opened.mark_to_market()
        opened.check_all_trades(deep=True)
        opened.write_snapshot()
        Vitals(opened.redis, opened.store.keys).beat(worker_text(wire.QUEUES, "all@here"), now_us())
        opened.redis.zadd("redbeat::schedule", {"redbeat:mark-to-market": now_us() / 1_000_000 + 60})
        yield opened


def samples(text: str) -> Samples:
    """Name → values of its labels → value."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_a_scrape_has_the_state_of_the_pool(pool: TradePool):
    found = samples(metrics_text(pool.settings))
    assert found["tradepool_up"] == {(): 1}
    assert found["tradepool_fenced"] == {(): 0}
    assert found["tradepool_journal_records"] == {(): 40}
    assert found["tradepool_marks_positions"] == {(): 40}
    assert found["tradepool_marks_unrealised"] == {("USDT",): 40}
    assert found["tradepool_audit_findings"] == {
        ("deep", severity): 0 for severity in ("notice", "warning", "critical")
    }
    assert found["tradepool_audit_age_seconds"].keys() == {("digest",), ("standard",), ("deep",)}
    assert found["tradepool_workers"] == {(queue,): 1 for queue in wire.QUEUES}
    assert found["tradepool_snapshot_age_seconds"][()] < 60
    assert found["tradepool_journal_fsync_seconds_count"][()] >= 1
    assert found["tradepool_problems"] == {(): 0}


def test_buckets_add_up_to_the_count(pool: TradePool):
    found = samples(metrics_text(pool.settings))
    for name in ("tradepool_journal_fsync_seconds", "tradepool_journal_commit_seconds"):
        counts = list(found[f"{name}_bucket"].values())
        assert len(counts) == len(BOUNDS_S) + 1
        assert counts == sorted(counts)
        assert counts[-1] == found[f"{name}_count"][()] >= 1
        assert found[f"{name}_sum"][()] > 0


def test_everything_that_alerts_and_dashboard_ask_for_is_there(pool: TradePool):
    # What only some pools have: findings of a rule, and an archive.
    some = {"tradepool_audit_rule_findings", "tradepool_archive_age_seconds"}
    some |= {"tradepool_beat_last_tick_timestamp_seconds"}
    known = set(samples(metrics_text(pool.settings))) | OTHERS | some
    for file in ("prometheus/alerts.yml", "grafana/dashboard.json"):
        text = (ROOT / "ops" / file).read_text(encoding="utf-8")
        assert set(re.findall(r"\btradepool_\w+", text)) - known == set(), file


def test_names_and_labels_are_those_of_prometheus_and_few(pool: TradePool):
    for family in text_string_to_metric_families(metrics_text(pool.settings)):
        assert family.name.startswith("tradepool_")
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_total", "_ms", "_us", "_count"))
        assert {label for sample in family.samples for label in sample.labels} <= LABELS
        assert len(family.samples) <= len(BOUNDS_S) + 3


def test_a_look_costs_one_round_trip_to_each_server(pool: TradePool, monkeypatch: pytest.MonkeyPatch):
    sent = []
    send = redis.connection.AbstractConnection.send_packed_command

    def counting(self: object, command: object, **options: object) -> object:
        sent.append(command)
        return send(self, command, **options)

    with Watcher(pool.settings) as watcher:
        watcher.look()
        monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", counting)
        watcher.look()
    assert len(sent) == 2


@pytest.fixture
def own_server(tmp_path: Path, server_binary: Path) -> Iterator[Server]:
    with Server(tmp_path / "own") as running:
        yield running


@pytest.fixture
def scraped(own_server: Server, tmp_path: Path) -> Iterator[Callable[[], Samples]]:
    """What Prometheus gets that looks at a pool on that server, within its own time."""
    settings = Settings(redis_url=own_server.url, data_dir=tmp_path, metrics_port=free_port())
    with MetricsServer(settings) as server:

        def scrape() -> Samples:
            with urlopen(server.url, timeout=SCRAPE_TIMEOUT_S) as answer:
                assert answer.status == 200
                return samples(answer.read().decode())

        yield scrape


def test_a_server_that_comes_and_goes_is_told(own_server: Server, scraped: Callable[[], Samples]):
    assert scraped()["tradepool_up"] == {(): 1}
    own_server.kill()
    away = scraped()
    assert away["tradepool_up"] == {(): 0}
    assert away["tradepool_server_up"] == {("store",): 0, ("broker",): 0}
    assert "tradepool_fenced" not in away
    own_server.start()
    eventually(lambda: scraped()["tradepool_up"] == {(): 1})


@pytest.mark.slow
def test_a_server_that_hangs_is_told_before_prometheus_gives_up(
    own_server: Server, scraped: Callable[[], Samples]
):
    scraped()
    own_server.pause()
    assert scraped()["tradepool_up"] == {(): 0}
    own_server.resume()
    eventually(lambda: scraped()["tradepool_up"] == {(): 1})


NO_AMOUNT = json.dumps(
    {
        "at": 1,
        "backend": "x",
        "totals": {"USDT": "none"},
        "users": 1,
        "rows": 1,
        "missing": [],
        "stale": {},
        "symbols": {},
    }
)
DAMAGES = {
    "a report": ("hset", Keys.audits, "9999999999999999:deep:x", "\xff{"),
    "latencies of other bounds": (
        "set",
        Keys.latencies,
        '{"at":1,"fsync":{"counts":[1]},"commit":{"counts":[1]}}',
    ),
}
"""What costs the figures of the damaged value alone."""
WORSE_DAMAGES = {
    ("store", "a type"): ("set", Keys.workers, "nonsense"),
    ("store", "a check of the book"): ("hset", Keys.book_checks, "0/1", "{}"),
    ("store", "an amount"): ("hset", Keys.mark_totals, "0/1", NO_AMOUNT),
    ("store", "a mark"): ("xadd", Keys.mark_stream, {"x": "y"}),
    ("store", "a beat"): ("zadd", Keys.workers, {"trades x": math.inf}),
    ("broker", "an entry"): ("zadd", "redbeat::schedule", {"redbeat:x": math.inf}),
    ("broker", "a message"): ("zadd", "unacked_index", {"x": math.inf}),
}


@contextmanager
def damaged(pool: TradePool, damage: Sequence[Any]) -> Iterator[None]:
    command, key, *content = damage
    before = pool.redis.dump(key)
    if command == "set":
        pool.redis.delete(key)
    getattr(pool.redis, command)(key, *content)
    try:
        yield
    finally:
        pool.redis.delete(key)
        if before is not None:
            pool.redis.restore(key, 0, before)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_value_that_cannot_be_read_hides_no_other(pool: TradePool, damage: Any):
    with damaged(pool, damage):
        assert samples(metrics_text(pool.settings))["tradepool_up"] == {(): 1}


@pytest.mark.parametrize("damage", WORSE_DAMAGES, ids=str)
def test_a_damaged_server_is_told_and_the_other_one_has_its_figures(pool: TradePool, damage: Any):
    with damaged(pool, WORSE_DAMAGES[damage]), Watcher(pool.settings) as watcher:
        state = watcher.look()
        read_all = samples(metrics_text(pool.settings))
    assert isinstance(getattr(state, damage[0]), Corrupt)
    assert "has what cannot be read" in problems_of(state, pool.settings)[0].what
    assert read_all["tradepool_server_up"][damage[0],] == 0
    assert sum(read_all["tradepool_server_up"].values()) == 1


def test_scrapes_that_come_together_share_a_look(pool: TradePool):
    """Else those of several Prometheus would wait for each other's timeouts while a server hangs."""
    began, go_on = threading.Event(), threading.Event()
    looks = []
    waiting = []

    class CountingLock:
        """Knows who has come to it."""

        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> None:
            waiting.append(threading.current_thread())
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    class Slow(Watcher):
        def look(self) -> PoolState:
            began.set()
            go_on.wait(10)
            looks.append(super().look())
            return looks[-1]

    with Slow(pool.settings) as watcher:
        collector = PoolCollector(watcher)
        collector._lock = CountingLock()
        threads = [threading.Thread(target=lambda: list(collector.collect())) for _ in range(5)]
        for thread in threads:
            thread.start()
        eventually(lambda: began.is_set() and len(waiting) == len(threads))
        go_on.set()
        for thread in threads:
            thread.join()
        assert len(looks) == 1
        list(collector.collect())
        assert len(looks) == 2


def test_a_port_that_is_taken_is_named(settings: Settings, redis_client):
    taken = settings.model_copy(update={"metrics_port": free_port()})
    with (
        MetricsServer(taken),
        pytest.raises(Misconfigured, match=f"{taken.metrics_port}: Address already in"),
    ):
        MetricsServer(taken)


@pytest.fixture
def troubles(pool: TradePool) -> Iterator[Callable[[], None]]:
    """Makes two, which go again."""
    schedule = pool.redis.zrange("redbeat::schedule", 0, -1, withscores=True)

    def make() -> None:
        pool.store.write_book_check(0, 1, msgspec.json.encode({"different": 3}))
        pool.redis.delete("redbeat::schedule")

    yield make
    pool.store.write_book_check(0, 1, msgspec.json.encode({"different": 0}))
    pool.redis.zadd("redbeat::schedule", dict(schedule))


def test_the_commands_say_it_in_a_line_and_a_code(
    pool: TradePool,
    troubles: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", pool.settings.redis_url)
    monkeypatch.setenv("TRADEPOOL_SHARD_COUNT", "4")
    monkeypatch.setenv("TRADEPOOL_MARK_EVERY_S", "60")
    monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(pool.settings.data_dir))
    assert (cli.main(["health"]), capsys.readouterr().out) == (0, "ok\n")
    troubles()
    assert cli.main(["health"]) == 1
    line = capsys.readouterr().out
    assert line.startswith("beat has no schedule on this broker; start beat")
    assert line.endswith("; and 1 more: 'tradepool status' has them\n")
    assert cli.main(["health", "--json"]) == 1
    assert [set(problem) for problem in json.loads(capsys.readouterr().out)["problems"]] == [
        {"what", "cure"}
    ] * 2
    assert cli.main(["status"]) == 1
    assert "the book that is marked differs" in capsys.readouterr().out
    assert cli.main(["metrics", "--once"]) == 0
    assert "tradepool_book_differences 3.0" in capsys.readouterr().out
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", "redis://127.0.0.1:1/0")
    assert cli.main(["health"]) == 3


def test_only_what_has_just_been_committed_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with TradePool.embedded(tmp_path, shard_count=4) as pool:
        users = {pool.store.keys.shard_of_user(user): user for user in "abcdefgh"}
        for user in users.values():
            pool.add_trade(buy(user_id=user))
        counts = measured(pool).commit.counts
        assert sum(counts) >= 1
        assert counts[-1] == 0
    assert len(users) > 1
    monkeypatch.setattr(writer, "now_us", lambda: now_us() + HOUR_US)
    with TradePool.embedded(tmp_path, shard_count=4) as pool:
        pool.add_trade(buy())
        latencies = measured(pool)
        # A clock that is set back does not end the measuring.
        monkeypatch.setattr(writer, "now_us", now_us)
        pool.add_trade(buy())
        eventually(lambda: sum(measured(pool).commit.counts) == 2)
    # One commit, an hour ago by this clock; what was journaled before the pool was opened is not among them.
    assert latencies.commit.counts == (0,) * len(BOUNDS_S) + (1,)
    assert sum(latencies.fsync.counts) == 1


def measured(pool: TradePool) -> object:
    vitals = Vitals(pool.redis, pool.store.keys)
    # What is published every few seconds is, after the first commit, published at once.
    eventually(lambda: vitals.read().latencies)
    return vitals.read().latencies
