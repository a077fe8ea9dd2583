"""How threads become pools and processes, and what those processes are started with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tradepool.fleet.pool_sizes import PROCESS_THREADS_MAX, pool_sizes, process_sizes
from tradepool.fleet.programs import environment, fleet_programs
from tradepool.settings import Settings


@pytest.mark.parametrize(
    ("threads", "sizes"),
    [
        (64, {"trades": 40, "tokens": 8, "audit": 8}),
        (16, {"trades": 10, "tokens": 2, "audit": 2}),
        (8, {"trades": 8, "tokens": 1, "audit": 1}),
        (2, {"trades": 8, "tokens": 1, "audit": 1}),
        (1, {"trades": 8, "tokens": 1, "audit": 1}),
    ],
)
def test_the_threads_are_divided(threads: int, sizes: dict[str, int]):
    assert pool_sizes(threads) == sizes


@given(st.integers(1, 1000))
def test_no_process_has_more_than_eight_threads_and_none_is_lost(threads: int):
    sizes = process_sizes(threads)
    assert sum(sizes) == threads
    assert max(sizes) <= PROCESS_THREADS_MAX
    assert max(sizes) - min(sizes) <= 1


def test_the_production_fleet_is_what_the_plan_says():
    programs = fleet_programs(Settings(cpu_threads=64, flower_basic_auth="a:b"))
    names = [program.name for program in programs]
    assert names == [
        "files",
        *(f"trades-{n}" for n in range(1, 6)),
        "tokens-1",
        *(f"audit-{n}" for n in range(1, 9)),
        "gpu",
        "beat",
        "metrics",
        "flower",
    ]
    assert [program.name for program in programs if program.ends_last] == ["files"]
    gpu = next(program for program in programs if program.name == "gpu")
    assert {"solo", "--disable-prefetch"} <= set(gpu.arguments)


def test_each_device_has_a_worker_that_knows_which_one_it_is():
    programs = fleet_programs(Settings(pnl_devices=3, flower_basic_auth="a:b"))
    gpus = [program for program in programs if program.name.startswith("gpu")]
    assert [program.name for program in gpus] == ["gpu", "gpu-1", "gpu-2"]
    assert [program.arguments[program.arguments.index("-Q") + 1] for program in gpus] == [
        "gpu",
        "gpu.1",
        "gpu.2",
    ]
    assert [program.environment for program in gpus] == [{"TRADEPOOL_PNL_DEVICE": f"{n}"} for n in range(3)]


def test_no_password_stands_in_a_command_line():
    settings = Settings(
        redis_url="redis://:topsecret@127.0.0.1/0", flower_basic_auth=SecretStr("me:topsecret")
    )
    for program in fleet_programs(settings):
        assert "topsecret" not in " ".join(program.arguments)
    flower = fleet_programs(settings)[-1]
    assert flower.environment["FLOWER_BASIC_AUTH"] == "me:topsecret"
    assert flower.environment["FLOWER_MAX_TASKS"] == "10000", "at its own limit it would take 640 MiB"
    assert "--address=127.0.0.1" in flower.arguments
    assert flower.umask == 0o077, "its database would be for everybody to read"


def test_the_environment_gives_a_child_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    given_settings = Settings(redis_url="redis://h:1/2", data_dir=tmp_path, shard_count=8, mark_every_s=0.5)
    for name, value in environment(given_settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == given_settings
