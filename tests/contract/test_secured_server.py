"""Servers that ask who is there: passwords, users with few rights, TLS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.app import PoolApp
from tasks.config import celery_settings
from tests.certificates import Authority
from tests.loose_trades import buy, entry
from tests.roles import made_users
from tests.servers import PASSWORD, Server
from tests.tcp_proxy import TcpProxy
from tradepool import TradePool
from tradepool.broker import ChangeSender
from tradepool.errors import Misconfigured, StoreUnavailable
from tradepool.journaling.service import JournalService
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings
from tradepool.store import fence
from tradepool.store.connection import connect
from tradepool.store.shard_count import check_shard_count

RULE = re.compile(r"^user (worker on .*)$", re.MULTILINE)
HUSH = "hush-hush"


@pytest.fixture(scope="module")
def server(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a loopback port, behind a password."""
    with Server(tmp_path_factory.mktemp("secured") / "server") as running:
        yield running


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    """A pool on the emptied server, without a login."""
    with server.client() as admin:
        admin.flushall()
        admin.script_flush()
    return Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", data_dir=tmp_path / "pool", shard_count=4)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the server's certificates."""
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


def given(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def pool_works(settings: Settings) -> None:
    """A day in the life of a pool, its recovery included."""
    with closing(JournalService(settings, connect(settings))) as journal:
        journal.recover()
        journal.start()
        with TradePool.connect(settings) as pool:
            added = pool.add_trade(buy(user_id="ann", amount="2", price="100"))
            pool.add_fill(added.trade_id, entry("f1", amount="2", price="100"))
            pool.add_trade(buy(user_id="ann", trade_id="trade:1", idempotency_key="key"))
            assert pool.close_trade(added.trade_id, "110").durable
            pool.update_available_tokens("ann", {"USDT": "5"})
            pool.set_prices({"BTC/USDT": "120"})
            pool.mark_to_market()
            assert len(list(pool.get_all_trades())) == len(pool.get_trades_by_user("ann").trades) == 2
            pool.write_snapshot(journal.journal)
            assert pool.check_all_trades(deep=True).ok


def refusal_of(settings: Settings) -> str:
    with closing(connect(settings)) as client, pytest.raises(Misconfigured) as refusal:
        check_shard_count(client, settings.shard_count)
    words = str(refusal.value)
    assert "\n" not in words
    assert PASSWORD not in words
    assert HUSH not in words
    return words


def test_a_password_beside_the_url_opens_the_server(settings, tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n", encoding="ascii")
    pool_works(given(settings, redis_password_file=file))


def test_a_wrong_password_or_none_is_told_in_one_line(settings):
    for wrong in (given(settings), given(settings, redis_password=SecretStr(HUSH))):
        assert "check user and password" in refusal_of(wrong)
    assert "check user and password" in refusal_of(
        given(settings, redis_password=SecretStr(PASSWORD), redis_username="nobody")
    )


def test_a_worker_runs_the_pool_and_its_recovery(settings, server, tmp_path):
    users = made_users(tmp_path / "users")
    (rule,) = RULE.findall((users / "store.acl").read_text(encoding="ascii"))
    login = given(settings, redis_username="worker", redis_password_file=users / "worker_password")
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", *rule.split())
        pool_works(login)
        admin.flushall()
        admin.script_flush()
        with closing(JournalService(login, connect(login))) as journal:
            journal.recover()
        assert admin.hlen("tp:{pool}:meta") > 0
        assert fence.is_open(admin)
    with closing(connect(login)) as client:
        for forbidden in (["FLUSHALL"], ["CONFIG", "GET", "*"], ["GET", "somebody-elses"], ["KEYS", "*"]):
            with pytest.raises(Exception, match=r"(?i)permission|NOPERM"):
                client.execute_command(*forbidden)


def test_a_missing_right_is_named(settings, server):
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "on", f">{HUSH}", "~tp:*", "+@read", "+ping")
        admin.script_flush()
    login = given(settings, redis_username="reader", redis_password=SecretStr(HUSH))
    with TradePool.connect(login) as pool, pytest.raises(Misconfigured, match=r"docs/operations\.md"):
        pool.add_trade(buy(user_id="ann"))
    with (
        closing(JournalService(login, connect(login))) as journal,
        pytest.raises(Misconfigured, match="right"),
    ):
        journal.recover()


def test_a_pool_works_over_tls(settings, server, authority):
    with TcpProxy(("127.0.0.1", server.port), tls=authority.server_side()) as proxy:
        secured = given(
            settings,
            redis_url=f"rediss://127.0.0.1:{proxy.port}/0",
            redis_password=SecretStr(PASSWORD),
            redis_ca_file=authority.file,
        )
        pool_works(secured)
        with ChangeSender(secured) as sender:
            sender.send("trades", [])
            assert sender.backlog("trades") == 1
        app = PoolApp("fresh", set_as_current=False)
        app.config_from_object(celery_settings(secured))
        assert app.backend.client.ping()
        app.backend.client.close()


@pytest.mark.slow
def test_a_certificate_we_do_not_trust_is_told_in_one_line(settings, server, authority, tmp_path):
    stranger = Authority(tmp_path / "stranger")
    with TcpProxy(("127.0.0.1", server.port), tls=authority.server_side()) as proxy:
        url = f"rediss://:{PASSWORD}@127.0.0.1:{proxy.port}/0"
        for wrong in (
            given(settings, redis_url=url),
            given(settings, redis_url=url, redis_ca_file=stranger.file),
        ):
            assert "TRADEPOOL_REDIS_CA_FILE" in refusal_of(wrong)
    with TcpProxy(("127.0.0.1", server.port), tls=authority.server_side(host="127.0.0.9")) as proxy:
        url = f"rediss://:{PASSWORD}@127.0.0.1:{proxy.port}/0"
        assert "another host" in refusal_of(given(settings, redis_url=url, redis_ca_file=authority.file))


@pytest.mark.slow
def test_a_server_that_asks_for_a_certificate_gets_ours(settings, server, authority):
    with TcpProxy(("127.0.0.1", server.port), tls=authority.server_side(asks_client=True)) as proxy:
        trusting = given(
            settings,
            redis_url=f"rediss://:{PASSWORD}@127.0.0.1:{proxy.port}/0",
            redis_ca_file=authority.file,
        )
        # The server's alert and the end of the connection race; both lead to the setting.
        told = pytest.raises((Misconfigured, StoreUnavailable), match="TRADEPOOL_REDIS_CERT_FILE")
        with closing(connect(trusting)) as client, told as why:
            check_shard_count(client, settings.shard_count)
        assert "\n" not in str(why.value)
        certificate, key = authority.issue("client")
        pool_works(given(trusting, redis_cert_file=certificate, redis_key_file=key))


@pytest.mark.slow
def test_a_server_without_tls_is_not_reached_by_rediss(settings, server):
    impatient = given(settings, socket_timeout_s=0.1, connect_timeout_s=0.1)
    with closing(connect(given(impatient, redis_url=f"rediss://127.0.0.1:{server.port}/0"))) as client:
        with pytest.raises(StoreUnavailable) as problem:
            check_shard_count(client, settings.shard_count)
        assert "\n" not in str(problem.value)


@pytest.mark.parametrize("port", [None, 0])
def test_a_private_server_listens_on_the_loopback_or_a_socket_whatever_its_configuration_says(
    server_binary, tmp_path, port
):
    if not Path("/proc/net/tcp").exists():
        pytest.skip("this system does not list its sockets in /proc")
    everybody = ["bind * -::*", "protected-mode no", "port 7999"]
    with EmbeddedServer(tmp_path, port=port, overrides=everybody) as server, server.client() as client:
        assert client.config_get("port") == {"port": "0" if port is None else str(listening_port(server))}
        hosts = listening_hosts(server.pid)
    assert hosts == (set() if port is None else {"0100007F"})


def listening_port(server: EmbeddedServer) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


def listening_hosts(pid: int) -> set[str]:
    """The addresses, in the kernel's hex, on which a process takes TCP connections."""
    sockets = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
