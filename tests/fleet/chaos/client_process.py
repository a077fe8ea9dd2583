"""One bot: `python -m tests.fleet.chaos.client_process SEED CLIENT TRADES FOLDER` hands its trades in.

Killed and started again it goes on where it was: first its spool empties, then whatever of the windows
that it has begun is not in the pool is handed in.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.fleet.chaos.breaks import resend_s
from tests.fleet.chaos.notes import ClientNotes, client_notes
from tests.fleet.chaos.workload import Step, Window, windows_of
from tradepool.client import PoolClient
from tradepool.errors import Unavailable
from tradepool.model import codec
from tradepool.model.ledger import reservation_id
from tradepool.pool import TradePool
from tradepool.settings import Settings, load_settings

__all__ = ["RESEND_S", "main"]

RESEND_S = 4.0
_LINGER_MS = 10
_WINDOWS_UNDER_WAY_MAX = 4
_WAIT_S = 1.0
"""One round of waiting; a client waits as many as it takes, whoever started it has the deadline."""
_PAUSE_S = 0.2
REFUSED = 3
"""Exit code of a client that had a command refused: nothing that it hands in is wrong."""


def main(arguments: list[str]) -> int:
    """Hand everything in and see it confirmed; 0 when all of it is."""
    seed, client_number, trades = map(int, arguments[:3])
    folder = Path(arguments[3])
    settings = load_settings()
    with (
        ClientNotes(client_notes(folder, client_number)) as notes,
        PoolClient.connect(
            settings,
            spool=folder / f"client-{client_number}.db",
            linger_ms=_LINGER_MS,
            resend_s=resend_s(RESEND_S),
        ) as client,
    ):
        with _Bot(client, settings, notes) as bot:
            bot.go_on(windows_of(seed, client_number, trades))
        while not client.flush(_WAIT_S):
            pass
        for rejection in client.rejections:
            sys.stderr.write(f"refused: {rejection}\n")
        notes.write("done")
        return REFUSED if client.rejections else 0


class _Bot:
    """Hands its windows in; reads the pool only where it has to: it may start while the server is away."""

    def __init__(self, client: PoolClient, settings: Settings, notes: ClientNotes) -> None:
        self._client = client
        self._settings = settings
        self._pool: TradePool | None = None
        self._resources = ExitStack()
        self._notes = notes
        self._under_way: deque[Window] = deque()
        self._pause = threading.Event()
        self._begun = {note.window for note in notes.before if note.what == "begun"}
        self._confirmed = {note.window for note in notes.before if note.what == "confirmed"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def go_on(self, windows: Iterator[Window]) -> None:
        if self._notes.before:
            while not self._client.flush(_WAIT_S):
                pass
            self._notes.write("resumed")
        for window in windows:
            if window.number not in self._confirmed:
                self._hand_in(window, self._versions(window) if window.number in self._begun else {})
        while self._under_way:
            self._confirm_oldest()

    def _hand_in(self, window: Window, versions: Mapping[str, int]) -> None:
        """Give the client what is not there yet: nothing of a new window is."""
        self._notes.write("begun", window.number)
        handed, call_s = 0, 0.0
        for step in window.steps:
            if versions.get(step.record_id, 0) < step.version:
                started_s = time.monotonic()
                _give(self._client, step)
                call_s = max(call_s, time.monotonic() - started_s)
                handed += 1
        self._notes.write("handed", window.number, commands=handed, call_s=call_s)
        self._under_way.append(window)
        if len(self._under_way) > _WINDOWS_UNDER_WAY_MAX:
            self._confirm_oldest()

    def _confirm_oldest(self) -> None:
        window = self._under_way.popleft()
        while not all(self._client.confirm(window.trade_ids, _WAIT_S).values()):
            if self._client.rejections:
                raise SystemExit(f"refused: {self._client.rejections[0]}")
        self._notes.write("confirmed", window.number, commands=len(window.steps))

    def _versions(self, window: Window) -> dict[str, int]:
        """How far each record of a window has come. The spool is empty: nothing of it is on its way."""
        while True:
            try:
                return self._read_versions(window)
            except Unavailable:
                self._pause.wait(_PAUSE_S)

    def _read_versions(self, window: Window) -> dict[str, int]:
        if self._pool is None:
            self._pool = self._resources.enter_context(TradePool.connect(self._settings))
        store = self._pool.store
        owners = {step.record_id: step.user_id for step in window.steps}
        values = store.read(
            [(store.keys.shard_of_user(user_id), record_id) for record_id, user_id in owners.items()]
        )
        found = zip(owners, values, strict=True)
        return {record_id: codec.split(value)[0].version for record_id, value in found if value is not None}


def _give(client: PoolClient, step: Step) -> None:
    given = step.given
    match step.op:
        case "add":
            client.add_trade(given["trade"], reserve=given.get("reserve"))
        case "fill":
            client.add_fill(step.record_id, given["fill"], user_id=step.user_id)
        case "update":
            client.update_trade(step.record_id, stop_loss=given["stop_loss"])
        case "close":
            client.close_trade(step.record_id, given["price"])
        case "told":
            client.update_available_tokens(step.user_id, given["tokens"])
        case "settle":
            client.settle_tokens(reservation_id(step.user_id, "default", given["key"]), given["spent"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
