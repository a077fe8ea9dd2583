"""Trades from other programs' files: ccxt's lists, freqtrade's exports and databases, the old bot's two
files; and a pool's own exports.

An importer is pure: a file in, `Entry`s out (trades ready to add, histories of markets, rows that repeat
others, rows left out with their place and reason). `import_file` brings them into a pool.
"""

from tradepool.importers.detect import Format
from tradepool.importers.grouping import resolved
from tradepool.importers.load import Progress, add_command, import_file, import_opened
from tradepool.importers.opening import ImportFile, open_import
from tradepool.importers.rows import (
    Defaults,
    IdleRow,
    ImportReport,
    MarketHistory,
    Refusal,
    RefusedRow,
    RepeatedRow,
    TradeRow,
)

__all__ = [
    "Defaults",
    "Format",
    "IdleRow",
    "ImportFile",
    "ImportReport",
    "MarketHistory",
    "Progress",
    "Refusal",
    "RefusedRow",
    "RepeatedRow",
    "TradeRow",
    "add_command",
    "import_file",
    "import_opened",
    "open_import",
    "resolved",
]
