"""A whole fleet in which everybody has its own login: nothing that a role needs is denied it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fleet.nodes import log_lines, start_worker
from tests.fleet.trades import new_trade, new_trades
from tests.roles import RoleServers, role_servers
from tests.waiting import eventually
from tradepool.client import PoolClient
from tradepool.errors import Misconfigured
from tradepool.fleet.programs import environment
from tradepool.pool import TradePool
from tradepool.settings import load_settings

CONFIRM_S = 60.0
TAKING = {"celery": "brpop", "atomic": "client|tracking"}
"""The right that only taking a message needs, by transport."""


@pytest.fixture(scope="module", params=["one server", "two servers", "atomic takes"])
def servers(request, server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleServers]:
    """Servers, and workers and a beat under the worker's login."""
    folder = tmp_path_factory.mktemp("roles")
    transport = "atomic" if request.param == "atomic takes" else "celery"
    with ExitStack() as stack:
        running = stack.enter_context(role_servers(folder, two=request.param == "two servers"))
        settings = running.settings("worker", broker_transport=transport)
        nodes = [start_worker(settings, queues) for queues in ("files", "trades,tokens,audit")]
        nodes.append(start_worker(settings, "gpu", "-P", "solo", "--disable-prefetch", threads=1))
        for node in nodes:
            stack.callback(node.teardown)
        celery(stack, running, "worker", "beat", "--pidfile=")
        for node in nodes:
            node.wait_ready()
        yield running


def celery(stack: ExitStack, servers: RoleServers, role: str, *arguments: str) -> None:
    """Run a program of Celery's until the end of `stack`."""
    settings = servers.settings(role)
    with (settings.data_dir / f"{arguments[0]}.log").open("wb") as log:
        command = [sys.executable, "-m", "celery", "-A", "tasks", *arguments]
        program = subprocess.Popen(command, env=environment(settings), stdout=log, stderr=log)
    stack.callback(program.wait)
    stack.callback(program.kill)


def told(servers: RoleServers, role: str, *arguments: str) -> str:
    """What a program says that succeeds."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(
        command, env=environment(servers.settings(role)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_role_does_its_work_and_nothing_is_denied(servers: RoleServers):
    bot, operator = servers.settings("bot"), servers.settings("operator")
    with PoolClient.connect(bot) as client:
        trade_ids = client.add_trades(new_trades(50))
        client.update_available_tokens("saver", {"BTC": "0.5"})
        client.close_trade(trade_ids[0], 110)
        assert client.flush(CONFIRM_S), servers.denied()
        assert all(client.confirm(trade_ids[1:], CONFIRM_S).values())
        assert len(client.rejections) == 1
    with TradePool.connect(bot) as pool:
        assert len(list(pool.get_all_trades())) == len(trade_ids)
    with TradePool.connect(operator) as pool:
        eventually(pool.get_mark_totals)
        assert servers.denied() == []
        with pytest.raises(Misconfigured, match=r"operations\.md"):
            pool.add_trade(new_trade())
        assert {user for user, _, _ in servers.denied()} == {"operator"}
    assert "tradepool_up 1" in told(servers, "metrics", "tradepool.cli", "metrics", "--once")
    told(servers, "operator", "tradepool.cli", "check-all-trades")
    told(servers, "operator", "tradepool.cli", "check-all-trades", "--deep", "--fleet")
    told(servers, "operator", "tradepool.cli", "replay-dead")
    assert "3 nodes online" in told(servers, "operator", "celery", "-A", "tasks", "inspect", "ping")
    told(servers, "operator", "celery", "-A", "tasks", "control", "enable_events")
    assert servers.denied() == []


@pytest.fixture
def pool_alone(server_binary: Path, tmp_path: Path) -> Iterator[RoleServers]:
    """A server with the users of the roles, the journal's worker and one for trades."""
    with role_servers(tmp_path, two=False) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("right", [TAKING[load_settings().broker_transport], "publish"])
def test_a_worker_that_is_denied_a_right_says_so_once_and_works_when_it_has_it(
    pool_alone: RoleServers, right: str
):
    refusal = "the broker refuses this worker"
    with pool_alone.store.client() as admin, ExitStack() as stack:
        admin.execute_command("ACL", "SETUSER", "worker", f"-{right}")
        settings = pool_alone.settings("worker")
        nodes = [start_worker(settings, queues) for queues in ("files", "trades,tokens")]
        for node in nodes:
            stack.callback(node.teardown)
        # Four refusals: it has waited for longer than a second by then.
        eventually(lambda: pool_alone.refusals(right) > 4 * len(nodes), CONFIRM_S)
        admin.execute_command("ACL", "SETUSER", "worker", f"+{right}")
        with PoolClient.connect(pool_alone.settings("bot")) as client:
            assert all(client.confirm(client.add_trades(new_trades(3)), CONFIRM_S).values())
        for node in nodes:
            (line,) = [line for line in log_lines(node) if line["event"] == refusal]
            assert right in str(line["problem"])
            assert "docs/operations.md" in str(line["problem"])
            assert "Traceback" not in node.logs()


@pytest.mark.slow
def test_a_bot_that_is_denied_a_right_says_so_once_and_sends_when_it_has_it(pool_alone: RoleServers):
    with pool_alone.store.client() as admin, ExitStack() as stack:
        admin.execute_command("ACL", "SETUSER", "bot", "-lpush")
        node = start_worker(pool_alone.settings("worker"), "files,trades")
        stack.callback(node.teardown)
        node.wait_ready()
        client = stack.enter_context(PoolClient.connect(pool_alone.settings("bot")))
        with capture_logs() as lines:
            trade_ids = client.add_trades(new_trades(3))
            eventually(lambda: pool_alone.refusals("lpush") >= 4, CONFIRM_S)
            assert "lpush" in client.lag().problem
            admin.execute_command("ACL", "SETUSER", "bot", "+lpush")
            assert all(client.confirm(trade_ids, CONFIRM_S).values())
        (line,) = [line for line in lines if line["event"] == "cannot send"]
        assert "docs/operations.md" in line["problem"]
