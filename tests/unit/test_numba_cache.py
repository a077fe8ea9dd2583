"""Compiled code kept on disk is taken again only while all it was made of is the same."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from tradepool.pnl.cpu import numba_kernel
from tradepool.pnl.stress import numba_matrix

LOOP = """
from factor_of_loop import FACTOR, shifted
from tradepool.pnl.cpu.numba_cache import compiled

@compiled
def total(number):
    return shifted(number * FACTOR)
"""
FACTOR = """
from tradepool.pnl.cpu.numba_cache import compiled

FACTOR = {factor}
SHIFT = {shift}

@compiled
def shifted(number):
    return number + SHIFT
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Imports the loop and what it calls as a process that starts now would find them."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loop.py").write_text(LOOP)

    def load(*, factor: int, shift: int) -> Any:
        (tmp_path / "factor_of_loop.py").write_text(FACTOR.format(factor=factor, shift=shift))
        for name in ("loop", "factor_of_loop"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        # Sources of one second and one size would be taken for each other.
        for compiled_source in (tmp_path / "__pycache__").glob("*.pyc"):
            compiled_source.unlink()
        return importlib.import_module("loop").total

    yield load
    for name in ("loop", "factor_of_loop"):
        sys.modules.pop(name, None)


def test_kept_code_is_loaded_again_while_its_sources_are_the_same(load):
    assert load(factor=2, shift=1)(10) == 21
    again = load(factor=2, shift=1)
    assert again(10) == 21
    assert sum(again.stats.cache_hits.values()) == 1


def test_another_constant_in_an_imported_module_is_compiled_anew(load):
    assert load(factor=2, shift=1)(10) == 21
    assert load(factor=3, shift=1)(10) == 31


def test_another_function_called_from_an_imported_module_is_compiled_anew(load):
    assert load(factor=2, shift=1)(10) == 21
    assert load(factor=2, shift=5)(10) == 25
    assert load(factor=2, shift=1)(10) == 21


def test_another_process_gives_the_loops_the_same_names():
    modules = (numba_kernel, numba_matrix)
    names = [each.__qualname__ for module in modules for each in vars(module).values() if is_loop(each)]
    program = """
from tradepool.pnl.cpu import numba_kernel
from tradepool.pnl.stress import numba_matrix
loops = [each for module in (numba_kernel, numba_matrix) for each in vars(module).values()]
print(*(each.__qualname__ for each in loops if hasattr(each, "py_func")))
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == names


def is_loop(named: object) -> bool:
    return hasattr(named, "py_func")
