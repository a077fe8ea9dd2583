"""A program's log: a line is one event, as JSON where nobody watches, and holds no secret."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from tradepool.logger import Logger
from tradepool.program_log import OURS, configure_log, without_secrets

PASSWORD = "S3CRET/pw@x"
IN_A_VARIABLE = "of nobody's concern"


@pytest.fixture(autouse=True)
def as_configured_before() -> Iterator[None]:
    root = logging.getLogger()
    before, handlers, level = structlog.get_config(), root.handlers, root.level
    yield
    structlog.configure(**before)
    for handler in root.handlers:
        if handler not in handlers:
            with contextlib.suppress(OSError):
                handler.close()
    root.handlers = handlers
    root.setLevel(level)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.contextvars.clear_contextvars()


def fail() -> None:
    trade = {"notes": IN_A_VARIABLE}
    assert trade
    raise ConnectionError(f"cannot reach redis://ann:{PASSWORD}@127.0.0.1:1/0")


def lines_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_our_lines_and_those_of_libraries_are_json_with_the_task_they_belong_to(tmp_path):
    file = tmp_path / "log"
    configure_log("auto", "info", others=logging.INFO, file=str(file))
    structlog.contextvars.bind_contextvars(task_id="task-1", trade_id="t-1")
    Logger("tasks.files").info("archived", trades=3)
    structlog.contextvars.clear_contextvars()
    data = {"name": "tasks.x", "id": "task-2"}
    logging.getLogger("celery.app.trace").info("Task %s\nsucceeded", "x", extra={"data": data})
    ours, theirs = lines_of(file)
    assert {"timestamp"} < set(ours)
    assert ours | {"timestamp": ""} == {
        "event": "archived",
        "trades": 3,
        "task_id": "task-1",
        "trade_id": "t-1",
        "level": "info",
        "logger": "tasks.files",
        "timestamp": "",
    }
    assert (theirs["event"], theirs["task"], theirs["task_id"]) == ("Task x\nsucceeded", "tasks.x", "task-2")


def test_levels_of_ours_and_of_libraries_are_told_apart(tmp_path):
    file = tmp_path / "log"
    configure_log("json", "debug", file=str(file))
    Logger("tradepool.x").debug("ours")
    logging.getLogger("kombu").info("theirs")
    logging.getLogger("kombu").warning("theirs too")
    assert [line["event"] for line in lines_of(file)] == ["ours", "theirs too"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_is_written_not_even_in_a_traceback(form, tmp_path):
    file = tmp_path / "log"
    configure_log(form, "info", secrets=["hook-secret"], file=str(file))
    try:
        fail()
    except ConnectionError:
        Logger("tradepool.x").exception("failed", url="https://chat/hook-secret", n=1)
        logging.getLogger("redbeat").exception(
            "failed too: %s", f"rediss://:{PASSWORD}@h/0?password=hush-hush"
        )
    written = file.read_text(encoding="utf-8")
    assert "ConnectionError" in written
    assert "redis://ann:***@127.0.0.1:1/0" in written
    for secret in ("S3CRET", "pw@x", "hook-secret", "hush-hush", IN_A_VARIABLE):
        assert secret not in written


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_secret_is_hidden_in_whatever_form_a_line_quotes_it(form, tmp_path):
    file = tmp_path / "log"
    secrets = ["hush", "hush-later", 'pä"ss\\w', "per%cent/"]
    configure_log(form, "info", secrets=secrets, file=str(file))
    for secret in secrets:
        in_url = quote(secret, safe="")
        Logger("tasks.x").error("said", problem=f"{secret!r} {in_url}", given=secret, more=[secret])
    written = file.read_text(encoding="utf-8")
    assert len(written.splitlines()) == len(secrets)
    for part in ("hush", "later", "ss", "w'", "cent", "C3", "u00e4"):
        assert part not in written


def test_a_text_without_secrets_stays_as_it_is():
    for text in ("redis://127.0.0.1:6379/0 is away", "a@b: c", "http://h/?a=1", "x: trades@host ready."):
        assert without_secrets(text, ["", "a"]) == text


def test_a_line_that_cannot_be_written_ends_nothing():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no disk that is always full")
    configure_log("json", "info", file="/dev/full")
    Logger("tradepool.x").error("said")
