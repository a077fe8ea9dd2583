"""A webhook on a loopback port that answers as it is told, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["SECRET", "Webhook", "webhook"]

SECRET = "T0PSECRET"
"""In the path of each address: nothing that a pool writes may hold it."""


class Webhook:
    """What came: `paths`, and `pages` as they were decoded. Answers with `answers` in turn, then with 200."""

    def __init__(self, port: int, answers: Sequence[int]) -> None:
        self.url = f"http://127.0.0.1:{port}/services/{SECRET}"
        self.answers = list(answers)
        self.paths: list[str] = []
        self.pages: list[dict[str, Any]] = []


@contextmanager
def webhook(*answers: int) -> Iterator[Webhook]:
    """A webhook that answers with these statuses first."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.paths.append(self.path)
            made.pages.append(json.loads(body))
            self.send_response(made.answers.pop(0) if made.answers else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Webhook(server.server_port, answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
