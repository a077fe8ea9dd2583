"""What a command's end means to the shell: the only place that turns errors into exit codes and lines."""

from __future__ import annotations

import traceback

import typer

from tradepool.errors import (
    Contended,
    JournalUnavailable,
    Misconfigured,
    PoolLocked,
    Rejected,
    StoreUnavailable,
    TradePoolError,
    Unavailable,
)

__all__ = ["BAD_INPUT", "FINDINGS", "INTERRUPTED", "OK", "UNREACHABLE", "report_failure"]

OK = 0
FINDINGS = 1
"""Findings, a failed check, or an error of ours."""
BAD_INPUT = 2
UNREACHABLE = 3
"""A server cannot be reached, or cannot take the work now."""
INTERRUPTED = 130
_PREFIX_OF_PYDANTIC = "Value error, "
"""What the parser of arguments lets through into its messages."""


def report_failure(error: Exception, *, debug: bool) -> int:
    """Say on stderr, in one line, what went wrong and what helps; the exit code.

    With `debug` the traceback comes first.
    """
    if debug:
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    code, line = _explained(error)
    printable = line.encode("utf-8", "backslashreplace").decode()
    typer.echo(f"tradepool: {' '.join(printable.split())}", err=True)
    return code


def _explained(error: Exception) -> tuple[int, str]:
    match error:
        case Rejected() | Misconfigured():
            return BAD_INPUT, str(error)
        case Unavailable() | Contended():
            return UNREACHABLE, _with_cure(error)
        case TradePoolError():
            return FINDINGS, f"{type(error).__name__}: {error}"
        case typer.TyperException():
            words = error.format_message().replace(_PREFIX_OF_PYDANTIC, "")
            return error.exit_code, f"{words} {_where_help_is(error)}"
    return (
        FINDINGS,
        f"internal error: {type(error).__name__}: {error}; see it whole with --debug and report it",
    )


def _with_cure(error: TradePoolError) -> str:
    """The error's own words, and what helps unless they say so already."""
    words = str(error).rstrip(".")
    match error:
        case StoreUnavailable() if ";" not in words:
            return f"{words}; start the server TRADEPOOL_REDIS_URL names, or give a pool's --embedded DIR"
        case JournalUnavailable() if ";" not in words:
            return f"{words}; see that the files worker runs, and TRADEPOOL_DATA_DIR is the pool's folder"
        case PoolLocked() if ";" not in words:
            return f"{words}; end that process, or reach its fleet by TRADEPOOL_REDIS_URL without --embedded"
    return words


def _where_help_is(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"(see '{context.command_path} --help')" if context is not None else ""
