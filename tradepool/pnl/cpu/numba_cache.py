"""Compiled code that is kept on disk, and never taken for that of other sources."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiled by numba, for threads that run beside each other; int64 wraps at 2⁶³.

    The code is kept beside the function's file, or where NUMBA_CACHE_DIR says. numba finds it there by the
    function's name and compiles anew when that file has changed, but does not look at what the file imports.
    So the name is made to tell that too.
    """
    function.__qualname__ += f"_{_content(function)}"
    return cast("Function", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def _content(function: Function) -> str:
    """A digest of the code of `function`, the constants it names and the compiled functions it calls."""
    code, names = function.__code__, function.__globals__
    named = {name: _identity(names[name]) for name in code.co_names if name in names}
    told = repr((code.co_code, code.co_consts, code.co_names, named))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _identity(named: object) -> str:
    # A compiled function's name tells its own content. Of a class or a module the name is enough.
    name = getattr(named, "__qualname__", None) or getattr(named, "__name__", None)
    return str(name or repr(named))
