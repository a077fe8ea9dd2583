"""The relay that the tests cut."""

from __future__ import annotations

import socket

import pytest

from tests.tcp_proxy import TcpProxy


def test_a_cut_proxy_keeps_its_port():
    with TcpProxy(("127.0.0.1", 9)) as proxy:
        proxy.cut()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", proxy.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), 1)
        proxy.restore()
        socket.create_connection(("127.0.0.1", proxy.port), 1).close()
