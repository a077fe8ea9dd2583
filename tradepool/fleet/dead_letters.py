"""What the fleet has parked: to look at, to send again once the reason is gone, or to discard."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Self, cast, get_args

import msgspec

from tradepool import wire
from tradepool.broker import ChangeSender
from tradepool.clock import now_us
from tradepool.errors import Misconfigured, ResourceUnavailable
from tradepool.files.durable import append_lines
from tradepool.model.token_commands import TokenCommand
from tradepool.settings import Settings
from tradepool.store.address import broker_name
from tradepool.store.connection import connect_broker
from tradepool.store.translation import translated

__all__ = ["COMMANDS_MAX", "DISCARDED_NAME", "DeadLetter", "DeadLetters", "Replayed", "Wanted", "letter_in"]

COMMANDS_MAX = 200
"""Commands that a replay sends in one message."""

DISCARDED_NAME = "dead_discarded.jsonl"
"""What was discarded, a letter a line, in the data folder."""

_PAGE = 100
_DIGEST_CHARS = 16
_ID_FIELDS = ("command_id", "trade_id", "user_id", "reservation_id")
_TOKEN_OPS = frozenset(str(kind.__struct_config__.tag) for kind in get_args(TokenCommand))
_QUEUES_OF_MODULES = {"trades": wire.QUEUE_TRADES, "tokens": wire.QUEUE_TOKENS}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One parked message."""

    reason: dict[str, str] = {}
    """`error` (its class), `field`, `value`, `problem`, `cure`."""
    task: str = ""
    task_id: str = ""
    payload: Any = None
    """The command as the fleet sends it; for a call that failed whole, its `args` and `kwargs`; for a message
    that could not be read, its `headers` and `body`."""
    sent_at: int | None = None
    """When the message was first sent, µs since 1970; None when its producer did not say."""
    parked_at: int = 0
    """µs since 1970."""

    @property
    def queue(self) -> str:
        """The queue that a replay sends it to; empty for what nothing can be made of."""
        match self.payload:
            case {"op": str(op)}:
                return wire.QUEUE_TOKENS if op in _TOKEN_OPS else wire.QUEUE_TRADES
            case {"args": list(), "kwargs": dict()}:
                return _queue_of(self.task)
            case {"headers": dict(), "body": str(body)} if _call_in(body) is not None:
                return _queue_of(self.task)
        return ""

    @property
    def ids(self) -> frozenset[str]:
        """What it is known by: ids of its task, its command, and what that changes."""
        command = self.payload if isinstance(self.payload, dict) else {}
        trade = command.get("trade")
        inner = trade if isinstance(trade, dict) else {}
        named = [self.task_id, *map(command.get, _ID_FIELDS), *map(inner.get, _ID_FIELDS)]
        return frozenset(name for name in named if isinstance(name, str) and name)


class Wanted(NamedTuple):
    """Which letters are meant: those that fit all that is given."""

    task: str | None = None
    """The task's name, or the end of it: `add_trade`."""
    reason: str | None = None
    """The error's class, or a text in its field, problem or value."""
    name: str | None = None
    """One of `DeadLetter.ids`."""

    def fits(self, letter: DeadLetter) -> bool:
        """Whether `letter` is meant."""
        return (
            (self.task is None or letter.task == self.task or letter.task.endswith(f".{self.task}"))
            and (self.reason is None or _has_reason(letter.reason, self.reason))
            and (self.name is None or self.name in letter.ids)
        )


class Replayed(NamedTuple):
    """How many letters were sent again, and how many stay because nothing can be made of them."""

    sent: int
    kept: int


class DeadLetters:
    """The queue of parked messages of one fleet. A context manager.

    Methods raise StoreUnavailable when the broker cannot be reached, Misconfigured when it refuses us.
    """

    def __init__(self, settings: Settings) -> None:
        self._discarded = settings.data_dir / DISCARDED_NAME
        self._client = connect_broker(settings)
        self._name = broker_name(settings)
        self._sender = ChangeSender(settings)

    def count(self) -> int:
        """How many messages are parked."""
        with translated(self._name):
            return int(self._client.llen(wire.QUEUE_DEAD))

    def letters(self, wanted: Wanted = Wanted()) -> Iterator[DeadLetter]:  # noqa: B008 - immutable
        """Those that are `wanted`, oldest first; they stay parked."""
        return filter(wanted.fits, map(letter_in, self._raw()))

    def replay(self, wanted: Wanted = Wanted(), *, limit: int | None = None) -> Replayed:  # noqa: B008 - immutable
        """Send again what is `wanted`, oldest first, `limit` letters at most, as it was sent first.

        Ids and times are the old ones: what was applied meanwhile is a duplicate, what is older than a later
        change is stale, what is refused again is parked again. Commands go together, up to 200 in a message,
        so that those of one trade or account are applied in the order in which they were parked.
        """
        found = [(raw, letter_in(raw)) for raw in self._raw()]
        meant = [(raw, letter) for raw, letter in found if wanted.fits(letter)]
        sendable = [(raw, letter) for raw, letter in meant if letter.queue][:limit]
        for queue, message in _messages(sendable):
            self._send_again(queue, [letter for _, letter in message])
            # Only now: a crash in between leaves the letters, and sending them twice is harmless.
            self._remove([raw for raw, _ in message])
        return Replayed(len(sendable), sum(not letter.queue for _, letter in meant))

    def discard(self, wanted: Wanted, *, limit: int | None = None) -> int:
        """Take what is `wanted` off the queue for good, oldest first, `limit` letters at most; how many.

        Each is first written to `dead_discarded.jsonl` in the data folder, also what cannot be read.

        Raises: Misconfigured without that folder, ResourceUnavailable when nothing can be written there.
        """
        if not self._discarded.parent.is_dir():
            raise Misconfigured(
                f"TRADEPOOL_DATA_DIR: there is no folder {self._discarded.parent}; discard on the machine of "
                f"the pool's folder, where {DISCARDED_NAME} keeps what is discarded"
            )
        found = ((raw, letter_in(raw)) for raw in list(self._raw()))
        meant = list(islice((one for one in found if wanted.fits(one[1])), limit))
        for start in range(0, len(meant), _PAGE):
            page = meant[start : start + _PAGE]
            self._keep([letter for _, letter in page])
            # Only now: a crash in between leaves the letters, and two lines of one do no harm.
            self._remove([raw for raw, _ in page])
        return len(meant)

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

    def _keep(self, letters: Sequence[DeadLetter]) -> None:
        at = {"discarded_at": now_us()}
        lines = b"".join(wire.encode(at | msgspec.to_builtins(letter)) + b"\n" for letter in letters)
        try:
            append_lines(self._discarded, lines)
        except OSError as problem:
            why = f"{self._discarded}: {problem.strerror}; what is discarded is written there first"
            raise ResourceUnavailable(why) from problem

    def _remove(self, raws: Sequence[bytes]) -> None:
        with translated(self._name):
            pipeline = self._client.pipeline(transaction=False)
            for raw in raws:
                pipeline.lrem(wire.QUEUE_DEAD, -1, cast("str", raw))
            pipeline.execute()

    def _send_again(self, queue: str, letters: Sequence[DeadLetter]) -> None:
        """Send the commands of `letters` in one message, or the one call that it is."""
        # They may come before what they need: another message of this replay has it.
        waiting = {"overtaken_since": now_us()}
        first = letters[0]
        if _is_command(first):
            commands = [_same_command(letter) for letter in letters]
            self._sender.call(
                queue, wire.APPLY_CHANGES, [commands], kwargs=waiting, argsrepr=f"<{len(commands)} changes>"
            )
            return
        args, kwargs = _call_of(first)
        # The ids that its commands get follow from the task's, and from when it was sent.
        same = {"task_id": first.task_id} if first.task_id else {}
        kwargs = (waiting if first.task == wire.APPLY_CHANGES else {}) | kwargs
        self._sender.call(queue, first.task, args, kwargs=kwargs, sent_at=_sent_at(first), **same)


def _messages(
    letters: Iterable[tuple[bytes, DeadLetter]],
) -> Iterator[tuple[str, list[tuple[bytes, DeadLetter]]]]:
    """`letters` by message, with its queue: commands together, calls alone, in order within a queue."""
    gathered: dict[str, list[tuple[bytes, DeadLetter]]] = {}
    for raw, letter in letters:
        commands = gathered.setdefault(letter.queue, [])
        if commands and (not _is_command(letter) or len(commands) == COMMANDS_MAX):
            yield letter.queue, commands
            commands = gathered[letter.queue] = []
        if _is_command(letter):
            commands.append((raw, letter))
        else:
            yield letter.queue, [(raw, letter)]
    yield from ((queue, commands) for queue, commands in gathered.items() if commands)


def _is_command(letter: DeadLetter) -> bool:
    return isinstance(letter.payload, dict) and "op" in letter.payload


def _same_command(letter: DeadLetter) -> dict[str, Any]:
    """The command, with a name and a time also where an older release parked it without."""
    digest = hashlib.sha256(wire.encode(letter.payload)).hexdigest()[:_DIGEST_CHARS]
    command: dict[str, Any] = letter.payload
    return {"command_id": f"{letter.task_id}:{digest}", "as_of": _sent_at(letter)} | command


def _sent_at(letter: DeadLetter) -> int | None:
    """When it was sent; for a letter of an older release, which does not tell, when it was parked."""
    if isinstance(letter.payload, dict) and isinstance(headers := letter.payload.get("headers"), dict):
        told = headers.get("sent_at")
        return told if isinstance(told, int) else letter.parked_at or None
    return letter.sent_at or letter.parked_at or None


def _call_of(letter: DeadLetter) -> tuple[list[Any], dict[str, Any]]:
    if "args" in letter.payload:
        return letter.payload["args"], letter.payload["kwargs"]
    return _call_in(letter.payload["body"]) or ([], {})


def _call_in(body: str) -> tuple[list[Any], dict[str, Any]] | None:
    """Arguments in the body of a message whose task was not known then; None when they cannot be read."""
    with contextlib.suppress(ValueError, TypeError):
        match wire.decode(body):
            case [list(args), dict(kwargs), *_]:
                return args, kwargs
    return None


def _has_reason(reason: dict[str, str], wanted: str) -> bool:
    return reason.get("error") == wanted or any(
        wanted in reason.get(name, "") for name in ("field", "problem", "value")
    )


def _queue_of(task: str) -> str:
    parts = task.split(".")
    return _QUEUES_OF_MODULES.get(parts[1], "") if len(parts) > 1 else ""


def letter_in(raw: bytes) -> DeadLetter:
    """The letter in a stored message; what is none is shown as it is."""
    with contextlib.suppress(ValueError, TypeError, LookupError, binascii.Error, msgspec.ValidationError):
        body = base64.b64decode(msgspec.json.decode(raw)["body"])
        return msgspec.convert(wire.decode(body), DeadLetter)
    return DeadLetter(reason={"error": "unreadable", "problem": "not a dead letter"}, payload=ascii(raw))
