"""Dead letters: what a task cannot apply is parked with its reason, never dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from tasks.routing import DEAD_QUEUE
from tradepool import wire
from tradepool.clock import now_us
from tradepool.errors import Rejected
from tradepool.logger import Logger

if TYPE_CHECKING:
    from tasks.app import PoolApp

__all__ = ["Letter", "letter", "park", "reason_of"]

Letter = dict[str, Any]
"""`reason` (fields of text), `task`, `task_id`, `payload`, `sent_at` and `parked_at` (µs since 1970)."""

log = Logger(__name__)

_PUBLISH_ATTEMPTS_MAX = 10
_PUBLISH_PAUSE_MAX_S = 0.5


def reason_of(error: BaseException) -> dict[str, str]:
    """Why something was parked: the fields of a refusal, or the kind and text of a failure."""
    if isinstance(error, Rejected):
        return error.as_dict()
    return {"error": type(error).__name__, "field": "", "value": "", "problem": str(error), "cure": ""}


def letter(
    *, reason: Mapping[str, str], task: str, task_id: str, payload: object, sent_at: int | None = None
) -> Letter:
    """One parked message. `payload` is the command as the fleet sends it, or what there was of it."""
    return {
        "reason": dict(reason),
        "task": task,
        "task_id": task_id,
        "payload": payload,
        "sent_at": sent_at,
        "parked_at": now_us(),
    }


def park(app: PoolApp, letters: Sequence[Letter]) -> None:
    """Put `letters` on the queue `dead`; on return the broker has them.

    Raises: OperationalError when the broker cannot be reached; then some may be parked twice later.
    """
    with app.producer_or_acquire() as producer:
        for parked in letters:
            producer.publish(
                _sendable(parked),
                exchange=DEAD_QUEUE.exchange,
                routing_key=DEAD_QUEUE.routing_key,
                declare=[DEAD_QUEUE],
                content_type=wire.CONTENT_TYPE,
                content_encoding="utf-8",
                retry=True,
                retry_policy={
                    "max_retries": _PUBLISH_ATTEMPTS_MAX,
                    "interval_max": _PUBLISH_PAUSE_MAX_S,
                    "errback": _retrying,
                },
            )
            log.warning("parked", task=parked["task"], task_id=parked["task_id"], **_kind(parked["reason"]))


def _kind(reason: Mapping[str, str]) -> dict[str, str]:
    """What a log may know of a reason; the rest quotes what was refused: see `replay-dead --list`."""
    return {name: reason[name] for name in ("error", "field") if reason.get(name)}


def _sendable(parked: Letter) -> bytes:
    """The letter as JSON; a payload that has no JSON form is kept as Python shows it."""
    try:
        return wire.encode(parked)
    except TypeError:
        return wire.encode(
            {**parked, "payload": ascii(parked["payload"]), "reason": _ascii(parked["reason"])}
        )


def _ascii(reason: Mapping[str, str]) -> dict[str, str]:
    return {name: text.encode("ascii", "backslashreplace").decode() for name, text in reason.items()}


def _retrying(error: OperationalError, pause_s: float) -> None:
    log.warning("parking waits for the broker", error=str(error), pause_s=pause_s)
