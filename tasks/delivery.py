"""The one way from a message to the pool: decode, apply, and see to what could not be applied.

Every command of a message ends in one of these, before the message is acknowledged:

    applied · duplicate · stale    the pool has it, fsynced when `durability = journal`
    parked                         refused, or failed in an unknown way: a dead letter, with its reason
    later                          sent again as a task of its own: an update that may have overtaken
                                   its add (a settlement its reservation), or a record that contradicts
                                   itself (a human is paged)

While the store or the journal is away the message waits in this thread, so that a worker takes no
more than it can hold, and then goes back to the queue. (`Task.retry` would acknowledge it and drop it
if sending the copy failed, and would pile up delayed copies in the worker's memory.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from tasks.decoding import Envelope, completed, decode
from tasks.overtaking import misses_its_record
from tasks.parking import Letter, letter, park, reason_of
from tradepool import wire
from tradepool.clock import now_us
from tradepool.errors import Contended, Corrupt, Misconfigured, Rejected, Unavailable
from tradepool.logger import Logger
from tradepool.model.commands import AddTrade, Command
from tradepool.model.receipt import Receipt
from tradepool.model.token_commands import TokenCommand

if TYPE_CHECKING:
    from tasks.app import PoolApp

__all__ = ["deliver"]

log = Logger(__name__)

PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 10.0
HOLD_SHARE = 0.25
"""How long a message waits in its thread, as a share of the visibility timeout, then it goes back."""
HOLD_MAX_S = 60.0
CONTENDED_ATTEMPTS_MAX = 5

OVERTAKEN_PAUSE_MIN_S = 0.1
OVERTAKEN_PAUSE_MAX_S = 60.0
OVERTAKEN_TIMEOUTS = 2.0
"""How many visibility timeouts an update waits for its add, which a killed worker may hold for one."""

CORRUPT_PAUSE_S = 60.0


class Failed(Rejected):
    """The fleet met something unknown with this command and has parked it; an operator may send it again."""

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """The failure as an answer, in text that JSON can hold."""
        return cls(repr(error).encode("utf-8", "backslashreplace").decode(), field="command")


@dataclass(kw_only=True)
class _Outcome:
    """What became of one message, command by command."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    refused: list[tuple[Command, Rejected]] = field(default_factory=list)
    overtaken: list[Command] = field(default_factory=list)
    corrupt: list[Command] = field(default_factory=list)


def deliver(app: PoolApp, envelope: Envelope, messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Apply `messages` (commands as dicts) in order; one answer for each, in order.

    An answer has `outcome` (applied, duplicate, stale, rejected, failed, later), and either the `reason`
    or `trade_id`, `version` and, where there is one, the `reservation`.

    Raises: Unavailable, Contended, Misconfigured, OperationalError; then the message must be delivered again.
    """
    outcome = _Outcome()
    whole = [completed(envelope, index, message) for index, message in enumerate(messages)]
    decoded = [decode(message) for message in whole]
    commands = [command for command in decoded if not isinstance(command, Rejected)]
    results = iter(_apply_all(app, envelope, commands))
    for given, message, command in zip(messages, whole, decoded, strict=True):
        if isinstance(command, Rejected):
            _note_unreadable(outcome, envelope, message, command, is_named=_is_named(given))
        else:
            _note(app, outcome, envelope, command, next(results))
    _see_to(app, outcome, envelope)
    return outcome.answers


def _apply_all(
    app: PoolApp, envelope: Envelope, commands: Sequence[Command]
) -> Iterator[Receipt | Exception]:
    size = app.settings.batch_max
    for start in range(0, len(commands), size):
        yield from _apply(app, envelope, commands[start : start + size])


def _apply(app: PoolApp, envelope: Envelope, commands: Sequence[Command]) -> Sequence[Receipt | Exception]:
    """Apply a chunk; when it fails for an unknown reason, each command alone, to find the culprit."""
    try:
        return _apply_patiently(app, envelope, commands)
    except (Unavailable, Contended, Misconfigured):
        raise
    except Exception as error:  # noqa: BLE001 - the process boundary: one bad record must not stop its neighbours
        if len(commands) == 1:
            _report(envelope, commands[0], error)
            return [error]
    return [result for command in commands for result in _apply(app, envelope, [command])]


def _apply_patiently(
    app: PoolApp, envelope: Envelope, commands: Sequence[Command]
) -> Sequence[Receipt | Exception]:
    """Apply, waiting through an outage for a bounded time.

    Raises: Unavailable, Contended or Misconfigured when it lasts longer or the worker stops.
    """
    contended = 0
    for wait_s in chain(_pauses(app.settings.visibility_timeout_s), [None]):
        pause_s = wait_s
        try:
            return app.services.core.apply(commands, task_id=envelope.task_id)
        except Contended as error:
            problem: Exception = error
            contended += 1
            pause_s = 0.0
        except (Unavailable, Misconfigured) as error:
            problem = error
        log.warning("waiting for the pool", task_id=envelope.task_id, problem=str(problem), pause_s=pause_s)
        if wait_s is None or contended > CONTENDED_ATTEMPTS_MAX or app.stopping.wait(pause_s):
            break
    raise problem


def _pauses(visibility_timeout_s: float) -> Iterator[float]:
    """Pauses in seconds, doubling and jittered, until a message has been held for long enough."""
    deadline = time.monotonic() + min(HOLD_MAX_S, visibility_timeout_s * HOLD_SHARE)
    pause_s = PAUSE_FIRST_S
    while (left_s := deadline - time.monotonic()) > 0:
        yield min(left_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
        pause_s = min(pause_s * 2, PAUSE_MAX_S)


def _report(envelope: Envelope, command: Command, error: Exception) -> None:
    about = {"task_id": envelope.task_id, "command_id": command.command_id}
    if isinstance(error, Corrupt):
        log.critical("corrupt record", **about, problem=str(error))
    else:
        log.error("command failed", **about, exc_info=error)


def _note(
    app: PoolApp, outcome: _Outcome, envelope: Envelope, command: Command, result: Receipt | Exception
) -> None:
    match result:
        case Receipt():
            outcome.answers.append(_told(result))
        case Rejected() if _may_have_overtaken(app, envelope, command, result):
            outcome.overtaken.append(command)
            outcome.answers.append({"outcome": "later", "reason": reason_of(result)})
        case Corrupt():
            outcome.corrupt.append(command)
            outcome.answers.append({"outcome": "later", "reason": reason_of(result)})
        case _:
            outcome.refused.append((command, result if isinstance(result, Rejected) else Failed.of(result)))
            _note_parked(outcome, envelope, wire.command_to_wire(command), result)


def _told(receipt: Receipt) -> dict[str, Any]:
    told = {"outcome": receipt.outcome, "trade_id": receipt.trade_id, "version": receipt.version}
    if receipt.reservation is not None:
        told["reservation"] = receipt.reservation.to_dict()
    return told


def _note_unreadable(
    outcome: _Outcome, envelope: Envelope, message: dict[str, Any], refusal: Rejected, *, is_named: bool
) -> None:
    """Park what is no command; a client that named it learns that it will never be applied."""
    if is_named:
        # An answer belongs to a command's id; the rest of this one could not be read.
        outcome.refused.append((AddTrade(command_id=message["command_id"], as_of=0, trade={}), refusal))
    _note_parked(outcome, envelope, message, refusal)


def _is_named(message: Any) -> bool:
    return isinstance(message, Mapping) and isinstance(message.get("command_id"), str)


def _note_parked(outcome: _Outcome, envelope: Envelope, payload: Any, error: Exception) -> None:
    reason = reason_of(error)
    parked = letter(
        reason=reason,
        task=envelope.task_name,
        task_id=envelope.task_id,
        sent_at=envelope.sent_at,
        payload=payload,
    )
    outcome.letters.append(parked)
    outcome.answers.append(
        {"outcome": "rejected" if isinstance(error, Rejected) else "failed", "reason": reason}
    )


def _may_have_overtaken(app: PoolApp, envelope: Envelope, command: Command, refusal: Rejected) -> bool:
    """Whether what this command misses may still be on its way: its trade, or its reservation.

    A client would wait with all that concerns the account: what it sends in order is answered at once.
    """
    if isinstance(command, TokenCommand) and envelope.is_in_order:
        return False
    is_in_time = _waited_s(envelope) < OVERTAKEN_TIMEOUTS * app.settings.visibility_timeout_s
    return is_in_time and misses_its_record(command, refusal)


def _waited_s(envelope: Envelope) -> float:
    if envelope.overtaken_since is None:
        return 0.0
    return max(0.0, time.time() - envelope.overtaken_since / 1e6)


def _see_to(app: PoolApp, outcome: _Outcome, envelope: Envelope) -> None:
    """Park and send again what the outcome asks for; before this returns, nothing may be acknowledged."""
    if outcome.letters:
        park(app, outcome.letters)
    for command, refusal in outcome.refused:
        app.services.core.refuse(command, refusal)
    if outcome.overtaken:
        waited_s = _waited_s(envelope)
        since = envelope.overtaken_since or now_us()
        _send_later(app, envelope, outcome.overtaken, since, max(OVERTAKEN_PAUSE_MIN_S, waited_s))
    if outcome.corrupt:
        _send_later(app, envelope, outcome.corrupt, None, CORRUPT_PAUSE_S)


def _send_later(
    app: PoolApp, envelope: Envelope, commands: Sequence[Command], since: int | None, pause_s: float
) -> None:
    """Send `commands` as a task of their own, due in `pause_s` or sooner.

    A delayed message stays unacknowledged until it is due: its pause must end before the visibility
    timeout does, or it would be delivered twice.
    """
    longest_s = min(OVERTAKEN_PAUSE_MAX_S, app.settings.visibility_timeout_s * HOLD_SHARE)
    app.send_task(
        wire.APPLY_CHANGES,
        args=[[wire.command_to_wire(command) for command in commands]],
        kwargs={"overtaken_since": since},
        countdown=min(pause_s, longest_s),
        root_id=envelope.task_id,
        argsrepr=f"<{len(commands)} changes>",
    )
