"""Habits that no linter knows: reasons, keys in one home, nothing of one machine in the sources."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from tests.tidy.source_tree import (
    ROOT,
    Module,
    committed_files,
    committed_texts,
    product_modules,
    suite_modules,
)

KEYS_HOME = "tradepool/store/keys.py"
REASON_WORDS_MIN = 3
LOCK = ROOT / "requirements.lock"
RUN_LOCK = ROOT / "requirements-run.lock"
DEVICE_LOCKS = {extra: ROOT / f"requirements-{extra}.lock" for extra in ("gpu", "gpu13")}


def test_a_broad_except_has_a_reason_beside_it():
    unexplained = [
        f"{module.path}:{handler.lineno}"
        for module in (*product_modules(), *suite_modules())
        for handler in _broad_handlers(module)
        if not _explained(module, handler)
    ]
    assert unexplained == []


def test_nothing_is_left_for_later():
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    assert _places(mark, committed_texts()) == []


def test_no_test_sleeps():
    sleeping = [
        f"{module.path}:{node.lineno}"
        for module in suite_modules()
        if "sleep" in module.text
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep"
    ]
    assert sleeping == [], "poll with a deadline instead"


def test_every_redis_key_is_spelled_in_one_module():
    elsewhere = [
        (path, text)
        for path, text in committed_texts()
        if path.startswith(("tradepool/", "tasks/")) and path.endswith((".py", ".lua")) and path != KEYS_HOME
    ]
    assert _places(re.compile(r"\btp:"), elsewhere) == []


def test_no_file_names_a_folder_of_somebodys_machine():
    folder = re.compile(r"(?<![\w.>})])/(?:work|root|home/\w+)(?=/)")
    assert _places(folder, committed_texts()) == []


def test_no_file_names_a_package_host():
    host = re.compile(
        r"pypi\.org|pythonhosted\.org|npmjs\.\w+|debian\.org|ubuntu\.com|crates\.io"
        r"|docker\.io|ghcr\.io|quay\.io|gcr\.io|registry\.\w+\.\w+"
    )
    assert _places(host, committed_texts()) == []


@pytest.mark.parametrize("lock", [LOCK, RUN_LOCK, *DEVICE_LOCKS.values()], ids=lambda lock: lock.name)
def test_a_lock_pins_by_hash_and_names_no_address(lock: Path):
    pins = re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip())
    pinned = re.compile(r"[\w.-]+==\S+( ; [^\\:]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [pin.splitlines()[0] for pin in pins if not pinned.fullmatch(pin)] == []


def test_every_dependency_of_the_project_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    run = _names_of(project["dependencies"]) | _names_of(optional["archive"])
    tools = _names_of(optional["embedded"]) | _names_of(optional["dev"])
    assert (run | tools) - _pins(LOCK).keys() == set()
    assert run - _pins(RUN_LOCK).keys() == set()
    assert (tools - run) & _pins(RUN_LOCK).keys() == set()


def test_production_runs_the_versions_that_the_tests_ran_with():
    tested = _pins(LOCK)
    assert {name: pins for name, pins in _pins(RUN_LOCK).items() if not pins <= tested[name]} == {}


@pytest.mark.parametrize("extra", DEVICE_LOCKS)
def test_a_worker_with_a_device_has_the_versions_of_production_and_those_of_its_extra(extra: str):
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    pins, run = _pins(DEVICE_LOCKS[extra]), _pins(RUN_LOCK)
    assert {name: pins.get(name) for name in run} == run
    assert _names_of(optional[extra]) <= pins.keys()


def test_scripts_can_be_run_by_anyone():
    scripts = [path for path in committed_files() if path.startswith(".ci/")]
    assert scripts
    assert all((ROOT / path).stat().st_mode & 0o111 == 0o111 for path in scripts)


def _names_of(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement).group().lower() for requirement in requirements}


def _pins(lock: Path) -> dict[str, set[str]]:
    """Name → the versions that the lock pins: one, or one for each platform."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, version in re.findall(
        r"^([\w.-]+)==([\w.!+-]+)", lock.read_text(encoding="utf-8"), re.MULTILINE
    ):
        found[name].add(version)
    return found


def _broad_handlers(module: Module) -> list[ast.ExceptHandler]:
    # Most modules have none, and are not parsed for it.
    if not re.search(r"Exception|\bexcept\s*:", module.text):
        return []
    handlers = [node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler)]
    broad = {"Exception", "BaseException"}
    return [handler for handler in handlers if _catches(handler, broad) and not _raises_again(handler)]


def _catches(handler: ast.ExceptHandler, names: set[str]) -> bool:
    return handler.type is None or bool(names & _names(handler.type))


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _names(node: ast.expr) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _explained(module: Module, handler: ast.ExceptHandler) -> bool:
    """Whether a comment of a few words stands on the line of the handler, above it or below it."""
    lines = module.text.splitlines()[handler.lineno - 2 : handler.lineno + 1]
    comments = [line.partition("#")[2] for line in lines]
    reasons = [re.sub(r"noqa(: [A-Z0-9, ]+)?", "", comment) for comment in comments]
    return any(len(re.findall(r"[a-z]+", reason)) >= REASON_WORDS_MIN for reason in reasons)


def _places(pattern: re.Pattern[str], texts: list[tuple[str, str]]) -> list[str]:
    return [
        f"{path}:{number}"
        for path, text in texts
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
