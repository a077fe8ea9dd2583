"""The golden digests, which a machine with a CUDA device replays, are right, and backends here give them."""

from __future__ import annotations

import json

import pytest

from tests.gpu.golden import GOLDEN, digests_of, expected_digests
from tradepool.pnl.cpu.numba_backend import NumbaBackend
from tradepool.pnl.cpu.numpy_backend import NumpyBackend


def committed():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("backend", [NumpyBackend, NumbaBackend])
def test_marks_of_the_golden_books_have_the_committed_digests(backend):
    assert digests_of(backend()) == committed()


def test_the_committed_digests_are_the_oracles():
    assert expected_digests() == committed()
