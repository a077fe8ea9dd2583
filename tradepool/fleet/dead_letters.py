"""What the fleet has parked: to look at, and to send again once the reason is gone."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Self, cast, get_args

import msgspec

from tradepool import wire
from tradepool.broker import ChangeSender
from tradepool.model.token_commands import TokenCommand
from tradepool.settings import Settings
from tradepool.store.address import broker_name
from tradepool.store.connection import connect_broker
from tradepool.store.translation import translated

__all__ = ["DeadLetter", "DeadLetters", "Replayed"]

_PAGE = 100
_TOKEN_OPS = frozenset(str(kind.__struct_config__.tag) for kind in get_args(TokenCommand))
_QUEUES_OF_MODULES = {"trades": wire.QUEUE_TRADES, "tokens": wire.QUEUE_TOKENS}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One parked message."""

    reason: dict[str, str] = {}
    """`error` (its class), `field`, `value`, `problem`, `cure`."""
    task: str = ""
    task_id: str = ""
    payload: Any = None
    """The command as the fleet sends it; for a call that failed whole, its `args` and `kwargs`."""
    parked_at: int = 0
    """µs since 1970."""


class Replayed(NamedTuple):
    """How many letters were sent again, and how many stay because nothing can be made of them."""

    sent: int
    kept: int


class DeadLetters:
    """The queue of parked messages of one fleet. A context manager.

    Methods raise StoreUnavailable when the broker cannot be reached, Misconfigured when it refuses us.
    """

    def __init__(self, settings: Settings) -> None:
        self._client = connect_broker(settings)
        self._name = broker_name(settings)
        self._sender = ChangeSender(settings)

    def count(self) -> int:
        """How many messages are parked."""
        with translated(self._name):
            return int(self._client.llen(wire.QUEUE_DEAD))

    def letters(self) -> Iterator[DeadLetter]:
        """All of them, oldest first; they stay parked."""
        for raw in self._raw():
            yield _letter(raw)

    def replay(self, *, limit: int | None = None) -> Replayed:
        """Send parked commands again under their old ids, oldest first, `limit` of them at most.

        A command that was applied meanwhile is a duplicate; one that is refused again is parked again.
        """
        sent = kept = 0
        for raw in list(self._raw()):
            if limit is not None and sent >= limit:
                break
            if self._send_again(_letter(raw)):
                # Only now: a crash in between leaves the letter, and sending it twice is harmless.
                with translated(self._name):
                    self._client.lrem(wire.QUEUE_DEAD, -1, cast("str", raw))
                sent += 1
            else:
                kept += 1
        return Replayed(sent, kept)

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _raw(self) -> Iterator[bytes]:
        """The messages as kombu has stored them: new ones enter a Redis list at its head."""
        last = -1
        while True:
            with translated(self._name):
                page: Any = self._client.lrange(wire.QUEUE_DEAD, last - _PAGE + 1, last)
            yield from reversed(page)
            if len(page) < _PAGE:
                return
            last -= _PAGE

    def _send_again(self, letter: DeadLetter) -> bool:
        match letter.payload:
            case {"op": str(op)}:
                queue = wire.QUEUE_TOKENS if op in _TOKEN_OPS else wire.QUEUE_TRADES
                self._sender.send(queue, [letter.payload])
            case {"args": list(args), "kwargs": dict(kwargs)} if _queue_of(letter.task):
                # The ids that its commands get follow from the task's: what was applied stays a duplicate.
                same = {"task_id": letter.task_id} if letter.task_id else {}
                self._sender.call(_queue_of(letter.task), letter.task, args, kwargs=kwargs, **same)
            case _:
                return False
        return True


def _queue_of(task: str) -> str:
    parts = task.split(".")
    return _QUEUES_OF_MODULES.get(parts[1], "") if len(parts) > 1 else ""


def _letter(raw: bytes) -> DeadLetter:
    """The letter in a stored message; what is none is shown as it is."""
    with contextlib.suppress(ValueError, TypeError, LookupError, binascii.Error, msgspec.ValidationError):
        body = base64.b64decode(msgspec.json.decode(raw)["body"])
        return msgspec.convert(wire.decode(body), DeadLetter)
    return DeadLetter(reason={"error": "unreadable", "problem": "not a dead letter"}, payload=ascii(raw))
