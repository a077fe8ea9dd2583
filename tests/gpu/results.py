"""What a run on a device printed, kept in a file for those who have none."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from tradepool.pnl.cuda.device import KERNELS

__all__ = ["Results"]

FILE = Path(os.environ.get("GPU_RESULTS", "gpu-results.txt"))


class Results:
    """Prints lines, and appends each to the file at once, so that a run that is killed leaves its own."""

    def __init__(self, title: str, device: str) -> None:
        """Begins with what was run, on what, when, and by which kernels."""
        kernels = hashlib.sha256(KERNELS.read_bytes()).hexdigest()[:16]
        self.line(f"== {title}; device: {device}; {time.strftime('%Y-%m-%d')}; kernels {kernels}")

    def line(self, text: str) -> None:
        """Print a line and keep it."""
        print(text, flush=True)
        with FILE.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
