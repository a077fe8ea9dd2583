"""One look at a pool and its fleet: store, broker and data folder at the same moment, whichever answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Self, TypeVar

import msgspec

from tradepool.clock import now_us
from tradepool.errors import Corrupt, Misconfigured, TradePoolError, Unavailable
from tradepool.fleet.broker_state import BrokerReader, BrokerState
from tradepool.fleet.folder_state import FolderState, read_folder
from tradepool.fleet.store_state import StoreReader, StoreState
from tradepool.settings import Settings

__all__ = ["PoolState", "Watcher", "seconds_since"]

T = TypeVar("T")
_US_PER_S = 1_000_000


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at `at` (µs); of a server that did not answer, why not."""

    at: int
    store: StoreState | TradePoolError
    broker: BrokerState | TradePoolError | None
    """None: there is no fleet."""
    folder: FolderState | OSError | None
    """None where this machine does not have the data folder."""

    @property
    def snapshot_since(self) -> int | None:
        """When the last snapshot was made, or the pool where there is none; None: nobody here knows."""
        if not isinstance(self.folder, FolderState):
            return None
        made = self.store.created_at if isinstance(self.store, StoreState) else 0
        return self.folder.snapshot_at or made or None


class Watcher:
    """Looks at the pool of `settings`, and at its fleet if `has_fleet`. For one thread; a context manager.

    It changes nothing and asks no worker.
    """

    def __init__(self, settings: Settings, *, has_fleet: bool = True) -> None:
        self.settings = settings
        self.has_fleet = has_fleet
        self._resources = ExitStack()

    def look(self) -> PoolState:
        """How it all stands now. A server that does not answer is waited for as the settings say."""
        at = now_us()
        return PoolState(
            at=at,
            store=_told("store", lambda: self._store.read(at)),
            broker=_told("broker", lambda: self._broker.read(at)) if self.has_fleet else None,
            folder=read_folder(self.settings.data_dir),
        )

    def close(self) -> None:
        """Close the connections."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _store(self) -> StoreReader:
        """Connected by the first look that succeeds: a watcher may be there before its server."""
        reader = StoreReader(self.settings)
        self._resources.callback(reader.close)
        return reader

    @cached_property
    def _broker(self) -> BrokerReader:
        reader = BrokerReader(self.settings)
        self._resources.callback(reader.close)
        return reader


def seconds_since(since: int | None, at: int) -> float:
    """How long before `at` (µs) that was; 0 where it never was, and for a clock that is ahead of this one."""
    return 0.0 if since is None else max(0.0, (at - since) / _US_PER_S)


def _told(server: str, read: Callable[[], T]) -> T | TradePoolError:
    try:
        return read()
    except (Unavailable, Misconfigured, Corrupt) as problem:
        return problem
    except (ValueError, LookupError, ArithmeticError) as problem:
        # Somebody wrote into our keys: whoever watches must learn of it, and of all the rest.
        return Corrupt(f"a key of the {server} holds what it should not: {type(problem).__name__}: {problem}")
