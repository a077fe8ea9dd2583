"""Trades from other programs' files: freqtrade backtest exports, and the old bot's two files.

An importer is pure: text in, `Entry`s out (trades ready to add, rows that repeat others, rows refused
with their place and reason). `import_file` brings them into a pool.
"""

from tradepool.importers.detect import Format
from tradepool.importers.load import Progress, add_command, import_file, import_opened
from tradepool.importers.opening import ImportFile, open_import
from tradepool.importers.rows import Defaults, ImportReport, Refusal, RefusedRow, RepeatedRow, TradeRow

__all__ = [
    "Defaults",
    "Format",
    "ImportFile",
    "ImportReport",
    "Progress",
    "Refusal",
    "RefusedRow",
    "RepeatedRow",
    "TradeRow",
    "add_command",
    "import_file",
    "import_opened",
    "open_import",
]
