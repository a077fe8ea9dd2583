"""The pool and the client for asyncio bots: the same methods, awaitable, and no second implementation.

Each call runs the synchronous method on a thread of the object's own. Cancelling the task that awaits it
leaves nothing half done: a call that has begun runs to its end, only nobody waits for its result any more;
one that still waited for a thread never begins; what was being opened is closed again.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tradepool.client.pool_client import CLOSE_TIMEOUT_S, PoolClient
from tradepool.errors import StoreUnavailable
from tradepool.pool import TradePool
from tradepool.pool_checks import PoolChecks
from tradepool.pool_reads import PoolReads
from tradepool.settings import Settings
from tradepool.store.connection import Client

__all__ = ["THREADS", "WAITS", "AsyncPoolClient", "AsyncTradePool"]

THREADS = 8
"""Calls of one object that run at the same time; further ones wait for their turn."""

WAITS = 64
"""Calls of `flush` and `confirm` of one client that wait at the same time."""

_CHUNK = 200

Item = TypeVar("Item")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Wrapped = TypeVar("Wrapped", TradePool, PoolReads, PoolChecks, PoolClient)
Opened = TypeVar("Opened", TradePool, PoolClient)
Shown = TypeVar("Shown", bound="_Threaded")


class _Threaded:
    """An object whose methods run on threads."""

    _wrapped: Any

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=name)
        self._closed = False

    async def run(self, call: Callable[[], Result], threads: ThreadPoolExecutor | None = None) -> Result:
        """Run `call` on one of the threads. Raises: StoreUnavailable once closed; what `call` does."""
        if self._closed:
            raise StoreUnavailable("it is closed; open it again")
        return await asyncio.get_running_loop().run_in_executor(threads or self._threads, call)

    async def close(self) -> None:
        """Let the calls that have begun end, and close; calling it twice is fine."""
        self._closed = True
        # One call, so that it cannot be cancelled half way.
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._threads.shutdown()
        self._wrapped.close()

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
        items = await self.run(functools.partial(method, self._wrapped, *args, **kwargs))
        while chunk := await self.run(lambda: list(islice(items, _CHUNK))):
            for item in chunk:
                yield item

    return stream


async def _opened(opening: Callable[[], Opened]) -> Opened:
    """What `opening` opens on a thread; closed again as soon as it is there if nobody waits any more."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="tradepool-open")
    begun = thread.submit(opening)
    thread.shutdown(wait=False)
    try:
        return await asyncio.wrap_future(begun)
    except asyncio.CancelledError:
        begun.add_done_callback(_close_opened)
        raise


def _close_opened(opening: Future[Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class _Opening(Coroutine[Any, Any, Shown]):
    """A coroutine that opens an object, which `async with` also closes."""

    def __init__(self, opening: Coroutine[Any, Any, Shown]) -> None:
        self._opening = opening

    def __await__(self) -> Generator[Any, Any, Shown]:
        return self._opening.__await__()

    def send(self, value: Any) -> Any:
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:
        return self._opening.throw(*error)

    def close(self) -> None:
        self._opening.close()

    async def __aenter__(self) -> Shown:
        self._opened = await self._opening
        return self._opened

    async def __aexit__(self, *_: object) -> None:
        await self._opened.close()


class AsyncTradePool(_Threaded):
    """`TradePool` for asyncio: every method awaitable, the streaming ones asynchronous iterators."""

    def __init__(self, pool: TradePool) -> None:
        super().__init__("tradepool")
        self._wrapped = self._pool = pool

    @classmethod
    def connect(cls, settings: Settings | None = None) -> _Opening[Self]:
        """As `TradePool.connect`; to be awaited, or for `async with`."""

        async def opened() -> Self:
            return cls(await _opened(lambda: TradePool.connect(settings)))

        return _Opening(opened())

    @classmethod
    def embedded(cls, path: str | Path, **settings: Any) -> _Opening[Self]:
        """As `TradePool.embedded`; to be awaited, or for `async with`."""

        async def opened() -> Self:
            return cls(await _opened(lambda: TradePool.embedded(path, **settings)))

        return _Opening(opened())

    @property
    def redis(self) -> Client:
        """As `TradePool.redis`: a synchronous client, for inspection."""
        return self._pool.redis

    @property
    def settings(self) -> Settings:
        """As `TradePool.settings`."""
        return self._pool.settings

    apply = _awaitable(TradePool.apply)
    add_trade = _awaitable(TradePool.add_trade)
    add_trades = _awaitable(TradePool.add_trades)
    add_fill = _awaitable(TradePool.add_fill)
    close_trade = _awaitable(TradePool.close_trade)
    update_trade = _awaitable(TradePool.update_trade)
    update_trade_pnl = _awaitable(TradePool.update_trade_pnl)
    quarantine = _awaitable(TradePool.quarantine)
    release_quarantine = _awaitable(TradePool.release_quarantine)
    update_available_tokens = _awaitable(TradePool.update_available_tokens)
    reserve_tokens = _awaitable(TradePool.reserve_tokens)
    settle_tokens = _awaitable(TradePool.settle_tokens)
    release_tokens = _awaitable(TradePool.release_tokens)
    expire_reservations = _awaitable(TradePool.expire_reservations)
    set_prices = _awaitable(TradePool.set_prices)
    get_trade = _awaitable(TradePool.get_trade)
    get_trade_history = _awaitable(TradePool.get_trade_history)
    get_all_trades = _streamed(TradePool.get_all_trades)
    get_trades_by_user = _awaitable(TradePool.get_trades_by_user)
    get_trades_by_symbol = _awaitable(TradePool.get_trades_by_symbol)
    get_recent_trades = _awaitable(TradePool.get_recent_trades)
    get_open_trades = _streamed(TradePool.get_open_trades)
    get_quarantined = _awaitable(TradePool.get_quarantined)
    get_user_summary = _awaitable(TradePool.get_user_summary)
    get_available_tokens = _awaitable(TradePool.get_available_tokens)
    get_reservations = _awaitable(TradePool.get_reservations)
    mark_to_market = _awaitable(TradePool.mark_to_market)
    stress_test = _awaitable(TradePool.stress_test)
    get_marks = _awaitable(TradePool.get_marks)
    get_mark_totals = _awaitable(TradePool.get_mark_totals)
    get_symbol_marks = _awaitable(TradePool.get_symbol_marks)
    check_trades = _awaitable(TradePool.check_trades)
    check_all_trades = _awaitable(TradePool.check_all_trades)
    get_last_audit = _awaitable(TradePool.get_last_audit)
    get_running_audits = _awaitable(TradePool.get_running_audits)
    get_audit_progress = _awaitable(TradePool.get_audit_progress)
    get_audits = _awaitable(TradePool.get_audits)
    write_audit_page = _awaitable(TradePool.write_audit_page)
    write_snapshot = _awaitable(TradePool.write_snapshot)
    archive_closed_trades = _awaitable(TradePool.archive_closed_trades)
    sql = _awaitable(TradePool.sql)
    export = _awaitable(TradePool.export)


class AsyncPoolClient(_Threaded):
    """`PoolClient` for asyncio: every method awaitable."""

    def __init__(self, client: PoolClient) -> None:
        super().__init__("poolclient")
        self._wrapped = client
        self._waits = ThreadPoolExecutor(WAITS, thread_name_prefix="poolclient-wait")
        """Those that wait have threads of their own: they must hold up neither an add nor the end."""

    @classmethod
    def connect(cls, settings: Settings | None = None, **options: Any) -> _Opening[Self]:
        """As `PoolClient.connect`; to be awaited, or for `async with`."""

        async def opened() -> Self:
            return cls(await _opened(lambda: PoolClient.connect(settings, **options)))

        return _Opening(opened())

    add_trade = _awaitable(PoolClient.add_trade)
    add_trades = _awaitable(PoolClient.add_trades)
    add_fill = _awaitable(PoolClient.add_fill)
    close_trade = _awaitable(PoolClient.close_trade)
    update_trade = _awaitable(PoolClient.update_trade)
    update_trade_pnl = _awaitable(PoolClient.update_trade_pnl)
    update_available_tokens = _awaitable(PoolClient.update_available_tokens)
    reserve_tokens = _awaitable(PoolClient.reserve_tokens)
    settle_tokens = _awaitable(PoolClient.settle_tokens)
    release_tokens = _awaitable(PoolClient.release_tokens)
    pending = _awaitable(PoolClient.pending)
    lag = _awaitable(PoolClient.lag)

    async def flush(self, timeout: float) -> bool:  # noqa: ASYNC109 - as `PoolClient.flush` has it
        """As `PoolClient.flush`."""
        return await self._wait(lambda given_up: self._wrapped._flush(timeout, given_up))  # noqa: SLF001 - its twin

    async def confirm(self, trade_ids: Iterable[str], timeout: float) -> dict[str, bool]:  # noqa: ASYNC109 - as above
        """As `PoolClient.confirm`."""
        return await self._wait(lambda given_up: self._wrapped._confirm(trade_ids, timeout, given_up))  # noqa: SLF001 - its twin

    async def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:  # noqa: ASYNC109 - as above
        """As `PoolClient.close`, after the calls that have begun; `flush` and `confirm` end at once."""
        self._closed = True
        await asyncio.to_thread(self._end_within, timeout)

    @property
    def rejections(self) -> list[Any]:
        """As `PoolClient.rejections`."""
        return list(self._wrapped.rejections)

    async def _wait(self, call: Callable[[threading.Event], Result]) -> Result:
        """Run what waits; cancelled, it gives its thread back soon."""
        given_up = threading.Event()
        try:
            return await self.run(lambda: call(given_up), self._waits)
        finally:
            given_up.set()

    def _end_within(self, timeout: float) -> None:
        self._threads.shutdown()
        try:
            self._wrapped.close(timeout)
        finally:
            self._waits.shutdown()
