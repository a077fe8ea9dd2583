"""`tradepool up`, systemd and compose run the same programs with the same arguments."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from pydantic import SecretStr
from ruamel.yaml import YAML

from tests.tidy.source_tree import ROOT
from tradepool.fleet.programs import Program, fleet_programs
from tradepool.fleet.supervisor import STOP_TIMEOUT_S
from tradepool.settings import Settings

UNITS = ROOT / "ops" / "systemd"
COMMON = UNITS / "tradepool-.service.d" / "common.conf"
PYTHON = "/opt/tradepool/bin/python"
THREADS = 64

Arguments = list[str]


def programs() -> dict[str, Program]:
    login = SecretStr("user:password")
    settings = Settings(
        data_dir="/var/lib/tradepool", cpu_threads=THREADS, pnl_devices=2, flower_basic_auth=login
    )
    return {program.name: program for program in fleet_programs(settings)}


def unit_file(name: str) -> tuple[Path, str]:
    """The unit of a program, and its instance if it is a template."""
    if (whole := UNITS / f"tradepool-{name}.service").exists():
        return whole, ""
    family, _, instance = name.rpartition("-")
    return UNITS / f"tradepool-{family}@.service", instance


def lines_of(file: Path, name: str, instance: str = "") -> list[str]:
    text = file.read_text(encoding="utf-8").replace("%i", instance).replace("%%", "%")
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def variables_of(file: Path, instance: str = "") -> dict[str, str]:
    given = " ".join(lines_of(file, "Environment", instance)).split()
    return dict(variable.split("=", 1) for variable in given)


@cache
def compose() -> dict[str, dict]:
    services: dict[str, dict] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    return services


def in_order(arguments: Arguments) -> Arguments:
    """Options stand in whatever order."""
    return sorted(arguments)


@pytest.mark.parametrize("name", programs())
def test_each_program_has_a_unit_with_its_arguments(name: str):
    program = programs()[name]
    file, instance = unit_file(name)
    (command,) = lines_of(file, "ExecStart", instance)
    python, *arguments = shlex.split(command)
    assert python == PYTHON
    assert in_order(arguments) == in_order(list(program.arguments))
    public = {key: value for key, value in program.environment.items() if key != "FLOWER_BASIC_AUTH"}
    assert variables_of(file, instance).items() >= public.items()


def test_the_target_wants_every_program_of_one_device_and_nothing_else():
    wanted = " ".join(lines_of(UNITS / "tradepool.target", "Wants")).split()
    found = {unit_file(name) for name in programs() if name != "gpu-1"}
    named = {file.name.replace("@.", f"@{instance}.") for file, instance in found}
    assert sorted(wanted) == sorted(named)


def test_the_journal_stops_after_all_that_wait_for_it():
    needing = {unit_file(name)[0] for name, program in programs().items() if "worker" in program.arguments}
    for file in needing:
        is_last = lines_of(file, "After") != ["tradepool-files.service"]
        assert is_last == (file.name == "tradepool-files.service"), file.name


def test_units_come_back_and_have_time_to_stop_warm():
    assert lines_of(COMMON, "Restart") == ["always"]
    assert lines_of(COMMON, "StartLimitIntervalSec") == ["0"]
    assert (lines_of(COMMON, "KillSignal"), lines_of(COMMON, "KillMode")) == (["SIGTERM"], ["mixed"])
    (grace,) = lines_of(COMMON, "TimeoutStopSec")
    assert int(grace) >= STOP_TIMEOUT_S
    # systemd reads what all have in common last: it would win over a unit's own.
    shared = {
        line.split("=", 1)[0] for line in COMMON.read_text(encoding="utf-8").splitlines() if "=" in line
    }
    for file in UNITS.glob("*.service"):
        assert not variables_of(file).keys() & variables_of(COMMON).keys()
        assert not shared & {"LoadCredential", "ExecStart"}


def test_no_unit_has_a_password_and_each_the_login_of_its_role():
    roles = {"metrics": "metrics", "flower": "operator"}
    for name in programs():
        file, instance = unit_file(name)
        role = roles.get(name, "worker")
        assert lines_of(file, "LoadCredential") == [f"password:/etc/tradepool/passwords/{role}_password"]
        variables = variables_of(file, instance)
        logins = {variables[f"TRADEPOOL_{server}_USERNAME"] for server in ("REDIS", "BROKER")}
        assert logins == {role}
        assert not [key for key in variables if key.endswith("PASSWORD")]


def test_systemd_takes_the_units(tmp_path: Path):
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd is not installed here")
    shutil.copytree(UNITS, tmp_path / "units")
    for file in (tmp_path / "units").glob("*.service"):
        # It looks whether the program is there.
        file.write_text(file.read_text(encoding="utf-8").replace(PYTHON, sys.executable), encoding="utf-8")
    checked = subprocess.run(
        [verifier, "verify", "--man=no", "tradepool.target", "tradepool-gpu@1.service"],
        cwd=tmp_path / "units",
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path / 'units'}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("name", programs())
def test_each_program_has_a_service_of_compose_with_its_arguments(name: str):
    services = compose()
    family = name if name in services else name.rpartition("-")[0]
    command = services[family]["command"].replace("--address=0.0.0.0", "--address=127.0.0.1")
    arguments = shlex.split(command)
    given = services[family].get("environment", {})
    for variable, value in programs()[name].environment.items():
        if variable != "FLOWER_BASIC_AUTH":
            assert str(given[variable]) == value.replace("/var/lib/tradepool", "/data")
    # A container is a host of its own, and has the programs on its path.
    wanted = [argument.replace(f"{name}@", f"{family}@") for argument in programs()[name].arguments[1:]]
    assert in_order(arguments) == in_order([part.replace("tradepool.cli", "tradepool") for part in wanted])


def test_what_flower_has_seen_is_on_a_volume_of_its_own():
    assert compose()["flower"]["volumes"] == ["flower-data:/data"]


def test_compose_runs_as_many_processes_as_one_machine_would():
    services = compose()
    for family in ("trades", "tokens", "audit"):
        replicas = services[family].get("deploy", {}).get("replicas", 1)
        assert replicas == len([name for name in programs() if name.startswith(f"{family}-")]), family
