"""Which pool a command works on: the embedded one of a folder, or the running fleet of the settings.

Beside it the arguments that many commands take.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import structlog
import typer

from tradepool.errors import Misconfigured
from tradepool.files.checkpoint import check_not_lost
from tradepool.files.journal import JOURNAL_NAME
from tradepool.pool import TradePool

__all__ = ["AsJson", "Embedded", "User", "check_holds_pool", "open_pool", "warnings_on_stderr"]

Embedded = Annotated[
    Path | None,
    typer.Option(
        "--embedded", metavar="DIR", help="Work on the embedded pool in DIR, not on the running fleet."
    ),
]
User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@contextmanager
def open_pool(embedded: Path | None, *, create: bool = False) -> Iterator[TradePool]:
    """The pool to work on, closed again at the end.

    Only with `create` may the folder hold no pool yet: a mistyped name must not show an empty pool.

    Raises: Misconfigured, StoreUnavailable, PoolLocked, Corrupt as opening a pool does.
    """
    with warnings_on_stderr():
        if embedded is None:
            with TradePool.connect() as pool:
                yield pool
            return
        if not create:
            check_holds_pool(embedded)
        with TradePool.embedded(embedded) as pool:
            yield pool


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """What the library logs: stdout is for what was asked, and its ordinary course is nobody's question."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def check_holds_pool(folder: Path) -> None:
    """Raises: Misconfigured when `folder` holds no pool, SequenceGap when it holds one without its log."""
    if not (folder / JOURNAL_NAME).is_file():
        check_not_lost(folder / JOURNAL_NAME)
        raise Misconfigured(f"there is no pool in {folder}; name the folder that has its {JOURNAL_NAME}")
