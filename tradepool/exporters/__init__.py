"""Trades as files for others: JSON lines, CSV, Parquet, and the JSON that freqtrade's own tools read.

`write_export` streams: memory does not grow with the trades, and the file is there whole or not at all. Every
format holds each trade exactly, so that `importers` bring it back into a pool as it was.
"""

from tradepool.exporters.writing import ExportFormat, choose_format, write_export

__all__ = ["ExportFormat", "choose_format", "write_export"]
