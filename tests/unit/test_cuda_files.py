"""`make gpu-test` and `make gpu-bench` need the files they say and nothing else of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.tidy.source_tree import ROOT

LOADED = """
import sys
import tests.gpu.__main__, tests.gpu.golden, bench.gpu_marks
import tradepool.pnl.backend, tradepool.pnl.cuda.backend, tradepool.pnl.backend_check
for name, module in sorted(sys.modules.items()):
    print(name, getattr(module, "__file__", None) or "")
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder with nothing but those files."""
    folder = tmp_path_factory.mktemp("bare")
    listed = subprocess.run(["make", "-s", "gpu-files"], cwd=ROOT, capture_output=True, check=True, text=True)
    for path in listed.stdout.split():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, folder / path)
    return folder


def run(folder, *command):
    return subprocess.run(
        command, cwd=folder, capture_output=True, check=False, text=True, env={"PATH": "/usr/bin:/bin"}
    )


def test_the_files_are_enough_with_numpy_and_the_standard_library(bare):
    loaded = run(bare, sys.executable, "-c", LOADED)
    assert loaded.returncode == 0, loaded.stderr
    modules = [line.partition(" ")[::2] for line in loaded.stdout.splitlines()]
    ours = {"tests", "tradepool", "bench"}
    allowed = ours | {"numpy", *sys.stdlib_module_names}
    names = {name.partition(".")[0] for name, _ in modules if not name.startswith(("_", "sitecustomize"))}
    assert names <= allowed
    strays = [
        file for name, file in modules if name.partition(".")[0] in ours and file and str(bare) not in file
    ]
    assert strays == []


def test_without_a_device_it_is_said_that_nothing_was_done(bare):
    result = run(bare, "make", "gpu-test", "gpu-bench", f"PYTHON={sys.executable}", "ARGS=1000")
    assert result.returncode == 0, result.stderr
    if "no CUDA device" not in result.stdout:
        pytest.skip("there is a device here")
    lines = result.stdout.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "no CUDA device: skipped, nothing was tested",
        "no CUDA device: skipped, nothing was measured",
    ]
    assert not (bare / "gpu-results.txt").exists()
