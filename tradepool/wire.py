"""What travels between bots and the fleet: queue and task names, commands as JSON, the serializer.

orjson is the only serializer; its content type is plain `application/json`, so any Celery producer is
understood. Decimals travel as text in positional notation. A number that JSON cannot hold (NaN,
±Infinity) travels as its name in text, so that the fleet refuses it by name; orjson alone would turn
it into null without a word.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, get_args

import msgspec
import orjson
from kombu.serialization import registry
from kombu.utils import json as kombu_json

from tradepool.errors import InvalidTrade
from tradepool.model.commands import Command

__all__ = [
    "APPLY_CHANGES",
    "CHECK_ALL_TRADES",
    "CONTENT_TYPE",
    "PAGE_AUDIT",
    "QUEUES",
    "QUEUE_AUDIT",
    "QUEUE_DEAD",
    "QUEUE_FILES",
    "QUEUE_GPU",
    "QUEUE_TOKENS",
    "QUEUE_TRADES",
    "SERIALIZER",
    "WRITE_SNAPSHOT",
    "check_readable",
    "command_from_wire",
    "command_to_wire",
    "decode",
    "device_queues",
    "encode",
    "register_decoder",
    "register_encoder",
]

SERIALIZER = "orjson"
CONTENT_TYPE = "application/json"

QUEUE_TRADES = "trades"
QUEUE_TOKENS = "tokens"
QUEUE_AUDIT = "audit"
QUEUE_GPU = "gpu"
QUEUE_FILES = "files"
QUEUE_DEAD = "dead"
"""Parked messages; no worker consumes it."""
QUEUES = (QUEUE_TRADES, QUEUE_TOKENS, QUEUE_AUDIT, QUEUE_GPU, QUEUE_FILES)
"""The queues that workers consume. Exchange and routing key of each carry the queue's name.

With several devices there are those of `device_queues` besides.
"""

APPLY_CHANGES = "tasks.trades.apply_changes"
"""The task that takes a chunk of commands in order; what `PoolClient` sends."""

CHECK_ALL_TRADES = "tasks.audit.check_all_trades"
WRITE_SNAPSHOT = "tasks.files.write_snapshot"
PAGE_AUDIT = "tasks.audit.page"
"""The task that tells of an audit, named by its run id."""

_INT64_MAX = 2**63 - 1
_INTEGER_BITS_MAX = 1024
_NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_ZEROED = bytes.maketrans(b"123456789", b"000000000")
_LONG_INTEGER = b"0" * 19
"""In a JSON text whose digits are `_ZEROED`. Finding it so takes a ninth of the time of a pattern."""
_KOMBU_TYPE_MARK = b'"__type__"'
_COMMAND_DECODER: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_KINDS: dict[object, type[Command]] = {kind.__struct_config__.tag: kind for kind in get_args(Command)}


def device_queues(devices: int) -> list[str]:
    """The queue of each device's gpu worker: `gpu`, which everybody sends to, then `gpu.1` and so on."""
    return [QUEUE_GPU, *(f"{QUEUE_GPU}.{device}" for device in range(1, devices))]


def encode(value: object) -> bytes:
    """`value` as JSON; Decimals, and numbers that JSON cannot hold, as text.

    Raises: TypeError for a value that has no JSON form (a lone surrogate, a cycle, an unknown type).
    """
    if (plain := _encoded_as_it_is(value)) is not None:
        return plain
    try:
        return orjson.dumps(_representable(value), default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except RecursionError as error:
        raise TypeError("the value contains itself or is nested too deeply") from error


def decode(data: bytes | str | memoryview) -> Any:
    """The value of a JSON message of ours, or of a producer with Celery's own JSON serializer.

    Raises: ValueError when it is not JSON, or nested too deeply to be read.
    """
    raw = data.encode() if isinstance(data, str) else bytes(data)
    try:
        if _KOMBU_TYPE_MARK in raw:
            return kombu_json.loads(raw, object_hook=_kombu_value)
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            # Python's own encoder writes NaN and Infinity bare, which is not JSON: keep them as names.
            return json.loads(raw, parse_constant=str)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def register_encoder() -> None:
    """Make `SERIALIZER` known to kombu for sending; how this process reads JSON stays as it is."""
    registry.register(SERIALIZER, encode, None, content_type=CONTENT_TYPE, content_encoding="utf-8")


def register_decoder() -> None:
    """Make `SERIALIZER` known to kombu for sending and for reading every JSON message."""
    registry.register(SERIALIZER, encode, decode, content_type=CONTENT_TYPE, content_encoding="utf-8")


def command_to_wire(command: Command) -> dict[str, Any]:
    """The command as a dict that `encode` takes and `command_from_wire` reads back."""
    return {"op": command.__struct_config__.tag, **msgspec.structs.asdict(command)}


def command_from_wire(message: Mapping[str, Any]) -> Command:
    """The command of a message.

    Raises: InvalidTrade when the message is no command or a field has the wrong type.
    """
    op = message.get("op")
    # msgspec remembers how to convert to a class, but works it out anew for each conversion to a union.
    kind = _KINDS.get(op, Command) if isinstance(op, str) else Command
    try:
        command: Command = msgspec.convert(message, kind)
    except msgspec.ValidationError as error:
        raise _unreadable(error, message) from error
    return command


def check_readable(body: bytes) -> None:
    """Make sure that the fleet can read `body`, which `encode` made, as a command.

    Raises: InvalidTrade as `command_from_wire`.
    """
    if _KOMBU_TYPE_MARK in body:
        command_from_wire(decode(body))
        return
    try:
        _COMMAND_DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise _unreadable(error, decode(body)) from error


def _unreadable(error: msgspec.ValidationError, message: object) -> InvalidTrade:
    return InvalidTrade(str(error), field="command", value=message, cure="send the fields of one command")


def _encoded_as_it_is(value: object) -> bytes | None:
    """What orjson makes of `value`, if nothing in it has to be made representable first; in half the time.

    orjson writes null for a number that JSON cannot hold: where no null stands but for each None that a
    dictionary itself holds, there was none. An integer that is too long has 19 digits or more.
    """
    try:
        plain = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, RecursionError):
        return None
    nulls = sum(item is None for item in value.values()) if type(value) is dict else 0
    return None if plain.count(b"null") != nulls or _LONG_INTEGER in plain.translate(_ZEROED) else plain


def _kombu_value(value: dict[str, Any]) -> Any:
    """What Celery's own serializer wrote as a marked dict; a dict that only looks like one stays a dict."""
    try:
        return kombu_json.object_hook(value)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        return value


def _representable(value: Any) -> Any:
    """`value` itself where orjson represents all of it, else a copy with the rest as text."""
    kind = type(value)
    if kind is float:
        return value if value - value == 0.0 else _NON_FINITE[str(value)]
    if kind is int:
        return value if -_INT64_MAX <= value <= _INT64_MAX else _long_integer(value)
    if kind is dict:
        return _copied_dict(value)
    if kind is list or kind is tuple:
        items = [_representable(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _copied_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    changed = {key: new for key, old in value.items() if (new := _representable(old)) is not old}
    return value | changed if changed else value


def _plain(value: object) -> object:
    """What orjson asks for when it meets a type that it does not know."""
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else _decimal_name(value)
    if isinstance(value, numbers.Real):
        # Numbers of other libraries (numpy) are no floats or ints of ours.
        return _representable(int(value) if isinstance(value, numbers.Integral) else float(value))
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    for kind, convert in _CONVERTERS:
        if isinstance(value, kind):
            return _representable(convert(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _long_integer(value: int) -> str:
    if value.bit_length() > _INTEGER_BITS_MAX:
        raise TypeError("the integer is too long")
    return str(value)


def _decimal_name(value: Decimal) -> str:
    if value.is_nan():
        return _NON_FINITE["nan"]
    return _NON_FINITE["inf" if value > 0 else "-inf"]


_CONVERTERS: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (msgspec.Struct, msgspec.structs.asdict),
    (date, date.isoformat),
    (Mapping, dict),
    (BaseException, str),
)
