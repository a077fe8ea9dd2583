"""The archive: closed trades of past days in Parquet files. Nothing here knows Redis."""

from __future__ import annotations

__all__: list[str] = []
