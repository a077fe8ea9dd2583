"""`tradepool demo`: start everything, trade, show it live, prove it, stop everything."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live

from tradepool.client import PoolClient
from tradepool.demo.bots import Bots
from tradepool.demo.display import DemoResult, render_result
from tradepool.demo.file_feed import FileFeed, read_export
from tradepool.demo.fleet import demo_fleet
from tradepool.demo.stage import Stage
from tradepool.fleet.supervisor import Supervisor
from tradepool.importers.grouping import Resolved
from tradepool.pool import TradePool
from tradepool.settings import Settings

__all__ = ["SECONDS", "run"]

SECONDS = 30.0
"""How long the demo takes in all, about."""


def run(
    *,
    import_file: Path | None = None,
    keep: bool = False,
    seconds: float = SECONDS,
    data_dir: Path | None = None,
    present: Callable[[DemoResult], object] | None = None,
) -> int:
    """Run the demo; 0 only if every accepted trade is in Redis, in the journal and in the snapshot, and
    the audit found nothing.

    The trades come from `import_file`, or from simulated bots. With `keep` the fleet stays up
    afterwards until Ctrl-C. Files go to `data_dir`, or to a temporary folder that is removed after a
    demo that went well. Stdout shows all of it, or with `present` stderr, and that gets the outcome.

    Raises: Rejected for a file that cannot be read, Misconfigured, PoolLocked, Unavailable;
    KeyboardInterrupt, also for SIGTERM, after everything is stopped.
    """
    console = Console(stderr=present is not None)
    # Read first: for a file that is none nothing is started.
    export = None if import_file is None else read_export(import_file)
    folder = data_dir or Path(tempfile.mkdtemp(prefix="tradepool-demo-"))
    is_whole = False
    try:
        with _interruptible(), demo_fleet(folder) as (settings, supervisor):
            outcome = _perform(settings, supervisor, console, export, seconds)
            if present is None:
                console.print(render_result(outcome))
            else:
                present(outcome)
            is_whole = outcome.ok
            if keep:
                _stay(console, settings)
    finally:
        if is_whole and data_dir is None:
            shutil.rmtree(folder)
        else:
            console.print(f"files and logs: {folder}")
    return 0 if is_whole else 1


def _perform(
    settings: Settings,
    supervisor: Supervisor,
    console: Console,
    export: Sequence[Resolved] | None,
    seconds: float,
) -> DemoResult:
    with (
        TradePool.connect(settings) as pool,
        PoolClient.connect(settings, spool=settings.data_dir / "demo-spool.db") as client,
    ):
        traders = Bots(client, pool) if export is None else FileFeed(client, pool, export)
        with Live(console=console, auto_refresh=False) as live:
            return Stage(pool, client, traders, supervisor, live).play(seconds)


def _stay(console: Console, settings: Settings) -> None:
    """Leave the fleet running until Ctrl-C."""
    console.print("Reach this fleet from another terminal with:")
    console.print(f"  export TRADEPOOL_REDIS_URL='{settings.redis_url}'", highlight=False, soft_wrap=True)
    console.print(
        f"  export TRADEPOOL_DATA_DIR='{settings.data_dir.absolute()}'", highlight=False, soft_wrap=True
    )
    console.print("Ctrl-C stops everything.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("stopping")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: everything it started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
