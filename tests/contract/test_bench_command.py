"""`tradepool bench`: it measures in a folder of its own, and no pool's books are touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tradepool.cli import main
from tradepool.files.journal import JOURNAL_NAME


def test_it_measures_a_pool_of_its_own_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TRADEPOOL_PNL_BACKEND", "numpy")

    assert main(["bench", "--seconds", "0.5", "--in", str(tmp_path), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert all(figure["value"] > 0 for figure in told["figures"])
    compared = {figure["compared_with"] for figure in told["figures"]} - {None}
    assert compared <= {figure["what"] for figure in told["figures"]}
    assert list(tmp_path.iterdir()) == []


def test_it_refuses_the_folder_of_a_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(b"somebody's books")

    assert main(["bench", "--in", str(tmp_path)]) == 2

    assert "holds a pool" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL_NAME]


def test_it_refuses_what_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--in", str(tmp_path / "typo")]) == 2

    assert "is no folder" in capsys.readouterr().err


@pytest.mark.slow
def test_it_measures_a_fleet_of_its_own_whatever_broker_the_environment_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEPOOL_BROKER_URL", "redis://127.0.0.1:1/0")

    assert main(["bench", "--fleet", "--seconds", "1", "--in", str(tmp_path), "--json"]) == 0

    assert all(figure["value"] > 0 for figure in json.loads(capsys.readouterr().out)["figures"])
    assert list(tmp_path.iterdir()) == []
