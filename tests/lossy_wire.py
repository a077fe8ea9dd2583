"""A wire that loses commits on their way to a server, or the server's answers to them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

import redis
from redis.connection import AbstractConnection

from tradepool.model.commands import Command

__all__ = ["Fate", "LossyWire"]

Fate = Literal["arrives", "lost", "answer lost"]

_send, _read = AbstractConnection.send_packed_command, AbstractConnection.read_response


class LossyWire:
    """All connections of this process; those may break that send words with `of` among them.

    `fate` says what becomes of each such call, and `then` is called when one was lost, before the client
    notices; it may use the wire itself, which is whole meanwhile. `calls` counts those that came through.
    """

    def __init__(self, monkeypatch: Any, of: bytes = b"EVALSHA") -> None:
        self.fate: Callable[[], Fate] = lambda: "arrives"
        self.then: Callable[[], None] = lambda: None
        self.committed = 0
        """Commits that went through, whether or not their answers arrived."""
        self._fates: dict[AbstractConnection, Fate] = {}
        self._is_whole = False
        wire = self

        def send(connection: AbstractConnection, command: Any, *given: Any, **options: Any) -> Any:
            # It may be an iterator, which gives its pieces only once.
            command = [command] if isinstance(command, bytes) else list(command)
            if wire._is_whole or of not in b"".join(command):
                return _send(connection, command, *given, **options)
            fate = wire.fate()
            if fate == "lost":
                wire._break(connection)
            # It may be that it connects first, and reads answers to that.
            sent = _send(connection, command, *given, **options)
            wire._fates[connection] = fate
            return sent

        def read(connection: AbstractConnection, *given: Any, **options: Any) -> Any:
            answer = _read(connection, *given, **options)
            fate = wire._fates.pop(connection, None)
            wire.committed += fate is not None and isinstance(answer, bytes)
            if fate == "answer lost":
                wire._break(connection)
            return answer

        monkeypatch.setattr(AbstractConnection, "send_packed_command", send)
        monkeypatch.setattr(AbstractConnection, "read_response", read)

    def lose(self, *fates: Fate) -> None:
        """Let these befall the next calls; all later ones arrive."""
        coming = iter(fates)
        self.fate = lambda: next(coming, "arrives")

    def apply_beside(
        self,
        rivals: list[list[Command]],
        batch: list[Command],
        *,
        rng: random.Random,
        order: list[Command],
        apply: Callable[[list[Command]], None],
    ) -> None:
        """Apply `batch` over two calls of random fates; when one breaks after a commit, a rival goes first.

        `order` gets the commands of both in the order in which they take effect.
        """
        order.extend(batch)
        self.lose(*rng.choices(["arrives", "lost", "answer lost"], k=2))
        before = self.committed

        def then() -> None:
            if self.committed > before and rivals:
                order.extend(commands := rivals.pop())
                apply(commands)

        self.then = then
        apply(batch)

    def _break(self, connection: AbstractConnection) -> None:
        connection.disconnect()
        self._is_whole = True
        try:
            self.then()
        finally:
            self._is_whole = False
        raise redis.ConnectionError("the wire was cut")
