"""`python -m tradepool.cli`: the command line where no script is on the path."""

from __future__ import annotations

import sys

from tradepool.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
