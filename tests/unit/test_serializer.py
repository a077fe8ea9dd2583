"""The wire: exact numbers, names for what is no number, commands that come back as they went."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.serialization import dumps
from kombu.utils import json as kombu_json

from tasks import app
from tradepool import wire
from tradepool.errors import InvalidTrade
from tradepool.model.commands import AddTrade, CloseTrade, UpdateTrade
from tradepool.model.token_commands import UpdateTokens

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_values_come_back_equal(value: object):
    assert wire.decode(wire.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (Decimal("NaN"), "NaN"),
        (Decimal("-Infinity"), "-Infinity"),
        (np.float64("nan"), "NaN"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-8"), "0.00000001"),
        (2**70, str(2**70)),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00+00:00"),
    ],
)
def test_what_json_has_no_word_for_travels_as_text(value: object, text: str):
    assert wire.decode(wire.encode({"a": [value]})) == {"a": [text]}


@pytest.mark.parametrize(
    "value",
    [
        {"a": None, "b": float("nan")},
        {"a": None, "null": {"b": float("inf")}},
        {"a": "null", "b": [float("nan")]},
        {"a": [None, float("-inf")], None: 1},
        {"a": 2**63, "b": -(2**63)},
        {"a": 2**64 - 1},
        {"a": [2**64, 2**1000]},
        {"a": "9" * 19, "b": {"c": Decimal("1E+30")}},
        [float("nan"), None],
        float("nan"),
        {"reserve": None, "trade": {"price": "1.5", "amount": 2, "at": None}},
    ],
)
def test_what_is_encoded_as_it_is_is_encoded_as_if_each_value_had_been_looked_at(
    value: object, monkeypatch: pytest.MonkeyPatch
):
    quickly = wire.encode(value)
    monkeypatch.setattr(wire, "_encoded_as_it_is", lambda _: None)
    assert quickly == wire.encode(value)


def test_a_usual_command_is_encoded_as_it_is():
    usual = {"op": "add_trade", "reserve": None, "trade": {"price": "1.5", "amount": 2.5, "tags": ["a"]}}
    assert wire._encoded_as_it_is(usual) == wire.encode(usual)


@pytest.mark.parametrize("value", [{"__type__": "datetime", "__value__": "x"}, 5])
def test_a_command_that_the_fleet_could_not_read_is_told_from_one_that_it_can(value: object):
    readable = {"op": "update_trade", "command_id": "c", "as_of": 1, "trade_id": "t", "changes": {"a": value}}
    wire.check_readable(wire.encode(readable))
    with pytest.raises(InvalidTrade) as refusal:
        wire.check_readable(wire.encode({**readable, "trade_id": 5}))
    assert "trade_id" in str(refusal.value)


@pytest.mark.parametrize(("value", "number"), [(np.int64(7), 7), (np.float32(0.5), 0.5), (True, True)])
def test_numbers_of_numpy_travel_as_numbers(value: object, number: object):
    assert wire.decode(wire.encode(value)) == number


def test_a_value_that_is_not_to_be_sent_is_an_error_not_a_null():
    endless: list[object] = []
    endless.append(endless)
    for bad in ("\ud800", endless, object(), 2**5000):
        with pytest.raises(TypeError):
            wire.encode(bad)


def test_messages_of_other_celery_programs_are_understood():
    theirs = {"price": Decimal("0.10"), "at": datetime(2024, 1, 2, tzinfo=UTC), "nan": float("nan")}
    for name, value in theirs.items():
        decoded = wire.decode(kombu_json.dumps([value]))
        assert decoded == (["NaN"] if name == "nan" else [value])


@pytest.mark.parametrize(
    "value",
    [
        {"__type__": "datetime", "__value__": "x"},
        {"__type__": "decimal", "__value__": "x"},
        {"__type__": "uuid", "__value__": 5},
        {"__type__": ["datetime"], "__value__": None},
        {"__type__": "rsi", "__value__": 1},
    ],
)
def test_a_value_that_only_looks_like_one_of_celerys_stays_as_it_is(value: dict[str, object]):
    theirs = {"__type__": "decimal", "__value__": "0.10"}
    assert wire.decode(wire.encode([value, theirs])) == [value, Decimal("0.10")]


def test_what_is_not_json_is_an_error():
    with pytest.raises(ValueError, match="Expecting value"):
        wire.decode(b'[{"a": tru')


def test_the_fleet_reads_and_writes_nothing_but_json():
    content_type, encoding, body = dumps([Decimal("1.50")], serializer=app.conf.task_serializer)
    assert (content_type, encoding, bytes(body)) == ("application/json", "utf-8", b'["1.50"]')
    assert app.conf.accept_content == [wire.SERIALIZER]


@pytest.mark.parametrize(
    "command",
    [
        AddTrade(command_id="a", as_of=1, trade={"user_id": "u", "amount": "1.5"}),
        CloseTrade(command_id="b", as_of=2, trade_id="t", price="100"),
        UpdateTrade(command_id="c", as_of=3, trade_id="t", changes={"stop_loss": None}, expected_version=2),
        UpdateTokens(command_id="d", as_of=4, user_id="u", tokens=["BTC"], complete=True),
    ],
)
def test_a_command_comes_back_as_it_went(command: object):
    assert wire.command_from_wire(wire.decode(wire.encode(wire.command_to_wire(command)))) == command


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"op": "add_trade"},
        {"op": "add_trade", "command_id": 1, "as_of": 1, "trade": {}},
        {"op": "no such", "command_id": "x", "as_of": 1},
        {"op": 3},
        {"op": ["add_trade"]},
    ],
)
def test_what_is_no_command_is_refused(message: dict[str, object]):
    with pytest.raises(InvalidTrade):
        wire.command_from_wire(message)
