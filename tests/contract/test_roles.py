"""What each role may do on a real server, and above all what it may not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.loose_trades import buy
from tests.roles import RoleServers, made_users, role_servers
from tests.tidy.source_tree import ROOT
from tradepool import TradePool
from tradepool.errors import Misconfigured
from tradepool.fleet.health import read_health
from tradepool.fleet.metrics_server import metrics_text
from tradepool.fleet.state import Watcher
from tradepool.journaling.service import JournalService
from tradepool.store.connection import connect
from tradepool.store.fence import COMMIT_SCRIPT

REFUSED = r"(?i)permission|NOPERM"
TRADE = "t-1"

NOT_FOR_BOTS = [
    # The store: no key of it is written, whatever the command.
    "SET tp:prices 1",
    "HSET tp:{00}:r:0 t-1 x",
    "HSET tp:{pool}:meta generation x",
    "HSET tp:{pool}:journal 00 x",
    "DEL tp:{00}:r:0",
    "UNLINK tp:{00}:r:0",
    "RENAME tp:{00}:r:0 trades",
    "COPY tp:{00}:r:0 trades",
    "EXPIRE tp:{00}:r:0 1",
    "PERSIST tp:{00}:r:0",
    "XADD tp:{00}:outbox * a b",
    "LPUSH tp:{00}:open x",
    "SADD tp:{00}:users x",
    "SORT tp:{00}:users STORE trades",
    "ZADD tp:{00}:recent 1 x",
    "SET tp:answer:0123456789abcdef applied",
    # Scripts: one that is loaded opens the fence.
    "EVAL x 0",
    "EVAL_RO x 0",
    "EVALSHA 0 0",
    "SCRIPT LOAD x",
    "SCRIPT FLUSH",
    "FUNCTION LOAD x",
    "FCALL x 0",
    # What is other roles' to read.
    "XRANGE tp:{00}:outbox - +",
    "HGETALL tp:audits",
    "HGETALL tp:audit:runs",
    "HGETALL tp:audits:undelivered",
    "ZRANGE tp:workers 0 -1",
    "GET tp:latencies",
    "HGETALL tp:book",
    "HGETALL tp:{00}:i:ann",
    "HGETALL tp:{00}:f:ann",
    "HGETALL tp:{00}:ca:ann",
    "ZRANGE tp:{00}:expiry 0 -1",
    "LRANGE dead 0 -1",
    "LLEN audit",
    "HGETALL unacked",
    "ZRANGE unacked_index 0 -1",
    "GET celery-task-meta-1",
    "HGETALL redbeat:mark-to-market",
    "GET somebody-elses",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DBSIZE",
    # Queues: it may add to two, and neither read, take nor empty any.
    "LPUSH audit x",
    "LPUSH files x",
    "LPUSH gpu x",
    "LPUSH dead x",
    "LPUSH unacked x",
    "LPUSH celery-task-meta-1 x",
    "LPUSH redbeat:x x",
    "LPUSH tp:{pool}:meta x",
    "LPUSH tp:answer:0123456789abcdef x",
    "LRANGE trades 0 -1",
    "RPOP trades",
    "LPOP trades",
    "BRPOP trades 1",
    "LMOVE trades tokens LEFT LEFT",
    "LTRIM trades 1 0",
    "LREM trades 0 x",
    "LSET trades 0 x",
    "DEL trades",
    "HSET unacked x y",
    "ZADD unacked_index 0 x",
    "SADD _kombu.binding.audit x",
    "SREM _kombu.binding.trades x",
    "DEL _kombu.binding.trades",
    # Control of the fleet, and listening to it.
    "PUBLISH /0.celery.pidbox x",
    "SUBSCRIBE celery-task-meta-1",
    "PSUBSCRIBE *",
    "MONITOR",
    # The server itself.
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "ACL LIST",
    "ACL WHOAMI",
    "ACL SETUSER bot +@all",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "INFO",
    "SHUTDOWN",
    "REPLICAOF 127.0.0.1 1",
    "SAVE",
    "BGREWRITEAOF",
    "CLUSTER RESET",
    "MIGRATE 127.0.0.1 1 tp:prices 0 1",
    "RESTORE trades 0 x",
    "DUMP tp:{00}:r:0",
]
DANGEROUS = {
    "bot": set(),
    "metrics": {"info"},
    "operator": {"info"},
    "worker": {"info", "client|list", "client|kill"},
}
SCRIPTING = {
    "bot": {"script|exists"},
    "metrics": {"script|exists", "eval_ro"},
    "operator": {"script|exists", "eval_ro", "evalsha", "script|load"},
    "worker": {"script|exists", "eval_ro", "evalsha", "script|load", "eval"},
}
WRITE = {
    "bot": {"lpush", "sadd"},
    "metrics": set(),
    "operator": {
        *("lpush", "rpush", "lrem", "rpop", "brpop", "sadd", "srem", "zadd", "zrem"),
        *("set", "del", "expire", "hset", "hsetnx", "hdel"),
    },
}
PUBSUB = {"bot": set(), "metrics": set()}
"""All that a role may run of a category of the server's; of what is left out, nobody says which."""

OF_THE_SERVER = ["FLUSHALL", "CONFIG GET *", "ACL LIST", "KEYS *", "SHUTDOWN", "SCRIPT FLUSH", "MONITOR"]
NOT_FOR_METRICS = [
    *OF_THE_SERVER,
    "HGETALL tp:{00}:r:0",
    "GET tp:prices",
    "SET tp:latencies x",
    "LPUSH trades x",
    "RPOP dead",
    "HGET unacked x",
    "GET tp:answer:0123456789abcdef",
    "ZRANGE tp:{00}:recent 0 -1",
    "HGETALL tp:{00}:c:ann",
    "HGETALL tp:{00}:digest",
    "GET celery-task-meta-1",
    "GET somebody-elses",
]
NOT_FOR_OPERATORS = [
    *OF_THE_SERVER,
    "HSET tp:{00}:r:0 t-1 x",
    "SET tp:prices 1",
    "DEL tp:{00}:r:0",
    "XADD tp:{00}:outbox * a b",
    "HSET tp:{pool}:meta generation x",
    "HSET redbeat:x y z",
    "HSET tp:{pool}:journal 00 x",
    "HSET tp:{00}:digest position x",
    "DEL tp:{00}:outbox",
    "DEL tp:workers",
    "SET tp:answer:0123456789abcdef applied",
    "GET celery-task-meta-1",
    "GET somebody-elses",
    "SET somebody-elses x",
]
NOT_FOR_WORKERS = [*OF_THE_SERVER, "GET somebody-elses", "DEL somebody-elses"]


@pytest.fixture(scope="module")
def servers(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleServers]:
    """One server for store and broker, with a pool of one trade that workers have opened."""
    with role_servers(tmp_path_factory.mktemp("roles"), two=False) as running:
        worker = running.settings("worker")
        with closing(JournalService(worker, connect(worker))) as journal:
            journal.recover()
            journal.start()
            with TradePool.connect(worker) as pool:
                pool.add_trade(buy(user_id="ann", trade_id=TRADE))
                pool.set_prices({"BTC/USDT": "120"})
                pool.mark_to_market()
                yield running


@pytest.mark.parametrize(
    ("role", "commands"),
    [
        ("bot", NOT_FOR_BOTS),
        ("metrics", NOT_FOR_METRICS),
        ("operator", NOT_FOR_OPERATORS),
        ("worker", NOT_FOR_WORKERS),
    ],
)
def test_a_role_is_refused_what_is_not_its_own(servers: RoleServers, role: str, commands: list[str]):
    allowed = []
    with servers.client(role) as client:
        for command in commands:
            try:
                client.execute_command(*command.split())
            except redis.ResponseError as refusal:
                if re.search(REFUSED, str(refusal)):
                    continue
            allowed.append(command)
    assert allowed == []


def names_of(told: object) -> set[str]:
    """Names of commands as the server lists them, a container's own left out."""
    assert isinstance(told, list)
    return {name.decode() for name in told}


def may_run(admin: redis.Redis, role: str, command: str) -> bool:
    """Whether `role` has the right to `command`, with whatever keys."""
    said = b"wrong number of arguments"
    for count in range(8):
        try:
            said = admin.execute_command("ACL DRYRUN", role, *command.split("|"), *["1"] * count)
        except redis.ResponseError as problem:
            said = str(problem).encode()
        if b"wrong number of arguments" not in said:
            break
    return b"no permissions to run" not in said


@pytest.mark.parametrize(
    ("category", "wanted"),
    [("dangerous", DANGEROUS), ("scripting", SCRIPTING), ("write", WRITE), ("pubsub", PUBSUB)],
)
def test_a_role_may_run_what_is_listed_here_and_nothing_else_of_its_kind(
    servers: RoleServers, category: str, wanted: dict[str, set[str]]
):
    with servers.store.client() as admin:
        commands = names_of(admin.execute_command("COMMAND LIST", "FILTERBY", "ACLCAT", category))
        found = {role: {name for name in commands if may_run(admin, role, name)} for role in wanted}
    assert found == wanted


def test_nobody_without_a_name_gets_in(servers: RoleServers, tmp_path: Path):
    assert "user default off" in (made_users(tmp_path / "users") / "both.acl").read_text(encoding="ascii")
    with redis.Redis(port=servers.store.port, retry=None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_bot_reads_trades_and_changes_none(servers: RoleServers):
    servers.denied()
    with TradePool.connect(servers.settings("bot")) as pool:
        assert pool.get_trade(TRADE).trade_id == TRADE
        assert len(pool.get_trade_history(TRADE)) == 1
        assert [trade.trade_id for trade in pool.get_trades_by_user("ann").trades] == [TRADE]
        assert pool.get_trades_by_symbol("BTC/USDT").trades
        assert pool.get_recent_trades()
        assert list(pool.get_open_trades())
        assert list(pool.get_all_trades())
        assert pool.get_user_summary("ann")
        assert pool.get_available_tokens("ann") == {}
        assert pool.get_reservations("ann") == []
        assert pool.get_marks("ann")
        assert pool.get_mark_totals()
        assert pool.get_symbol_marks()
        assert pool.get_quarantined() == []
        narrowed = pool.get_trades_by_user("ann", "real", status="filled", since=1, until=2, limit=1)
        assert narrowed.trades == []
        assert pool.stress_test([{"shocks": {"*": "-0.1"}}])
        assert servers.denied() == []
        for change in (
            lambda: pool.add_trade(buy(user_id="ann")),
            lambda: pool.set_prices({"BTC/USDT": "1"}),
            pool.mark_to_market,
        ):
            with pytest.raises(Misconfigured, match=r"docs/operations\.md"):
                change()
    with TradePool.connect(servers.settings("worker")) as pool:
        assert [trade.version for trade in pool.get_all_trades()] == [1]


def test_metrics_and_health_are_read_with_no_right_to_trades(servers: RoleServers):
    servers.denied()
    settings = servers.settings("metrics")
    assert "tradepool_up 1" in metrics_text(settings)
    with closing(Watcher(settings)) as watcher:
        assert read_health(watcher)
    assert servers.denied() == []


def test_an_operator_audits_and_the_report_is_kept(servers: RoleServers):
    servers.denied()
    with TradePool.connect(servers.settings("operator")) as pool:
        for deep in (False, True):
            report = pool.check_all_trades(deep=deep)
            assert report.ok
            last = pool.get_last_audit()
            assert last is not None
            assert last["run_id"] == report.run_id
        with pytest.raises(Misconfigured):
            pool.add_trade(buy(user_id="ann"))
    assert {user for user, _, _ in servers.denied()} <= {"operator"}


def test_a_reader_of_scripts_cannot_commit(servers: RoleServers):
    """Whoever may run a script that only reads cannot write by one."""
    for role in ("metrics", "operator"):
        with servers.client(role) as client, pytest.raises(redis.ResponseError):
            client.execute_command("EVAL_RO", COMMIT_SCRIPT, 1, "tp:{00}:digest")
        with (
            servers.client(role) as client,
            pytest.raises(redis.ResponseError, match=r"(?i)write|permission"),
        ):
            client.execute_command("EVAL_RO", "return redis.call('SET', KEYS[1], 1)", 1, "tp:prices")


def test_the_files_hold_no_password_and_keep_those_that_are_there(tmp_path: Path):
    folder = tmp_path / "users"
    folder.mkdir()
    (folder / "bot_password").write_text("hush", encoding="ascii")
    made_users(folder)
    passwords = {file.name: file.read_text(encoding="ascii") for file in folder.glob("*_password")}
    assert passwords["bot_password"] == "hush"
    assert len(set(passwords.values())) == len(passwords) == 4
    files = {file.name: file.read_text(encoding="ascii") for file in folder.glob("*.acl")}
    assert set(files) == {"store.acl", "broker.acl", "both.acl"}
    assert not [
        name for name, text in files.items() if "@bot@" in text or any(map(text.count, passwords.values()))
    ]
    assert folder.stat().st_mode & 0o77 == 0
    made_users(folder)
    assert files == {file.name: file.read_text(encoding="ascii") for file in folder.glob("*.acl")}
    (folder / "bot_password").write_text("", encoding="ascii")
    again = subprocess.run(
        [ROOT / "ops/redis/make-users", folder], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "bot_password is empty" in again.stderr
