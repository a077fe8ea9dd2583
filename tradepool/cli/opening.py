"""Which pool a command works on: the embedded one of a folder, or the running fleet of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from tradepool.errors import Misconfigured
from tradepool.files.journal import JOURNAL_NAME
from tradepool.pool import TradePool
from tradepool.settings import Settings
from tradepool.store.connection import Client
from tradepool.store.translation import translated

__all__ = ["AsJson", "Embedded", "check_holds_pool", "check_reachable", "load_settings", "open_pool"]

Embedded = Annotated[
    Path | None,
    typer.Option(
        "--embedded", metavar="DIR", help="Work on the embedded pool in DIR, not on the running fleet."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@contextmanager
def open_pool(embedded: Path | None, *, create: bool = False) -> Iterator[TradePool]:
    """The pool to work on, closed again at the end.

    Only with `create` may the folder hold no pool yet: a mistyped name must not show an empty pool.

    Raises: Misconfigured, StoreUnavailable, PoolLocked, Corrupt as opening a pool does.
    """
    if embedded is None:
        with TradePool.connect(load_settings()) as pool:
            check_reachable(pool.redis)
            yield pool
        return
    if not create:
        check_holds_pool(embedded)
    with TradePool.embedded(embedded) as pool:
        yield pool


def check_reachable(client: Client) -> None:
    """Raises: StoreUnavailable when the server does not answer, before anything else is found missing."""
    with translated():
        client.ping()


def check_holds_pool(folder: Path) -> None:
    """Raises: Misconfigured when `folder` holds no pool."""
    if not (folder / JOURNAL_NAME).is_file():
        raise Misconfigured(f"there is no pool in {folder}; name the folder that has its {JOURNAL_NAME}")


def load_settings(**given: Any) -> Settings:
    """The settings of the environment, with those `given` in their place.

    Raises: Misconfigured naming the first variable that is wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise Misconfigured(f"TRADEPOOL_{name}: {first['msg']}; correct this environment variable") from error
