"""A TCP relay between a client and a server whose wire a test can cut, slow down or let go dead."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from pathlib import Path
from typing import Self

__all__ = ["TcpProxy"]

_CHUNK_BYTES = 65536
_LOOK_S = 0.02
_CONNECT_TIMEOUT_S = 5.0

Address = tuple[str, int] | Path
"""A host with its port, or a unix socket."""


class TcpProxy:
    """Listens on 127.0.0.1 and relays each connection to `target`, which may be set anew at any time.

    The wire is whole until one of these is called, each for the open connections and for new ones:

    * `cut()`        connections are reset and new ones are refused
    * `half_open()`  connections stay up; nothing gets through in either direction any more
    * `strand()`     those that are up now stay so and are dead for good, as when a router forgets them:
                     an end that closes is not missed by the other. New ones are whole
    * `swallow_answers()` requests still reach the server; answers are thrown away
    * `delay(s)`     every piece arrives that much later, in order
    * `restore()`    the wire is whole again; connections that lost bytes are reset

    With `tls`, clients talk TLS to the proxy, which talks plain text to the server. A context manager.
    """

    def __init__(self, target: Address, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self._tls = tls
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._delay_s = 0.0
        self._passes_requests = True
        self._passes_answers = True
        self._place = _bound(port)
        self._port: int = self._place.getsockname()[1]
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread()
        self._listen()

    @property
    def port(self) -> int:
        """Where it listens; the same after `cut` and `restore`."""
        return self._port

    @property
    def connections(self) -> int:
        """How many connections are up."""
        with self._lock:
            return len(self._links)

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._stop_listening()
        self._reset_links()

    def half_open(self) -> None:
        """Keep connections up, and accept new ones, but let nothing through: as if the peer were gone."""
        with self._lock:
            self._passes_requests = self._passes_answers = False

    def strand(self) -> None:
        """Let the open connections go dead without a word to either end; new ones are as before."""
        with self._lock:
            for link in self._links:
                link.strand()

    def swallow_answers(self) -> None:
        """Let the server do what it is asked, and nobody hear of it."""
        with self._lock:
            self._passes_answers = False

    def delay(self, seconds: float) -> None:
        """Let every piece arrive `seconds` later; 0 ends that."""
        with self._lock:
            self._delay_s = seconds

    def restore(self) -> None:
        """Make the wire whole. Connections that have swallowed something are reset, as TCP would."""
        with self._lock:
            lost_bytes = not (self._passes_requests and self._passes_answers)
            self._passes_requests = self._passes_answers = True
            self._delay_s = 0.0
        if lost_bytes:
            self._reset_links()
        if self._listener is None:
            self._listen()

    def close(self) -> None:
        """Stop; calling it twice is fine."""
        self._stop_listening()
        self._reset_links()
        self._place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def passes(self, *, is_answer: bool) -> bool:
        """Whether bytes of that direction get through now."""
        return self._passes_answers if is_answer else self._passes_requests

    @property
    def delay_s(self) -> float:
        """How much later pieces arrive now."""
        return self._delay_s

    def forget(self, link: _Link) -> None:
        """A link has ended."""
        with self._lock:
            self._links.discard(link)

    def _listen(self) -> None:
        listener = _bound(self._port)
        listener.listen(128)
        listener.settimeout(_LOOK_S)
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=[listener], name="tcp-proxy", daemon=True)
        self._acceptor.start()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            # The port stays taken until nobody waits in `accept` any more.
            self._acceptor.join()
            listener.close()

    def _reset_links(self) -> None:
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset()
        for link in links:
            link.ended.wait(_CONNECT_TIMEOUT_S)

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._relay, args=[client], name="tcp-proxy-link", daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client.settimeout(_CONNECT_TIMEOUT_S)
                client = self._tls.wrap_socket(client, server_side=True)
            server = _connected(self.target)
        except OSError:
            client.close()
            return
        link = _Link(self, client, server)
        with self._lock:
            self._links.add(link)
        if self._listener is None:
            link.reset()
        link.run()


class _Link:
    """One connection through the proxy, served by one thread."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()
        self._is_reset = False
        self._is_stranded = False
        self._woken, self._waking = socket.socketpair()
        self.ended = threading.Event()

    def reset(self) -> None:
        """Have both ends see a reset connection."""
        self._is_reset = True
        # It may have ended meanwhile.
        with contextlib.suppress(OSError):
            self._waking.send(b"!")

    def strand(self) -> None:
        """Have it carry nothing any more, not even the end of one side to the other."""
        self._is_stranded = True

    def run(self) -> None:
        """Relay until an end closes or the link is reset; a stranded one until both have closed."""
        with selectors.DefaultSelector() as ready:
            ready.register(self._woken, selectors.EVENT_READ)
            for one in (self._client, self._server):
                one.settimeout(0.0)
                ready.register(one, selectors.EVENT_READ)
            try:
                while not self._is_reset and len(ready.get_map()) > 1:
                    self._pass_on(ready)
            except OSError:
                pass
        for one in (self._woken, self._waking):
            one.close()
        for one in (self._client, self._server):
            # Without lingering a close is a reset: the peer must not take it for an orderly end.
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            one.close()
        self._proxy.forget(self)
        self.ended.set()

    def _pass_on(self, ready: selectors.BaseSelector) -> None:
        """Wait for something to come or to be due, and see to it."""
        for key, _ in ready.select(self._pause_s()):
            if key.fileobj is self._woken:
                return
            if self._is_stranded:
                _swallow(ready, key.fileobj)  # type: ignore[arg-type]
            else:
                self._take(key.fileobj)  # type: ignore[arg-type]
        if not self._is_stranded:
            self._deliver()

    def _pause_s(self) -> float | None:
        if not self._under_way or self._is_stranded:
            return None
        return max(0.0, self._under_way[0][0] - time.monotonic())

    def _take(self, source: socket.socket) -> None:
        is_answer = source is self._server
        while True:
            try:
                data = source.recv(_CHUNK_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise ConnectionResetError
            if self._proxy.passes(is_answer=is_answer):
                to = self._client if is_answer else self._server
                self._under_way.append((time.monotonic() + self._proxy.delay_s, to, data))
            # What TLS has read already no selector will tell of.
            if len(data) < _CHUNK_BYTES and not isinstance(source, ssl.SSLSocket):
                return

    def _deliver(self) -> None:
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            _, to, data = self._under_way.popleft()
            to.settimeout(_CONNECT_TIMEOUT_S)
            to.sendall(data)
            to.settimeout(0.0)


def _swallow(ready: selectors.BaseSelector, source: socket.socket) -> None:
    """Take what has come and forget it; whoever has closed is not listened to any more."""
    try:
        if source.recv(_CHUNK_BYTES):
            return
    except (BlockingIOError, ssl.SSLWantReadError):
        return
    except OSError:
        pass
    ready.unregister(source)


def _bound(port: int) -> socket.socket:
    """A socket that has the port (0: any) and refuses connections until it listens.

    A proxy keeps one while it is cut: else a client that tries to connect may get the port for its own end.
    """
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


def _connected(target: Address) -> socket.socket:
    if isinstance(target, Path):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(_CONNECT_TIMEOUT_S)
        made.connect(str(target))
        return made
    made = socket.create_connection(target, _CONNECT_TIMEOUT_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
