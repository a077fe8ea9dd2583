"""Size, names and shape of the sources."""

from __future__ import annotations

import ast
import re

import tradepool
from tests.tidy.source_tree import (
    ROOT,
    Definition,
    committed_files,
    product_modules,
    suite_modules,
)
from tradepool import errors

PRODUCT_LINES_MAX = 300
TEST_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
VAGUE_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def test_a_product_module_fits_on_a_few_screens():
    sizes = {module.path: module.line_count for module in product_modules()}
    assert {path: lines for path, lines in sizes.items() if lines > PRODUCT_LINES_MAX} == {}


def test_a_test_module_stays_readable():
    sizes = {module.path: module.line_count for module in suite_modules()}
    assert {path: lines for path, lines in sizes.items() if lines > TEST_LINES_MAX} == {}


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{module.path}:{function.lineno} {function.name}"
        for module in (*product_modules(), *suite_modules())
        for function in module.functions()
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_module_or_folder_has_a_name_that_says_nothing():
    vague = [
        path
        for path in committed_files()
        if VAGUE_NAMES & {part.removesuffix(".py").strip("_") for part in path.split("/")}
    ]
    assert vague == []


def test_every_product_module_says_what_it_is_and_what_it_exports():
    silent = [
        module.path
        for module in product_modules()
        if not ast.get_docstring(module.tree) or not module.assigns("__all__")
    ]
    assert silent == []


def test_everything_public_has_a_docstring():
    silent = [
        f"{module.path}:{node.lineno} {node.name}"
        for module in product_modules()
        for node in _public_definitions(module.tree)
        if not ast.get_docstring(node)
    ]
    assert silent == []


def test_tradepool_exports_what_it_says_and_nothing_else():
    (package,) = (module for module in product_modules() if module.path == "tradepool/__init__.py")
    imports = [node for node in ast.walk(package.tree) if isinstance(node, ast.ImportFrom)]
    typed = {alias.name for node in imports if node.module.startswith("tradepool") for alias in node.names}
    assert {*typed, "__version__"} == set(tradepool.__all__)
    assert dir(tradepool) == sorted(tradepool.__all__)
    assert [name for name in tradepool.__all__ if not hasattr(tradepool, name)] == []


def test_the_tree_of_errors_is_the_one_in_its_docstring():
    classes = {name: getattr(errors, name) for name in errors.__all__ if name[0].isupper()}
    parents = {name: error.__bases__[0].__name__ for name, error in classes.items()}
    assert _drawn_parents(errors.__doc__ or "") == parents


def test_every_lua_script_explains_itself_before_it_begins():
    scripts = [path for path in committed_files() if path.endswith(".lua")]
    assert scripts
    for path in scripts:
        header = re.match(r"(#!lua.*\n)?(--.*\n)*", (ROOT / path).read_text(encoding="utf-8")).group().lower()
        missing = [word for word in ("keys", "argv", "return", "atomic") if word not in header]
        assert missing == [], path


def _public_definitions(owner: ast.Module | ast.ClassDef) -> list[Definition]:
    found = []
    for node in owner.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            found.append(node)
            found += _public_definitions(node) if isinstance(node, ast.ClassDef) else []
    return found


def _drawn_parents(text: str) -> dict[str, str]:
    """Child → parent, read from a tree drawn with box characters; the root's parent is Exception."""
    parents = {}
    path = [(-1, "Exception")]
    for line in text.splitlines():
        drawn = re.match(r"([\s│├└─]*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if drawn is None:
            continue
        indent, name = len(drawn[1]), drawn[2]
        while path[-1][0] >= indent:
            path.pop()
        parents[name] = path[-1][1]
        path.append((indent, name))
    return parents
