"""The pool and the client for asyncio bots: the same methods, awaitable, and no second implementation.

Each call runs the synchronous method on a thread of the object's own. Cancelling the task that awaits
leaves nothing half done: the call itself runs to its end, only nobody waits for its result any more.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tradepool.client import PoolClient
from tradepool.pool import TradePool
from tradepool.pool_reads import PoolReads
from tradepool.settings import Settings

__all__ = ["THREADS", "AsyncPoolClient", "AsyncTradePool"]

THREADS = 8
"""Calls of one object that run at the same time; further ones wait for their turn."""

_CHUNK = 200

Item = TypeVar("Item")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Wrapped = TypeVar("Wrapped", TradePool, PoolReads, PoolClient)


class _Threaded:
    """An object whose methods run on threads."""

    _wrapped: Any

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=name)

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run `call` on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def close(self) -> None:
        """Close the wrapped object and end the threads; calling it twice is fine."""
        await asyncio.to_thread(self._wrapped.close)
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _awaitable(
    method: Callable[Concatenate[Wrapped, Parameters], Result],
) -> Callable[Concatenate[_Threaded, Parameters], Coroutine[Any, Any, Result]]:
    """The method as a coroutine function of the class that wraps its object."""

    @functools.wraps(method)
    async def call(self: _Threaded, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self.run(functools.partial(method, self._wrapped, *args, **kwargs))

    return call


def _streamed(
    method: Callable[Concatenate[Wrapped, Parameters], Iterator[Item]],
) -> Callable[Concatenate[_Threaded, Parameters], AsyncIterator[Item]]:
    """The generator method as an asynchronous one; a chunk at a time is read on a thread."""

    @functools.wraps(method)
    async def stream(
        self: _Threaded, /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> AsyncIterator[Item]:
        items = method(self._wrapped, *args, **kwargs)
        while chunk := await self.run(lambda: list(islice(items, _CHUNK))):
            for item in chunk:
                yield item

    return stream


class AsyncTradePool(_Threaded):
    """`TradePool` for asyncio: every method awaitable, the streaming ones asynchronous iterators."""

    def __init__(self, pool: TradePool) -> None:
        super().__init__("tradepool")
        self._wrapped = pool

    @classmethod
    async def connect(cls, settings: Settings | None = None) -> Self:
        """As `TradePool.connect`."""
        return cls(await asyncio.to_thread(TradePool.connect, settings))

    @classmethod
    async def embedded(cls, path: str | Path, **settings: Any) -> Self:
        """As `TradePool.embedded`."""
        return cls(await asyncio.to_thread(TradePool.embedded, path, **settings))

    apply = _awaitable(TradePool.apply)
    add_trade = _awaitable(TradePool.add_trade)
    add_trades = _awaitable(TradePool.add_trades)
    add_fill = _awaitable(TradePool.add_fill)
    close_trade = _awaitable(TradePool.close_trade)
    update_trade = _awaitable(TradePool.update_trade)
    update_trade_pnl = _awaitable(TradePool.update_trade_pnl)
    update_available_tokens = _awaitable(TradePool.update_available_tokens)
    set_prices = _awaitable(TradePool.set_prices)
    get_trade = _awaitable(TradePool.get_trade)
    get_trade_history = _awaitable(TradePool.get_trade_history)
    get_all_trades = _streamed(TradePool.get_all_trades)
    get_trades_by_user = _awaitable(TradePool.get_trades_by_user)
    get_trades_by_symbol = _awaitable(TradePool.get_trades_by_symbol)
    get_recent_trades = _awaitable(TradePool.get_recent_trades)
    get_open_trades = _streamed(TradePool.get_open_trades)
    get_user_summary = _awaitable(TradePool.get_user_summary)
    get_available_tokens = _awaitable(TradePool.get_available_tokens)
    mark_to_market = _awaitable(TradePool.mark_to_market)
    get_marks = _awaitable(TradePool.get_marks)
    get_mark_totals = _awaitable(TradePool.get_mark_totals)
    check_trades = _awaitable(TradePool.check_trades)
    check_all_trades = _awaitable(TradePool.check_all_trades)
    get_last_audit = _awaitable(TradePool.get_last_audit)
    write_snapshot = _awaitable(TradePool.write_snapshot)
    archive_closed_trades = _awaitable(TradePool.archive_closed_trades)
    sql = _awaitable(TradePool.sql)
    export = _awaitable(TradePool.export)


class AsyncPoolClient(_Threaded):
    """`PoolClient` for asyncio: every method awaitable."""

    def __init__(self, client: PoolClient) -> None:
        super().__init__("poolclient")
        self._wrapped = client

    @classmethod
    async def connect(cls, settings: Settings | None = None, **options: Any) -> Self:
        """As `PoolClient.connect`."""
        return cls(await asyncio.to_thread(functools.partial(PoolClient.connect, settings, **options)))

    add_trade = _awaitable(PoolClient.add_trade)
    add_trades = _awaitable(PoolClient.add_trades)
    add_fill = _awaitable(PoolClient.add_fill)
    close_trade = _awaitable(PoolClient.close_trade)
    update_trade = _awaitable(PoolClient.update_trade)
    update_trade_pnl = _awaitable(PoolClient.update_trade_pnl)
    update_available_tokens = _awaitable(PoolClient.update_available_tokens)
    pending = _awaitable(PoolClient.pending)
    flush = _awaitable(PoolClient.flush)
    confirm = _awaitable(PoolClient.confirm)

    @property
    def rejections(self) -> list[Any]:
        """As `PoolClient.rejections`."""
        return list(self._wrapped.rejections)
