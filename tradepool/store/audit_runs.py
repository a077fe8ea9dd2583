"""Audits that the workers of a fleet do together: what of a run is where all of them see it.

A run is a hash. Who comes first with a field has it; what was claimed never changes, so that a message that
is delivered twice changes nothing. A run that nobody moves for a while goes away by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tradepool.store.asking import ask_all
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated

__all__ = ["AuditRuns"]

_MOVED_FIELD = "moved"


class AuditRuns:
    """The part of the store that runs of audits are in. All methods raise StoreUnavailable."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def claim_of_audit(self, run_id: str, field: str, value: bytes, *, at_us: int, kept_s: int) -> bool:
        """Set a field of a run that has none of that name; whether this call did. The run stays `kept_s`."""
        key = self.keys.audit_run(run_id)
        with translated():
            is_set, *_ = ask_all(
                self._client,
                [
                    ("HSETNX", key, field, value),
                    ("HSET", key, _MOVED_FIELD, at_us),
                    ("EXPIRE", key, kept_s),
                ],
            )
        return bool(is_set)

    def fields_of_audit(self, run_id: str, fields: Sequence[str]) -> list[bytes | None]:
        """The values of some fields of a run, in order; None where there is none."""
        if not fields:
            return []
        with translated():
            (values,) = ask_all(self._client, [("HMGET", self.keys.audit_run(run_id), *fields)])
        return list(values)

    def field_names_of_audit(self, run_id: str) -> set[str]:
        """Which fields a run has; none where there is no such run (any more)."""
        with translated():
            (names,) = ask_all(self._client, [("HKEYS", self.keys.audit_run(run_id))])
        return set(map(text_of, names))

    def audit_moved_at(self, run_id: str) -> int | None:
        """When a field of the run was last set, µs; None where there is no such run (any more)."""
        (value,) = self.fields_of_audit(run_id, [_MOVED_FIELD])
        return None if value is None else int(value)

    def announce_audit(self, run_id: str, told: bytes) -> None:
        """List a run among those under way."""
        with translated():
            self._client.hset(self.keys.audit_runs, run_id, told)

    def forget_audit(self, run_id: str) -> bool:
        """Take a run from that list; whether it was there."""
        with translated():
            return bool(self._client.hdel(self.keys.audit_runs, run_id))

    def announced_audits(self) -> dict[str, bytes]:
        """Run → what was announced of it, for those that have not ended."""
        with translated():
            found: Any = self._client.hgetall(self.keys.audit_runs)
        return {text_of(run_id): told for run_id, told in found.items()}
