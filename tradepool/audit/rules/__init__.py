"""What must hold: each rule is a function that tells its faults, registered under its name.

`catalogue` has all of them, `registry` says what a rule is. They are given what was read; the rest of
`tradepool.audit` reads it.
"""

from __future__ import annotations

__all__: list[str] = []
