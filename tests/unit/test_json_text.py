"""JSON arrays read in pieces: what stands where does not depend on how much is read at once."""

from __future__ import annotations

import io

import pytest

from tradepool.importers import json_text
from tradepool.importers.json_text import array_items

TEXT = """ [
  {"a": [1, 2], "b": "] } \\" ,"},
  12345, "x",
  {"a": 0.3.4,
   "b": 1}, }, nonsense,
  {"last": -1.50}
] left over"""
TOLD = [
    (1, 2, {"a": [1, 2], "b": '] } " ,'}, ""),
    (2, 3, 12345, ""),
    (3, 3, "x", ""),
    (4, 4, None, "not JSON: Expecting ',' delimiter"),
    (5, 5, None, "not JSON: Expecting value"),
    (6, 5, None, "not JSON: Expecting value"),
    (7, 6, {"last": json_text.decode("-1.50")}, ""),
    (8, 7, None, "there is more behind the array"),
]


def read(text):
    return [(item.row, item.line, item.value, item.error) for item in array_items(io.StringIO(text))]


@pytest.mark.parametrize("chars", [1, 2, 3, 7, 50, 1000])
def test_an_array_is_the_same_in_pieces_of_any_size(monkeypatch, chars):
    monkeypatch.setattr(json_text, "_READ_CHARS", chars)
    assert read(TEXT) == TOLD
    assert read("[]") == []
    assert read("[1, 2]   \n\n ") == [(1, 1, 1, ""), (2, 1, 2, "")]


@pytest.mark.parametrize("chars", [1, 5, 1000])
@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("[1, ", "torn: the file ends before its last bracket"),
        ("[1", "torn: the file ends before its last bracket"),
        ("", "torn: the file ends before its last bracket"),
        ('[1, {"a": "b', "torn: the row does not end, nothing behind it was read"),
    ],
)
def test_a_torn_array_says_so_last(monkeypatch, chars, text, last):
    monkeypatch.setattr(json_text, "_READ_CHARS", chars)
    assert read(text)[-1][3] == last


def test_a_row_too_long_to_be_held_ends_the_reading(monkeypatch):
    monkeypatch.setattr(json_text, "_READ_CHARS", 10)
    monkeypatch.setattr(json_text, "_ITEM_CHARS_MAX", 40)
    told = read('[1, {"a": "' + "x" * 500 + '"}, 2]')
    assert told[0] == (1, 1, 1, "")
    assert told[1][3].startswith("torn")
    assert len(told) == 2
