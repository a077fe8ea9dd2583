"""Records on the wire: a header of fixed width, then JSON that leaves defaults out."""

from __future__ import annotations

import json

import pytest

from tests.trade_builders import new_trade
from tradepool.errors import Corrupt
from tradepool.model.codec import (
    COMPARED_CHARS,
    HEADER_CHARS,
    Header,
    decode_trade,
    digest_of,
    encode_trade,
    pack_ledger,
    pack_trade,
    split,
    unpack_ledger,
    unpack_trade,
)
from tradepool.model.tokens import Ledger


def test_a_trade_survives_being_stored():
    trade = new_trade(exit_price=2100, fee="0.1", fee_currency="BNB", signals={"rsi": 1.5}, tag=["x"])
    assert unpack_trade(pack_trade(trade)) == trade


def test_the_header_tells_version_digest_kind_and_status_in_26_characters():
    trade = new_trade(status="filled")
    value = pack_trade(trade)
    header, body = split(value)
    assert header == Header(version=1, digest=digest_of(body), kind="t", status="F")
    assert value[:COMPARED_CHARS] == b"00000001" + digest_of(body).encode()
    assert value[HEADER_CHARS:] == body == encode_trade(trade)


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
