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


def test_auto_falls_to_numpy_and_says_why():
    choice = choose_backend("auto")
    assert choice.backend.name == "numpy"
    assert "cuda" in choice.reason
    assert "numba" in choice.reason


def test_numpy_is_what_was_set():
    choice = choose_backend("numpy")
    assert (choice.backend.name, choice.reason) == ("numpy", "numpy: as set")


@pytest.mark.parametrize("setting", ["numba", "cuda", "abacus", ""])
def test_a_backend_that_is_not_there_is_misconfigured_with_the_cure(setting):
    with pytest.raises(Misconfigured, match=r"TRADEPOOL_PNL_BACKEND to auto or numpy"):
        choose_backend(setting)


def test_the_reason_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="tradepool.pnl.backend"):
        reason = choose_backend("auto").reason
    assert reason in caplog.text


def test_marks_name_the_chosen_backend():
    book = Book.from_positions([position("t", "1")])
    marks = mark(book, {"BTC/USDT": Decimal(1)}, 0, backend=choose_backend("auto").backend)
    assert marks.backend == "numpy"


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
