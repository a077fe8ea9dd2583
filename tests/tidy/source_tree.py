"""The repository as the tidy tests see it: its committed files and its modules."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("tradepool", "tasks", "beat_schedule.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True, kw_only=True)
class Module:
    """One Python file: where it is, its text and its syntax tree, which is made when somebody asks for it."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def line_count(self) -> int:
        return len(self.text.splitlines())

    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    def assigns(self, name: str) -> bool:
        """Whether the module gives `name` a value at its top level."""
        return name in {
            ast.unparse(target)
            for node in self.tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        }


@cache
def committed_files() -> tuple[str, ...]:
    """Paths of all files that git would take, so that a checkout without git is tested as well."""
    return tuple(sorted(_walk(ROOT, tuple(_ignored_names()))))


def committed_texts() -> list[tuple[str, str]]:
    """(path, text) of every committed file that is text."""
    return [(path, text) for path in committed_files() if (text := _text(path)) is not None]


@cache
def product_modules() -> tuple[Module, ...]:
    return tuple(_module(path) for path in _python_files() if path.startswith(PRODUCT))


@cache
def suite_modules() -> tuple[Module, ...]:
    return tuple(_module(path) for path in _python_files() if path.startswith("tests/"))


def _python_files() -> list[str]:
    return [path for path in committed_files() if path.endswith(".py")]


def _module(path: str) -> Module:
    return Module(path=path, text=(ROOT / path).read_text(encoding="utf-8"))


def _walk(folder: Path, ignored: tuple[str, ...]) -> list[str]:
    found = []
    for entry in folder.iterdir():
        if any(fnmatch(entry.name, pattern) for pattern in ignored):
            continue
        found += _walk(entry, ignored) if entry.is_dir() else [entry.relative_to(ROOT).as_posix()]
    return found


def _ignored_names() -> list[str]:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    return [".git", *(line.rstrip("/") for line in lines if not line.startswith("#"))]


def _text(path: str) -> str | None:
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
