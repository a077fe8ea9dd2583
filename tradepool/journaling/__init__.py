"""The journal's owner: what is committed goes to disk, and a server that lost some of it is rebuilt."""

from __future__ import annotations

__all__: list[str] = []
