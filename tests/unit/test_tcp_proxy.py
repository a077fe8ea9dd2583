"""The relay that the tests cut."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.tcp_proxy import TcpProxy
from tests.waiting import eventually

TIMEOUT_S = 0.2
"""How long to look for what must not come."""


@pytest.fixture
def wire():
    """A proxy, and a function that connects through it: the two ends."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as opened:
        proxy = opened.enter_context(TcpProxy(server.getsockname()))

        def connect() -> tuple[socket.socket, socket.socket]:
            near = opened.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 5))
            far = opened.enter_context(server.accept()[0])
            near.sendall(b"hello")
            assert far.recv(5) == b"hello"
            return near, far

        yield proxy, connect


def assert_hears_nothing(end: socket.socket) -> None:
    end.settimeout(TIMEOUT_S)
    with pytest.raises(TimeoutError):
        end.recv(1)


def test_a_stranded_connection_is_dead_for_good_and_neither_end_is_told(wire):
    proxy, connect = wire
    near, far = connect()
    proxy.strand()
    near.sendall(b"lost")
    assert_hears_nothing(far)
    far.sendall(b"lost")
    assert_hears_nothing(near)
    near.close()
    assert_hears_nothing(far)
    far.sendall(b"nobody is there")


def test_connections_made_after_others_were_stranded_are_whole(wire):
    proxy, connect = wire
    connect()
    proxy.strand()
    connect()


def test_a_stranded_connection_goes_when_both_ends_have(wire):
    proxy, connect = wire
    near, far = connect()
    proxy.strand()
    near.close()
    far.close()
    eventually(lambda: proxy.connections == 0)


def test_a_cut_proxy_keeps_its_port():
    with TcpProxy(("127.0.0.1", 9)) as proxy:
        proxy.cut()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", proxy.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), 1)
        proxy.restore()
        socket.create_connection(("127.0.0.1", proxy.port), 1).close()
