"""What the documents say is so: files and keys they name, settings, the example that runs."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tidy import settings_table
from tests.tidy.source_tree import ROOT, committed_files, committed_texts, product_modules
from tradepool import cli
from tradepool.store.keys import Keys

DOCUMENTS = tuple(path for path in committed_files() if path.endswith(".md"))
OLD_MODULES = (
    "trade_pool_core",
    "trade_pool_queries",
    "trade_pool_redis",
    "trade_pool_file",
    "trade_pool_global",
    "trade_pool_tokens",
    "user_trade_cache",
    "check_all_trades",
    "check_trades",
)
RELEASE = r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d"
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
DECISION_LINES_MAX = 60
EXAMPLE_TIMEOUT_S = 60


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str):
    text = _text(document)
    named = set(re.findall(r"`((?:tradepool|tasks|tests|docs|\.ci)/[\w./-]*)`", text))
    linked = set(re.findall(r"\]\((?!https?://|#)([^)#]+)", text))
    missing = {name for name in named if not (ROOT / name).exists()}
    missing |= {link for link in linked if not (ROOT / document).parent.joinpath(link).exists()}
    assert missing == set()


def test_every_kind_of_key_is_documented():
    document = _text("docs/redis-keys.md")
    undocumented = {family for family in _key_families() if family not in document}
    assert undocumented == set()


def test_every_setting_says_what_it_is():
    assert settings_table.undocumented() == []


def test_the_table_of_settings_is_the_one_in_the_code():
    assert settings_table.written() == settings_table.rendered(), "run: make docs"


def test_the_layers_of_the_architecture_are_those_that_the_linter_holds():
    contracts = tomllib.loads(_text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    held = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert _drawn_layers() == [{name.strip(" ()") for name in layer.split("|")} for layer in held]


def test_every_line_that_the_operations_explain_is_one_that_the_code_says():
    said = [line for module in product_modules() for line in _spoken(module.tree)]
    explained = _explained_lines()
    assert explained
    assert [line for line in explained if not any(_has(text, line.split("…")) for text in said)] == []


def test_every_old_module_has_a_new_home():
    document = _text("docs/seed-map.md")
    assert [module for module in OLD_MODULES if f"| `{module}` |" not in document] == []


def test_every_decision_is_listed_and_fits_on_a_page():
    decisions = [path for path in committed_files() if re.match(r"docs/adr/\d{4}-.*\.md", path)]
    numbers = [int(Path(path).name[:4]) for path in decisions]
    assert numbers == list(range(1, len(decisions) + 1))
    listed = _text("docs/adr/README.md")
    assert [path for path in decisions if f"({Path(path).name})" not in listed] == []
    assert [path for path in decisions if len(_text(path).splitlines()) > DECISION_LINES_MAX] == []


def test_the_changelog_keeps_its_form():
    lines = _text("CHANGELOG.md").splitlines()
    releases = [line for line in lines if line.startswith("## ")]
    assert lines[0] == "# Changelog"
    assert releases[0] == "## [Unreleased]"
    assert [line for line in releases[1:] if not re.fullmatch(RELEASE, line)] == []
    assert {line.removeprefix("### ") for line in lines if line.startswith("### ")} <= SECTIONS


def test_the_changelog_knows_the_version_of_the_project():
    version = tomllib.loads(_text("pyproject.toml"))["project"]["version"]
    assert version in _text("CHANGELOG.md")


def test_the_readme_lists_every_command():
    listed = _text("README.md").partition("## Command line")[2].split("```")[1]
    names = set(re.findall(r"(?:tradepool|\|) ([a-z-]+)", listed))
    assert names == {name for name, *_ in cli._COMMANDS}


def test_every_command_that_somebody_is_told_to_run_is_one():
    told = re.compile(r"['`]tradepool ([a-z][a-z-]*)")
    commands = {name for name, *_ in cli._COMMANDS}
    unknown = [
        (path, name)
        for path, text in committed_texts()
        for name in told.findall(text)
        if name not in commands
    ]
    assert unknown == []


@pytest.mark.usefixtures("server_binary")
def test_the_example_of_the_readme_runs(tmp_path: Path):
    example = re.search(r"```python\n(.*?)```", _text("README.md"), re.DOTALL).group(1)
    result = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _drawn_layers() -> list[set[str]]:
    """The layers as docs/architecture.md draws them: names with bars between, then what they are."""
    drawing = _text("docs/architecture.md").partition("## Layers")[2].split("```")[1]
    _, *lines = [line for line in drawing.strip().splitlines() if not line.startswith(" ")]
    return [set(re.split(r"\s{2,}", line)[0].split(" | ")) for line in lines]


def _explained_lines() -> list[str]:
    """What stands in the first column of the table "it says"; a value that varies is written as …"""
    table = _text("docs/operations.md").partition("| it says |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return [line for row in rows for line in re.findall(r"`([^`]+)`", row)]


def _spoken(tree: ast.Module) -> list[str]:
    """Every text of a module, as one piece where the source breaks it; … for what is put in."""
    return [
        "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        if isinstance(node, ast.JoinedStr)
        else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def _has(text: str, parts: list[str]) -> bool:
    return re.search(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None


def _key_families() -> set[str]:
    """The fixed part of every key that `Keys` spells, such as `:outbox` or `tp:prices`."""
    source = inspect.getsource(Keys)
    sharded = re.findall(r'f"\{self\._tags\[shard\]\}(\w+:?)', source)
    single = re.findall(r'"(tp:(?:\{pool\}:)?\w+:?)', source)
    assert sharded
    assert single
    return {f"tp:{{ss}}:{family}" for family in sharded} | set(single)
