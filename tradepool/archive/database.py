"""DuckDB as the archive uses it: in memory, without network, bounded, its errors translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradepool.errors import Corrupt, Misconfigured, ResourceUnavailable

if TYPE_CHECKING:
    from types import ModuleType

    from duckdb import DuckDBPyConnection

__all__ = ["MEMORY_MAX", "THREADS", "connected", "duckdb_module", "parts_table", "quoted", "translated"]

MEMORY_MAX = "512MB"
"""What DuckDB may hold in memory; beyond it a query spills to its temporary folder, or fails."""
THREADS = 2


def duckdb_module() -> ModuleType:
    """The module `duckdb`. Raises: Misconfigured where it is not installed."""
    try:
        import duckdb  # noqa: PLC0415 - an extra: whoever never reads the archive does without
    except ImportError as missing:
        raise Misconfigured(
            "the archive needs DuckDB, which is not installed; pip install 'tradepool[archive]'"
        ) from missing
    return duckdb


@contextmanager
def connected(spill: Path | None = None) -> Iterator[DuckDBPyConnection]:
    """An empty database of this process, whose large queries spill to the folder `spill` (None: nowhere).

    It loads no extension and reaches no network. Raises: Misconfigured.
    """
    config: dict[str, Any] = {
        "memory_limit": MEMORY_MAX,
        "threads": THREADS,
        "temp_directory": "" if spill is None else str(spill),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "python_enable_replacements": False,
        # A part may be replaced by one of the same name: nothing is to be remembered of its content.
        "enable_external_file_cache": False,
    }
    connection = duckdb_module().connect(":memory:", config=config)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of our own queries on `what`.

    Raises: ResourceUnavailable when a file or the memory is the reason, Corrupt otherwise.
    """
    duckdb = duckdb_module()
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException, OSError) as problem:
        raise ResourceUnavailable(f"{what}: {_first_line(problem)}") from problem
    except duckdb.Error as problem:
        raise Corrupt(f"{what} cannot be read: {_first_line(problem)}") from problem


def parts_table(paths: str = "?") -> str:
    """Parts as a table, for SQL text; `paths` is a parameter or a list. Their folders name no column."""
    return f"read_parquet({paths}, hive_partitioning = false)"


def quoted(path: Path | str) -> str:
    """A path as a text of SQL, for where no parameter may stand."""
    return "'" + str(path).replace("'", "''") + "'"


def _first_line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
