"""Records on the wire: a header of fixed width, then JSON that leaves defaults out."""

from __future__ import annotations

import json
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trade_builders import new_trade
from tradepool.errors import Corrupt
from tradepool.model.archived import archived
from tradepool.model.codec import (
    COMPARED_CHARS,
    HEADER_CHARS,
    Header,
    decode,
    decode_trade,
    digest_of,
    encode_trade,
    pack,
    pack_archived,
    pack_ledger,
    pack_trade,
    read_header,
    split,
    unpack,
    unpack_archived,
    unpack_ledger,
    unpack_trade,
)
from tradepool.model.ledger import Ledger
from tradepool.model.packing import packed, unpacked
from tradepool.model.record_sample import SAMPLE_1


def test_a_trade_survives_being_stored():
    trade = new_trade(exit_price=2100, fee="0.1", fee_currency="BNB", signals={"rsi": 1.5}, tag=["x"])
    assert unpack_trade(pack_trade(trade)) == trade


def test_the_header_tells_version_digest_kind_and_status_in_26_characters():
    trade = new_trade(status="filled")
    value = pack_trade(trade)
    header, body = split(value)
    assert header == Header(version=1, digest=digest_of(body), kind="t", status="F")
    assert value[:COMPARED_CHARS] == b"00000001" + digest_of(body).encode()
    assert unpacked(value[HEADER_CHARS:]) == body == encode_trade(trade)


def test_defaults_are_not_stored_and_decimals_are_text():
    body = json.loads(encode_trade(new_trade()))
    assert body.keys() == {
        "trade_id",
        "user_id",
        "symbol",
        "side",
        "amount",
        "price",
        "created_at",
        "updated_at",
        "payload",
    }
    assert body["amount"] == "2"


def test_a_ledger_survives_being_stored():
    ledger = Ledger(user_id="ann", account_id="default")
    value = pack_ledger(ledger)
    assert unpack_ledger(value) == ledger
    assert split(value)[0].kind == "l"


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"\xff", b'{"user_id":1}', b'{"trade_id":"t"'])
def test_what_is_no_trade_is_corrupt(junk):
    with pytest.raises(Corrupt):
        decode_trade(junk)


@pytest.mark.parametrize("junk", [b"", b"zzzzzzzz", b"\xff" * 40, b"00000001" + b"0" * 16])
def test_what_has_no_header_is_corrupt(junk):
    with pytest.raises(Corrupt):
        split(junk)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=200) | st.integers() | st.none()))
def test_any_body_comes_back_as_it_was(body):
    given_body = msgspec.json.encode(body)
    assert unpacked(packed(given_body)) == given_body


def test_a_usual_trade_takes_a_third_of_its_json():
    trade = new_trade(status="filled", strategy="momentum", signals={"rsi": 1, "combined": 1})
    assert len(packed(encode_trade(trade))) < len(encode_trade(trade)) / 3


def test_the_sample_never_changes():
    # Every stored body needs it. Another sample gets another number; this one stays.
    assert sha256(SAMPLE_1).hexdigest() == "9c64211bdac636208c439bda9a3594bb679733dea00c5026f4006e4d6f0a5680"


def test_what_is_left_of_an_archived_trade_survives_being_stored():
    left = archived(new_trade(status="filled"), "2026-11-22")
    value = pack_archived(left)
    assert unpack_archived(value) == unpack(value) == left
    assert read_header(value)[::2] == (2, "a")


@pytest.mark.parametrize(
    "stored", [b"", b"\x01", b"\x02{}", b"\x01\xff\xff\xff\xff", packed(b"{" + b"a" * 99 + b"}")[:-3]]
)
def test_what_cannot_be_unpacked_is_corrupt(stored):
    with pytest.raises(Corrupt):
        unpacked(stored)


def test_a_kind_of_a_newer_release_is_corrupt():
    for read in (lambda: unpack(pack(1, b"{}", "z", "-")), lambda: decode("z", b"{}")):
        with pytest.raises(Corrupt, match="kind 'z'; only a newer release can read it"):
            read()
