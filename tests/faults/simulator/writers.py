"""A writer: sends its batches as a task of the fleet would, and notes every answer before it goes on."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.simulator.breaks import load_the_script
from tests.faults.simulator.workload import LATEST_US, Batch
from tradepool import wiring
from tradepool.errors import Contended, Fenced, Rejected, TradePoolError, Unavailable
from tradepool.model.receipt import Receipt
from tradepool.settings import Settings

__all__ = ["GAVE_UP", "REFUSED", "Answer", "Begun", "read_notes", "write_batches"]

GAVE_UP = 72
"""Exit status after a batch could not be sent in `_GIVE_UP_S`."""
REFUSED = 73
"""Exit status after an error that a writer must never meet."""

_GIVE_UP_S = 25.0
_PAUSE_S = 0.02


class Begun(msgspec.Struct, frozen=True, tag_field="note", tag="begun"):
    """A batch is about to be sent for the first time."""

    batch: int
    at_s: float


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="note", tag="answer"):
    """What came back for one command, and between which moments (monotonic, s) it was on its way."""

    writer: int
    command_id: str
    op: str
    begun_s: float
    ended_s: float
    receipt: Receipt | None = None
    refusal: str = ""


class _Done(msgspec.Struct, frozen=True, tag_field="note", tag="done"):
    """All answers of a batch; one line, so that a kill leaves all of them or none."""

    batch: int
    answers: list[Answer]


_NOTES = msgspec.json.Decoder(Begun | _Done)


def read_notes(path: Path) -> tuple[dict[int, Begun], dict[int, list[Answer]]]:
    """By batch: when it was begun, and its answers where they came. A line cut short is no note."""
    begun: dict[int, Begun] = {}
    answers: dict[int, list[Answer]] = {}
    if not path.exists():
        return begun, answers
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            match _NOTES.decode(line):
                case Begun(batch=batch) as note:
                    begun[batch] = note
                case _Done(batch=batch, answers=found):
                    answers[batch] = found
    return begun, answers


def write_batches(
    number: int, batches: Sequence[Batch], settings: Settings, notes: Path, *, started_s: float, broken: str
) -> int:
    """Send what `notes` has no answer for; returns when everything is answered."""
    begun, answered = read_notes(notes)
    fd = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _end_torn_line(fd, notes)
    with contextlib.closing(_connected(settings)) as services:
        writer = _Writer(number, services, fd, broken=broken)
        for place, batch in enumerate(batches):
            if place in answered:
                continue
            wait(started_s + batch.at_ms / 1000 - time.monotonic())
            if place not in begun:
                begun[place] = Begun(place, time.monotonic())
                writer.note(begun[place])
            code = writer.send(place, batch, begun[place].at_s)
            if code:
                return code
    return 0


def wait(seconds: float) -> None:
    """Let that time pass."""
    if seconds > 0:
        threading.Event().wait(seconds)


def _connected(settings: Settings) -> wiring.Services:
    """A pool on the server, which may be away just now. Raises: StoreUnavailable when it stays away."""
    deadline = time.monotonic() + _GIVE_UP_S
    while True:
        try:
            return wiring.connect(settings)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            wait(random.uniform(0, _PAUSE_S))


class _Writer:
    def __init__(self, number: int, services: wiring.Services, notes: int, *, broken: str) -> None:
        self._number = number
        self._services = services
        # By the real clock every reservation of a plan, whose times follow from its seed, would be over.
        services.core._now_us = lambda: LATEST_US
        self._notes = notes
        self._broken = broken

    def note(self, note: Any) -> None:
        os.write(self._notes, msgspec.json.encode(note) + b"\n")

    def send(self, place: int, batch: Batch, begun_s: float) -> int:
        """Send until it is answered, always the same commands."""
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                results = self._services.core.apply(batch.commands, task_id=f"w{self._number}b{place}")
            except Fenced:
                if self._broken == "fence":
                    load_the_script(self._services.client)
                wait(random.uniform(0, _PAUSE_S))
            except (Unavailable, Contended):
                wait(random.uniform(0, _PAUSE_S))
            except TradePoolError as problem:
                os.write(2, f"{type(problem).__name__}: {problem}\n".encode())
                return REFUSED
            else:
                ended_s = time.monotonic()
                pairs = zip(batch.commands, results, strict=True)
                answers = [self._answer(c, r, begun_s, ended_s) for c, r in pairs]
                self.note(_Done(place, answers))
                return 0
        return GAVE_UP

    def _answer(self, command: Any, result: Receipt | Rejected, begun_s: float, ended_s: float) -> Answer:
        receipt = result if isinstance(result, Receipt) else None
        return Answer(
            writer=self._number,
            command_id=command.command_id,
            op=type(command).__struct_config__.tag,
            begun_s=begun_s,
            ended_s=ended_s,
            receipt=receipt,
            refusal="" if receipt is not None else type(result).__name__,
        )


def _end_torn_line(fd: int, notes: Path) -> None:
    """What a kill cut short must not swallow the next note."""
    text = notes.read_bytes()
    if text and not text.endswith(b"\n"):
        os.write(fd, b"\n")
