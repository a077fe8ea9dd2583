"""The threads that keep a book ready between ticks: built, in step with the pool, saved and checked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tradepool.errors import Unavailable
from tradepool.logger import CauseLog, Logger
from tradepool.marking.service import Marking

__all__ = ["BookKeeper"]

log = Logger(__name__)

FOLLOW_EVERY_S = 0.1
"""How often the book catches up while the pool changes."""
IDLE_EVERY_S = 0.5
"""How often it looks while the pool does not."""
PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 30.0
START_S = 60.0
"""How long the pool may be away when a worker starts, without that being a failure: workers start side by
side, and the one that recovers the server takes its time."""
STOP_WAIT_S = 10.0
"""How long `stop` waits: for a batch and the save, not for a book that is being built."""


class BookKeeper:
    """Builds a book in the background, chooses what marks it, then follows the pool until `stop`.

    No failure ends it: each cause is logged once, and it tries again after growing pauses.
    """

    def __init__(self, marking: Callable[[], Marking], *, save_every_s: float) -> None:
        """`marking` connects at its first call and may raise like it."""
        self._marking = marking
        self._save_every_s = save_every_s
        self._stop = threading.Event()
        self._tried = threading.Event()
        self._follower = threading.Thread(target=self._run, name="book-keeper", daemon=True)
        self._checker: threading.Thread | None = None
        self._is_ready = False
        self._waits = False
        self._following = CauseLog(log, "the book cannot be kept")
        self._saving = CauseLog(log, "the book cannot be saved")

    def start(self) -> None:
        """Begin, and return at once."""
        self._follower.start()

    def stop(self) -> None:
        """End, and save the book; one that is still being built is left."""
        self._stop.set()
        self._tried.set()
        self._follower.join(STOP_WAIT_S)

    def wait_tried(self, timeout_s: float) -> bool:
        """Whether within `timeout_s` the book is ready, or a tick can learn by itself why it is not."""
        return self._tried.wait(timeout_s)

    def check(self) -> bool:
        """Have the book compared with the store beside the ticks; False while the last check still runs."""
        if self._checker is not None and self._checker.is_alive():
            return False
        self._checker = threading.Thread(target=self._check, name="book-check", daemon=True)
        self._checker.start()
        return True

    def _run(self) -> None:
        started_s = time.monotonic()
        save_at_s = started_s + self._save_every_s
        failing_s = PAUSE_MIN_S
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            try:
                pause_s = self._follow(started_s)
            except Exception as problem:  # noqa: BLE001 - the process boundary: the thread outlives every cause
                pause_s, failing_s = failing_s, min(2 * failing_s, PAUSE_MAX_S)
                self._tell(problem, started_s)
            else:
                failing_s = PAUSE_MIN_S
                self._following.worked()
            self._tried.set()
            if time.monotonic() >= save_at_s:
                save_at_s = time.monotonic() + self._save_every_s
                self._save()
        self._save()

    def _tell(self, problem: Exception, started_s: float) -> None:
        """Say why the book cannot be kept; at a start, that it waits for the server to be recovered."""
        is_usual = not self._is_ready and time.monotonic() - started_s < START_S
        if not (is_usual and isinstance(problem, Unavailable)):
            self._following.failed(problem)
        elif not self._waits:
            self._waits = True
            log.info("the book waits for the pool to open", problem=str(problem))

    def _follow(self, started_s: float) -> float:
        """Catch up once; how long to pause then, in seconds."""
        marking = self._marking()
        has_changed = marking.catch_up()
        if not self._is_ready:
            ready = marking.prepare()
            self._is_ready = True
            log.info("book ready", **ready._asdict(), seconds=round(time.monotonic() - started_s, 3))
        return FOLLOW_EVERY_S if has_changed else IDLE_EVERY_S

    def _save(self) -> None:
        if not self._is_ready:
            return
        try:
            self._marking().save_book()
        except Exception as problem:  # noqa: BLE001 - as above; the file saves time, nothing depends on it
            self._saving.failed(problem)
        else:
            self._saving.worked()

    def _check(self) -> None:
        try:
            checked = self._marking().check_book()
        except Unavailable as problem:
            log.warning("the book was not checked", problem=str(problem))
        except Exception:  # the process boundary: nobody waits for this thread
            log.exception("the book was not checked")
        else:
            log.info("book checked", rows=checked.rows, different=checked.different)
