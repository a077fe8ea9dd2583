"""A book's file: read back as it was written, and refused when a byte of it is not."""

from __future__ import annotations

import json
import mmap
import os
import random
import struct
import subprocess
import sys
from decimal import Decimal
from zlib import crc32

import numpy as np
import pytest

from tests.pnl_oracle import figures, position
from tradepool.errors import ChecksumMismatch, Corrupt
from tradepool.pnl.book import Book
from tradepool.pnl.book import files as book_files
from tradepool.pnl.book.files import dump, load
from tradepool.pnl.marks import mark

PRICES = {"BTC/USDT": Decimal(7), "ETH/USDT": Decimal(3)}


def book_with_a_history():
    book = Book.from_positions([position(f"t{n}", "1", "2", user_id=f"u{n % 5}") for n in range(40)])
    book.upsert([position("t1", "3", symbol="ETH/USDT"), position("big", "1e30", fee_rate="0.1")], 7)
    book.remove(["t2", "t3"])
    return book


def contents(book):
    digests = book.digests(range(len(book.groups.keys)), len(book.groups.keys))
    versions = {f"t{n}": book.version(f"t{n}") for n in range(40)} | {"big": book.version("big")}
    return digests, versions, figures(mark(book, PRICES, 0, rows=True)), dict(book.removed)


@pytest.fixture(scope="module")
def data():
    return b"".join(dump(book_with_a_history(), b"note"))


def test_a_file_holds_everything_a_book_knows(data):
    book, note = load(data)
    assert note == b"note"
    assert contents(book) == contents(book_with_a_history())
    assert book.upsert([position("t2", "1"), position("t1", "1")], 0) == 0, "removals and versions are kept"


def test_an_empty_book_has_a_file_too():
    book, note = load(b"".join(dump(Book(), b"")))
    assert (len(book), note) == (0, b"")
    assert book.upsert([position("a", "1")], 1) == 1


def test_a_mapped_file_is_written_to_in_memory_only(tmp_path, data):
    path = tmp_path / "book"
    path.write_bytes(data)
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    book, _ = load(mapping)
    assert book.upsert([position(f"t{n}", "5", user_id=f"u{n % 5}") for n in range(40)], 9) == 40
    assert {book.version(f"t{n}") for n in range(40)} == {9}
    mapped = np.frombuffer(mapping, np.uint8)
    assert all(np.may_share_memory(array, mapped) for array in book.columns.arrays.values())
    book.upsert([position(f"later {n}", "5") for n in range(100)], 10)
    assert {book.version(f"later {n}") for n in range(100)} | {book.version("t1")} == {9, 10}
    assert path.read_bytes() == data


def test_a_damaged_byte_is_refused_or_does_not_matter(data):
    expected = contents(book_with_a_history())
    rng = random.Random(5)
    refused = 0
    for place in rng.sample(range(len(data)), 300):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        try:
            book, note = load(bytes(damaged))
        except Corrupt:
            refused += 1
        else:
            assert (note, contents(book)) == (b"note", expected)
    assert refused > 200


def test_a_file_of_any_other_length_is_refused(data):
    for size in [*range(0, len(data), 97), len(data) - 1]:
        with pytest.raises(Corrupt):
            load(data[:size])
    with pytest.raises(Corrupt, match="bytes of data where the header says"):
        load(data + b"x")


def test_another_kind_of_file_and_another_format_are_named(data):
    with pytest.raises(Corrupt, match="something else; remove the file"):
        load(b"PAR1" + data[4:])
    with pytest.raises(Corrupt, match="format 2 is not 1"):
        load(data[:8] + struct.pack("<I", 2) + data[12:])


@pytest.mark.parametrize("place", [16, 20, 40, 60, 200])
def test_damage_in_the_header_is_found_before_it_is_read(data, place):
    damaged = bytearray(data)
    damaged[place] ^= 1
    with pytest.raises(ChecksumMismatch, match="the header is damaged"):
        load(bytes(damaged))


def test_damage_in_a_part_names_it(data):
    damaged = data[:-1] + b"x"
    with pytest.raises(ChecksumMismatch, match="note: piece 0 is damaged"):
        load(damaged)


def test_a_header_that_holds_together_but_describes_nothing_is_refused(data):
    for header in (
        [],
        {"parts": []},
        {"parts": [["note", "|u1", 0, 0, 0, []]]},
        {"parts": [["a", "??", 0, 0, 0, []]]},
    ):
        text = json.dumps(header).encode()
        start = data[:12] + struct.pack("<I", len(text))
        with pytest.raises(Corrupt):
            load(start + struct.pack("<I", crc32(text, crc32(start))) + text)


def test_a_part_of_many_pieces_is_checked_in_all_of_them(monkeypatch):
    monkeypatch.setattr(book_files, "_PIECE_BYTES", 50)
    data = b"".join(dump(book_with_a_history(), b"n" * 120))
    assert load(data)[1] == b"n" * 120
    with pytest.raises(ChecksumMismatch, match="note: piece 2"):
        load(data[:-1] + b"x")


def test_another_process_with_another_hash_seed_reads_the_same(tmp_path, data):
    (tmp_path / "book").write_bytes(data)
    program = (
        "import sys; from pathlib import Path; from tradepool.pnl.book.files import load\n"
        "book, _ = load(Path(sys.argv[1]).read_bytes())\n"
        "print(book.version('t1'), book.digests([0] * len(book.groups.keys), 1))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "book")]
    answer = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True
    ).stdout
    book = book_with_a_history()
    assert answer == f"7 {book.digests([0] * len(book.groups.keys), 1)}\n"
