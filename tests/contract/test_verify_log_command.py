"""`tradepool verify-log`: exit 0 and figures, or exit 1 and one line that says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.journal_entries import write_segments
from tradepool.cli import main
from tradepool.files.journal import JOURNAL_NAME
from tradepool.files.segments import compressed_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_segments(tmp_path / JOURNAL_NAME, 12)
    return tmp_path


def verify(capsys, *words) -> tuple[int, str, str]:
    code = main(["verify-log", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_whole_journal_is_exit_0_with_its_figures(capsys, folder):
    code, out, err = verify(capsys, "--embedded", folder, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert (report["lines"], report["commits"], report["torn_bytes"]) == (24, 12, 0)
    assert report["segments"] > 3
    assert "the journal is whole" in verify(capsys, "--embedded", folder)[1]


def test_the_folder_is_that_of_the_settings_when_none_is_named(capsys, folder, monkeypatch):
    monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(folder))
    assert json.loads(verify(capsys, "--json")[1])["lines"] == 24


def test_damage_is_exit_1_and_one_line_that_names_segment_and_line(capsys, folder):
    damaged = compressed_path(folder / JOURNAL_NAME, 2)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    code, out, err = verify(capsys, "--embedded", folder, "--json")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"tradepool: ChecksumMismatch: {damaged}:")
    assert "(segment 2)" in err


def test_a_missing_segment_is_exit_1_and_named(capsys, folder):
    missing = compressed_path(folder / JOURNAL_NAME, 1)
    missing.unlink()
    code, _, err = verify(capsys, "--embedded", folder)
    assert (code, err.count("\n")) == (1, 1)
    assert "SequenceGap" in err
    assert missing.name in err
