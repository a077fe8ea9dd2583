"""The clock: RedBeat, with ids that name the tick."""

from __future__ import annotations

from typing import Any

from redbeat import RedBeatScheduler

__all__ = ["TickScheduler"]


class TickScheduler(RedBeatScheduler):
    """RedBeat whose messages carry the entry's name and due time as their task id.

    Should two beats ever send the same tick, both messages are one task to Flower and to the logs.
    """

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Send the entry's task under the id of its tick."""
        due_ms = int(entry.due_at.timestamp() * 1000)
        entry.options = {**entry.options, "task_id": f"{entry.name}-{due_ms}"}
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
