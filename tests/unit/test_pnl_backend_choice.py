"""The setting chooses the backend, and says why."""

from __future__ import annotations

import logging
import subprocess
import sys
from decimal import Decimal

import pytest

from tests.pnl_oracle import position
from tradepool.errors import Misconfigured
from tradepool.pnl.backend import choose_backend
from tradepool.pnl.book import Book
from tradepool.pnl.marks import mark


@pytest.fixture
def no_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "tradepool.pnl.numba_backend", raising=False)
    monkeypatch.delitem(sys.modules, "tradepool.pnl.numba_kernel", raising=False)


def test_auto_takes_the_compiled_backend_where_it_is_installed():
    choice = choose_backend("auto")
    assert choice.backend.name == "numba"
    assert "cuda" in choice.reason


def test_auto_falls_to_numpy_and_says_why(no_numba):
    choice = choose_backend("auto")
    assert choice.backend.name == "numpy"
    assert "numba does not work here" in choice.reason


@pytest.mark.parametrize("setting", ["numpy", "numba"])
def test_a_backend_is_what_was_set(setting):
    choice = choose_backend(setting)
    assert (choice.backend.name, choice.reason) == (setting, f"{setting}: as set")


def test_numba_that_is_not_installed_is_misconfigured_with_the_cure(no_numba):
    with pytest.raises(Misconfigured, match=r"pip install 'tradepool\[fast\]'"):
        choose_backend("numba")


@pytest.mark.parametrize("setting", ["cuda", "abacus", ""])
def test_a_backend_that_is_not_there_is_misconfigured_with_the_cure(setting):
    with pytest.raises(Misconfigured, match=r"TRADEPOOL_PNL_BACKEND to "):
        choose_backend(setting)


def test_the_reason_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="tradepool.pnl.backend"):
        reason = choose_backend("auto").reason
    assert reason in caplog.text


def test_marks_name_the_chosen_backend():
    book = Book.from_positions([position("t", "1")])
    marks = mark(book, {"BTC/USDT": Decimal(1)}, 0, backend=choose_backend("auto").backend)
    assert marks.backend == "numba"


def test_marking_needs_numpy_and_the_standard_library_only():
    seen = subprocess.run(
        [sys.executable, "-c", "import sys, tradepool.pnl.marks; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    allowed = {"numpy", "tradepool", *sys.stdlib_module_names}
    names = {name.partition(".")[0] for name in seen if not name.startswith(("_", "sitecustomize"))}
    assert names <= allowed
