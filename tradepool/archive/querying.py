"""SQL over live and archived trades as one table; a query reads that table and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tradepool.archive.columns import COLUMNS, Stored
from tradepool.archive.database import connected, duckdb_module, parts_table, quoted, translated
from tradepool.archive.folder import ArchiveFolder
from tradepool.archive.parts import write_rows
from tradepool.errors import InvalidQuery, ResourceUnavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["ROWS_MAX", "QueryResult", "run_query"]

ROWS_MAX = 10_000
"""Rows that a query returns unless asked for another number."""
_LIMIT_MAX = 10**9
"""More rows than any memory holds; a larger number is a mistake."""


class QueryResult(NamedTuple):
    """A query's rows; `is_cut` says that there were more than asked for."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    is_cut: bool


def run_query(
    query: str, live: Iterable[Stored], folder: ArchiveFolder, *, limit: int = ROWS_MAX
) -> QueryResult:
    """What one SELECT says of the table `trades`: `live`, and what `folder` has beside it.

    `live` is read first and passes through a temporary file. Columns are those of the archive, and
    `archived`. The query can reach no other file, no network, and can write nothing.

    Raises: InvalidQuery; ResourceUnavailable when memory or disk do not suffice; Misconfigured.
    """
    _check(query)
    _check_limit(limit)
    with tempfile.TemporaryDirectory(prefix="tradepool-sql-") as temporary:
        work = Path(temporary)
        live_part = work / "live.parquet"
        write_rows(live_part, live)
        with connected(work / "spill") as database:
            with translated(str(folder.path)):
                _create_view(database, live_part, folder.parts())
            return _answer(database, query, limit)


def _check(query: str) -> None:
    """One SELECT (or DESCRIBE, SUMMARIZE, VALUES, FROM): nothing that writes, attaches, sets or calls."""
    duckdb = duckdb_module()
    if not _is_text(query):
        raise InvalidQuery("not a text", field="query", value=query, cure="SELECT … FROM trades")
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as problem:
        raise _invalid(problem) from problem
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise InvalidQuery("not a single SELECT", field="query", value=query, cure="SELECT … FROM trades")


def _is_text(query: object) -> bool:
    """Whether DuckDB can read it: half a surrogate pair has no bytes."""
    try:
        return isinstance(query, str) and bool(query.encode())
    except UnicodeEncodeError:
        return False


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or not 0 < limit <= _LIMIT_MAX:
        raise InvalidQuery("out of range", field="limit", value=limit, cure=f"give 1 to {_LIMIT_MAX}")


def _create_view(database: DuckDBPyConnection, live: Path, parts: list[Path]) -> None:
    """The view `trades`, and then nothing but its files within reach.

    The live file was written before the parts were listed: a trade that moved meanwhile is in both, and
    the live one wins.
    """
    columns = ", ".join(COLUMNS)
    view = f"SELECT {columns}, false AS archived FROM {_table([live])}"
    if parts:
        view += (
            f" UNION ALL SELECT {columns}, true AS archived FROM {_table(parts)}"
            f" WHERE trade_id NOT IN (SELECT trade_id FROM {_table([live])})"
        )
    database.execute(f"CREATE VIEW trades AS {view}")
    database.execute(f"SET allowed_paths = {_list([live, *parts])}")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")


def _answer(database: DuckDBPyConnection, query: str, limit: int) -> QueryResult:
    duckdb = duckdb_module()
    try:
        found = database.execute(query)
        columns = tuple(column[0] for column in found.description)
        rows = found.fetchmany(limit + 1)
    except (duckdb.OutOfMemoryException, duckdb.IOException) as problem:
        raise ResourceUnavailable(f"the query: {_words(problem)}; ask for less at a time") from problem
    except duckdb.Error as problem:
        raise _invalid(problem) from problem
    return QueryResult(columns, rows[:limit], len(rows) > limit)


def _invalid(problem: Exception) -> InvalidQuery:
    return InvalidQuery(_words(problem), cure="see 'DESCRIBE trades' for the columns")


def _words(problem: Exception) -> str:
    """DuckDB's own words, without the picture of the line that it draws below them."""
    return " ".join(str(problem).partition("\n\nLINE ")[0].split())


def _table(paths: list[Path]) -> str:
    return parts_table(_list(paths))


def _list(paths: list[Path]) -> str:
    return "[" + ", ".join(map(quoted, paths)) + "]"
