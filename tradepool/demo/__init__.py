"""The demo: a whole fleet on an embedded server, trading for half a minute, then proven whole."""

from __future__ import annotations

from tradepool.demo.run import run

__all__ = ["run"]
