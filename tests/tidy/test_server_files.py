"""redis.conf and docker-compose.yml: explained line by line, valid, and taken by a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import pytest
import redis
from ruamel.yaml import YAML

from tests.roles import ADMIN, made_users, with_an_admin
from tests.tidy.source_tree import ROOT
from tradepool.audit.report import AUDITS_NAME
from tradepool.settings import Settings

CONF = ROOT / "redis.conf"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE_GPU = ROOT / "docker-compose.gpu.yml"
REASON_WORDS_MIN = 5
START_LINES_MAX = 200
STOP_TIMEOUT_S = 30

Services = dict[str, dict]


@pytest.fixture(scope="module")
def services() -> Services:
    return YAML(typ="safe").load(COMPOSE)["services"]


def test_every_setting_of_the_server_has_its_reason_above_it():
    blocks = re.findall(r"((?:^#.*\n)*)^(\w.*)$", CONF.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(blocks) == len(_settings())
    assert [setting for reason, setting in blocks if len(reason.split()) < REASON_WORDS_MIN] == []


def test_a_server_starts_with_the_configuration_and_holds_every_setting(server_binary: Path, tmp_path: Path):
    with _server(server_binary, CONF, "--maxmemory", "64mb", folder=tmp_path) as client:
        held = client.config_get("*")
    wanted = _settings() - {("maxmemory", "300gb"), ("port", "6379")}
    assert {(name, value) for name, value in wanted if not _is_held(held, name, value)} == set()
    assert held["maxmemory"] == str(64 * 1024**2)


def test_the_configuration_gives_300_gb_and_never_evicts():
    assert {("maxmemory", "300gb"), ("maxmemory-policy", "noeviction"), ("appendonly", "yes")} <= _settings()


@pytest.mark.parametrize("name", ["store", "broker"])
def test_a_server_starts_with_the_arguments_that_compose_gives_it(
    name: str, services: Services, server_binary: Path, tmp_path: Path
):
    users = with_an_admin(made_users(tmp_path / "secrets") / f"{name}.acl")
    places = {"/etc/tradepool/users.acl": str(users), "/data": str(tmp_path)}
    program, conf, *arguments = services[name]["command"]
    assert (program, conf) == ("valkey-server", "/etc/tradepool/redis.conf")
    arguments = [places.get(argument, argument) for argument in arguments]
    small = ["--maxmemory", "64mb"]
    with _server(server_binary, CONF, *arguments, *small, folder=tmp_path, login=ADMIN) as client:
        assert client.config_get("bind") == {"bind": "* -::*"}


@pytest.mark.parametrize("file", [COMPOSE, COMPOSE_GPU], ids=lambda file: file.name)
def test_the_compose_files_are_valid(file: Path):
    checker = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(file),
    ]
    result = subprocess.run(checker, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_compose_runs_the_whole_fleet(services: Services):
    roles = {"store", "broker", "trades", "tokens", "audit", "gpu", "files", "beat", "flower", "metrics"}
    assert {name for name, service in services.items() if "profiles" not in service} == roles
    assert services["beat"]["deploy"]["replicas"] == 2
    assert {service["restart"] for service in services.values()} == {"always"}


def test_every_service_is_watched_and_has_time_for_its_shutdown(services: Services):
    for name, service in services.items():
        assert "healthcheck" in service, name
        assert _seconds(service["stop_grace_period"]) > Settings.model_fields["journal_wait_s"].default, name


def test_flower_is_reachable_from_this_machine_only_and_asks_for_a_password(services: Services):
    flower = services["flower"]
    assert all(port.startswith("127.0.0.1:") for port in flower["ports"])
    assert flower["environment"]["FLOWER_BASIC_AUTH"].startswith("${TRADEPOOL_FLOWER_BASIC_AUTH:?")
    assert [name for name, service in services.items() if "ports" in service] == [
        "flower",
        "prometheus",
        "grafana",
    ]


def test_whoever_watches_is_asked_for_and_pinned_and_seen_from_this_machine_only(services: Services):
    for name in ("prometheus", "grafana"):
        service = services[name]
        assert service["profiles"] == ["watching"]
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        mounted = [mount.split(":")[0] for mount in service["volumes"] if mount.startswith("./")]
        assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_each_queue_has_its_worker(services: Services):
    commands = [
        service["command"] for service in services.values() if isinstance(service.get("command"), str)
    ]
    queues = {queue for command in commands for queue in re.findall(r"-Q (\S+)", command)}
    assert queues == {"trades", "tokens", "audit", "gpu", "gpu.1", "files"}


def test_each_device_has_a_worker_that_reads_the_journal_and_writes_its_book(services: Services):
    reserved = YAML(typ="safe").load(COMPOSE_GPU)["services"]
    workers = {name: service for name, service in services.items() if "-Q gpu" in service.get("command", "")}
    assert set(workers) == set(reserved)
    for device, (name, worker) in enumerate(workers.items()):
        assert worker["environment"]["TRADEPOOL_PNL_DEVICE"] == device
        assert worker["volumes"] == ["pool-data:/data:ro", "book-data:/data/book"]
        (devices,) = reserved[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices["driver"] == "nvidia"


def test_audit_workers_can_write_where_they_keep_reports_and_work_files(services: Services):
    assert services["audit"]["volumes"] == ["pool-data:/data:ro", f"audits-data:/data/{AUDITS_NAME}"]
    # A mount point that the image lacks cannot be made within what is read-only.
    assert f"/data/{AUDITS_NAME} " in DOCKERFILE.read_text(encoding="utf-8")


def _settings() -> set[tuple[str, str]]:
    lines = CONF.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    return {(name, value.strip('"')) for name, value in pairs}


def _is_held(held: dict[str, str], name: str, value: str) -> bool:
    value = re.sub(r"\d+(mb|gb)", lambda size: str(_bytes(size.group())), value)
    return value in held.get(name, "")


def _bytes(size: str) -> int:
    return int(size[:-2]) * {"mb": 1024**2, "gb": 1024**3}[size[-2:]]


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


@contextmanager
def _server(
    binary: Path, conf: Path, *arguments: str, folder: Path, login: Mapping[str, str] = MappingProxyType({})
) -> Iterator[redis.Redis]:
    # The path of a socket must be short, and that of a test's folder is not.
    with TemporaryDirectory() as socket_folder:
        socket = f"{socket_folder}/s"
        place = ["--port", "0", "--unixsocket", socket, "--dir", str(folder)]
        with _started([str(binary), str(conf), *arguments, *place]):
            client = redis.Redis(unix_socket_path=socket, decode_responses=True, **login)
            with client:
                yield client


@contextmanager
def _started(command: list[str]) -> Iterator[None]:
    """Run the server from its "ready" to the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            seen = list(islice(_until_ready(server.stdout), START_LINES_MAX))
            assert "Ready to accept connections" in "".join(seen[-1:]), "".join(seen)
            yield
        finally:
            server.terminate()
            server.communicate(timeout=STOP_TIMEOUT_S)


def _until_ready(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if "Ready to accept connections" in line:
            return
