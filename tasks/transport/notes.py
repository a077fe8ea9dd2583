"""How kombu notes an unacknowledged message, and the notes that it could not read."""

from __future__ import annotations

import json
import re

__all__ = ["ending", "is_readable", "unreadable"]

_NOTE = re.compile(r'\[(?P<message>.*),"",(?P<queue>"(?:[^"\\]|\\.)*")\]', re.DOTALL)


def ending(queue: str) -> str:
    """What follows the message in its note: the nameless exchange, and the key that leads back to `queue`."""
    return f',"",{json.dumps(queue)}]'


def is_readable(found: object) -> bool:
    """Whether this is what a note says, in kombu's form: message, exchange and routing key."""
    match found:
        case [dict(message), str(), str()]:
            return "properties" in message
    return False


def unreadable(note: str) -> tuple[str, str] | None:
    """The message and its queue in a note whose message is no JSON; None when it is no note of ours.

    The server notes what it gives away as it stands, so a note is as readable as its message.
    """
    parts = _NOTE.fullmatch(note)
    return None if parts is None else (parts["message"], json.loads(parts["queue"]))
