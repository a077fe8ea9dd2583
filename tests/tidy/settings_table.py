"""The table of settings in docs/operations.md, made from `Settings` itself.

Run as a program (`make docs`) it puts the present table into the document.
"""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

from tests.tidy.source_tree import ROOT
from tradepool.settings import Settings

DOCUMENT = ROOT / "docs" / "operations.md"
BEGIN = "<!-- settings: written by `make docs` -->"
END = "<!-- end of settings -->"


def rendered() -> str:
    """One row for each setting: its variable, its default, and its docstring in `Settings`."""
    prefix = Settings.model_config["env_prefix"]
    docs = _docstrings()
    rows = [
        f"| `{prefix}{name.upper()}` | {_default(name)} | {docs.get(name, '')} |"
        for name in Settings.model_fields
    ]
    return "\n".join(["| variable | default | what it is |", "|---|---|---|", *rows])


def written() -> str:
    """The table as the document has it."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def undocumented() -> list[str]:
    """Settings without a docstring of their own."""
    return sorted(Settings.model_fields.keys() - _docstrings().keys())


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return "this machine's"
    return "none" if field.default is None else f"`{field.default}`"


def _docstrings() -> dict[str, str]:
    """Field → the string that stands below it in the class."""
    tree = ast.parse((ROOT / "tradepool" / "settings.py").read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def _write(document: Path) -> None:
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    document.write_text(f"{before}{BEGIN}\n{rendered()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    _write(DOCUMENT)
