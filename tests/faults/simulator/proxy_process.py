"""The TCP proxy in a process of its own: it has threads, and who forks must have none."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.simulator.children import Child
from tests.tcp_proxy import TcpProxy
from tests.waiting import eventually

__all__ = ["ProxyProcess"]


class ProxyProcess:
    """A proxy in front of the unix socket `target`, told by one line for each thing it shall do."""

    def __init__(self, target: Path, log: Path) -> None:
        ports_read, ports_write = os.pipe()
        orders_read, self._orders = os.pipe()

        def relay() -> int:
            with TcpProxy(target) as proxy:
                os.write(ports_write, b"%d" % proxy.port)
                _obey(proxy, orders_read)
            return 0

        self.child = Child("proxy", relay, log)
        os.close(ports_write)
        os.close(orders_read)
        self.port = int(os.read(ports_read, 16))
        os.close(ports_read)

    def order(self, name: str, argument: float | None = None) -> None:
        """Have it call the proxy's method `name`."""
        os.write(self._orders, f"{name} {'' if argument is None else argument}\n".encode())

    def kill(self) -> None:
        """End it."""
        self.child.kill()
        os.close(self._orders)


def _obey(proxy: TcpProxy, orders: int) -> None:
    with os.fdopen(orders, encoding="utf-8") as lines:
        for line in lines:
            name, _, argument = line.strip().partition(" ")
            call = partial(getattr(proxy, name), *([float(argument)] if argument else []))
            eventually(lambda call=call: _is_done(call))


def _is_done(call: Callable[[], None]) -> bool:
    """Whether the proxy could do it: the kernel gives a port that was just left free a moment later."""
    try:
        call()
    except OSError:
        return False
    return True
