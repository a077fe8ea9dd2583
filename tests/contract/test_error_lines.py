"""What goes wrong is told in one line with the right cure, and the right exit code."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.faults.simulator.__main__ import main as simulator
from tests.journal_entries import write_segments
from tests.loose_trades import buy
from tests.servers import PASSWORD, SENTINEL_PASSWORD, Server, replica_pair, sentinel_of
from tradepool import TradePool
from tradepool.broker import ChangeSender
from tradepool.cli import keeping, main
from tradepool.errors import (
    InvalidQuery,
    InvalidTrade,
    Misconfigured,
    SequenceGap,
    StoreUnavailable,
    TradePoolError,
)
from tradepool.files.checkpoint import checkpoint_of
from tradepool.files.journal import JOURNAL_NAME
from tradepool.fleet.dead_letters import DeadLetters
from tradepool.settings import Settings
from tradepool.store.address import broker_address, store_address
from tradepool.store.connection import connect
from tradepool.store.shard_count import check_shard_count

HUSH = "hush-hush"
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def server(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("told") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def pool_dir(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of two trades, closed again."""
    folder = tmp_path_factory.mktemp("told") / "pool"
    with TradePool.embedded(folder) as pool:
        pool.add_trades([buy(user_id="ann", trade_id="t1"), buy(user_id="bob", trade_id="t2")])
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and the one line on stderr."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return code, shown.err


def refusal_of(settings: Settings, kind: type[TradePoolError], words: str) -> str:
    """What connecting to the store says."""
    with closing(connect(settings)) as client, pytest.raises(kind, match=words) as refusal:
        check_shard_count(client, settings.shard_count)
    return str(refusal.value)


# The broker


def test_a_broker_that_is_down_names_its_own_setting(server):
    for settings, variable in (
        (Settings(redis_url=server.url, broker_url=f"redis://{NOBODY}/0"), "TRADEPOOL_BROKER_URL"),
        (Settings(redis_url=f"redis://{NOBODY}/0"), "TRADEPOOL_REDIS_URL"),
    ):
        words = rf"^the broker cannot be reached: .*; start the server {variable} names$"
        with ChangeSender(settings) as sender:
            with pytest.raises(StoreUnavailable, match=words):
                sender.send("trades", [])
            with pytest.raises(StoreUnavailable, match=words):
                sender.backlog("trades")
        with DeadLetters(settings) as dead, pytest.raises(StoreUnavailable, match=words):
            dead.count()


def test_a_broker_that_refuses_us_is_a_wrong_setting(server):
    url = f"redis://:{HUSH}@127.0.0.1:{server.port}/0"
    with ChangeSender(Settings(redis_url=server.url, broker_url=url)) as sender:
        for call in (lambda: sender.send("trades", []), lambda: sender.backlog("trades")):
            with pytest.raises(Misconfigured, match="password, in TRADEPOOL_BROKER_URL") as refusal:
                call()
            assert str(refusal.value).startswith("the broker refuses us: ")
            assert HUSH not in str(refusal.value)


def test_a_right_that_the_broker_denies_is_a_wrong_setting(server):
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "on", f">{HUSH}", "~*", "+@read", "+ping")
    settings = Settings(redis_url=f"redis://reader:{HUSH}@127.0.0.1:{server.port}/0")
    cure = "start this program with the role that docs/operations.md names for it, or .* administrator"
    with (
        ChangeSender(settings) as sender,
        pytest.raises(Misconfigured, match=f"the broker denies its user a right: .*; {cure}"),
    ):
        sender.send("trades", [])


def test_the_command_line_tells_the_broker_apart(server, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", server.url)
    monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TRADEPOOL_BROKER_URL", f"redis://:{HUSH}@127.0.0.1:{server.port}/0")
    code, line = told(capsys, "snapshot")
    assert (code, "TRADEPOOL_BROKER_URL" in line, HUSH in line) == (2, True, False)
    monkeypatch.setenv("TRADEPOOL_BROKER_URL", f"redis://{NOBODY}/0")
    code, line = told(capsys, "snapshot")
    assert (code, "TRADEPOOL_BROKER_URL" in line, "TRADEPOOL_REDIS_URL" in line) == (3, True, False)


# Sentinels, TLS and URLs


def test_sentinels_that_do_not_answer_are_named(capsys, monkeypatch):
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", f"redis+sentinel://ann:{HUSH}@{NOBODY},127.0.0.1:2/mymaster/0")
    code, line = told(capsys, "status")
    assert code == 3
    assert f"none of the Sentinels {NOBODY}, 127.0.0.1:2 answers" in line
    assert "'mymaster'" in line
    assert "<" not in line
    assert HUSH not in line


def test_a_service_that_sentinels_do_not_know_and_a_wrong_password_of_theirs_are_told(
    server_binary, tmp_path
):
    with (
        replica_pair(tmp_path) as (primary, _),
        sentinel_of(primary, "the-pool", tmp_path / "sentinel") as port,
    ):
        url = f"redis+sentinel://:{PASSWORD}@{NOBODY},127.0.0.1:{port}/another/0"
        given = Settings(redis_url=url, redis_sentinel_password=SecretStr(SENTINEL_PASSWORD))
        words = rf"none of the Sentinels {NOBODY}, .* knows a live primary of 'another'"
        assert len(refusal_of(given, StoreUnavailable, words)) < 250
        wrong = given.model_copy(update={"redis_sentinel_password": None})
        refusal_of(wrong, Misconfigured, "TRADEPOOL_REDIS_SENTINEL_PASSWORD")


def test_a_port_that_does_not_speak_tls_is_told_so(server):
    settings = Settings(
        redis_url=f"rediss://:{PASSWORD}@127.0.0.1:{server.port}/0",
        socket_timeout_s=0.1,
        connect_timeout_s=0.1,
    )
    refusal_of(settings, StoreUnavailable, "does it speak TLS[?] If not, write TRADEPOOL_REDIS_URL without")
    with ChangeSender(settings) as sender, pytest.raises(StoreUnavailable, match="does it speak TLS"):
        sender.backlog("trades")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+cluster://", "names no server; write redis[+]cluster://host:port,host:port$"),
        ("rediss+sentinel://", "names no server; write rediss[+]sentinel://host:port,host:port/service/db$"),
        ("redis://", "names no server; write redis://host:port/db$"),
        ("redis+cluster://h:1/3", "a cluster has only one; leave out"),
        (f"redis+cluster://:{HUSH}/3@h:1", "%2F"),
        ("redis+cluster://h:port", "cannot be read as redis[+]cluster://host:port,host:port; "),
        ("redis://h/abc", "cannot be read as redis://host:port/db; "),
        ("http://h", "redis[+]sentinel://"),
    ],
)
def test_a_wrong_url_is_told_what_is_wrong_with_it(url, words):
    with pytest.raises(Misconfigured, match=f"^TRADEPOOL_REDIS_URL .*{words}") as refusal:
        store_address(Settings(redis_url=url))
    assert HUSH not in str(refusal.value)


def test_a_brokers_url_is_offered_only_what_a_broker_can_be():
    with pytest.raises(
        Misconfigured, match="TRADEPOOL_BROKER_URL must begin with one of redis://"
    ) as refusal:
        broker_address(Settings(broker_url="amqp://h"))
    assert "cluster" not in str(refusal.value)
    with pytest.raises(Misconfigured, match="cannot live on a cluster"):
        broker_address(Settings(broker_url="redis+cluster://h:1"))


def test_settings_given_to_an_embedded_pool_are_not_repeated(tmp_path):
    given = Settings(redis_url=f"redis://:{HUSH}@h/0", redis_password=SecretStr(HUSH))
    with pytest.raises(Misconfigured, match="there is no such setting") as refusal:
        TradePool.embedded(tmp_path / "pool", settings=given)
    assert HUSH not in str(refusal.value)


# Files


@pytest.mark.parametrize("command", ["verify-log", "recover"])
def test_a_log_that_is_gone_is_not_taken_for_no_pool(capsys, tmp_path, command):
    log = tmp_path / JOURNAL_NAME
    write_segments(log, 12)
    log.unlink()
    for first_left in (checkpoint_of(log).name, "trade_pool.00000001.log"):
        code, line = told(capsys, command, "--embedded", tmp_path)
        assert (code, f"{JOURNAL_NAME} is gone, but {first_left}" in line) == (1, True)
        with pytest.raises(SequenceGap) as opened:
            TradePool.embedded(tmp_path)
        assert str(opened.value) in line
        checkpoint_of(log).unlink(missing_ok=True)
    for nothing in (tmp_path / "empty", tmp_path / "absent"):
        if nothing.name == "empty":
            nothing.mkdir()
        code, line = told(capsys, command, "--embedded", nothing)
        assert (code, "there is no pool in" in line) == (2, True)


def test_an_export_goes_where_a_file_can_be(capsys, pool_dir, tmp_path, monkeypatch):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    to_device, to_nothing = tmp_path / "device.csv", tmp_path / "nothing.csv"
    to_device.symlink_to("/dev/null")
    to_nothing.symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe.csv")
    with TradePool.embedded(pool_dir) as pool:
        for target, words in (
            (tmp_path / "nodir" / "x.csv", "make it, or name a file elsewhere"),
            (folder, "no regular file"),
            (to_device, "no regular file"),
            (to_nothing, "no regular file"),
            (tmp_path / "pipe.csv", "no regular file"),
        ):
            for force in (False, True):
                with pytest.raises(InvalidTrade, match=words):
                    pool.export(target, force=force)
    for force in ((), ("--force",)):
        code, line = told(capsys, "export", "-", *force, "--embedded", pool_dir)
        assert (code, "name a file" in line) == (2, True), line
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    code, line = told(capsys, "export", tmp_path / "x.csv", "--embedded", pool_dir)
    assert (code, "cannot be written" in line) == (2, True)
    assert to_device.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "device.csv",
        "folder.csv",
        "nothing.csv",
        "pipe.csv",
    ]


def test_rows_with_more_columns_than_fit_are_printed_one_value_a_line(capsys, pool_dir):
    assert main(["sql", "SELECT * FROM trades ORDER BY trade_id", "--embedded", str(pool_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 rows"
    assert {"trade_id: t1", "trade_id: t2", "user_id: ann", "archived: False"} <= set(lines)
    assert len([line for line in lines if set(line) == {"─"}]) == 1
    assert not [line for line in lines if line.endswith(": ")]
    assert main(["sql", "SELECT count(*) AS n FROM trades", "--embedded", str(pool_dir)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("1 row\n")
    assert "┃ n ┃" in shown
    assert main(["sql", "SELECT * FROM trades WHERE false", "--embedded", str(pool_dir)]) == 0
    assert capsys.readouterr().out == "0 rows\n"


def test_two_columns_of_one_name_are_refused_where_one_would_be_dropped(capsys, pool_dir):
    code, line = told(capsys, "sql", "SELECT 1 a, 2 a", "--json", "--embedded", pool_dir)
    assert (code, "two columns have one name (got a)" in line) == (2, True)
    assert main(["sql", "SELECT 1 a, 2 b", "--json", "--embedded", str(pool_dir)]) == 0
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "b": 2}]


def test_a_snapshot_that_nobody_writes_says_what_it_waits_for(
    server, capsys, monkeypatch, pool_dir, tmp_path
):
    shutil.copy(pool_dir / JOURNAL_NAME, tmp_path)
    monkeypatch.setenv("TRADEPOOL_REDIS_URL", server.url)
    monkeypatch.setenv("TRADEPOOL_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(keeping, "_SILENT_S", 0.1)
    monkeypatch.setattr(keeping, "_ANSWER_TIMEOUT_S", 0.5)
    assert main(["snapshot"]) == 3
    waiting, end = capsys.readouterr().err.splitlines()
    assert waiting == "waiting up to 0.5 s for the files worker to write it"
    assert "start it with 'tradepool up'" in end


@pytest.mark.parametrize(
    "arguments", [["--seeds", "9-3"], ["--seeds", "abc"], ["--seed", "1", "--runs", "0"]]
)
def test_the_fault_simulator_does_not_run_nothing(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["simulator", *arguments])
    with pytest.raises(SystemExit) as ended:
        simulator()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert repr(arguments[-1]) in shown.err


# Audits


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["check-all-trades", "--deep", "--level", "digest"], "give one of the two"),
        (["check-trades", "nobody"], "there is no such user"),
        (["quarantine", "t1", "--release", "--reason", "y"], "give one of the two"),
        (["check-all-trades", "--venue", "VENUE"], "nothing to compare"),
        (["check-all-trades", "--level", "medium"], "'medium' is not one of 'digest', 'standard', 'deep'"),
    ],
)
def test_what_an_audit_cannot_be_asked_is_refused_in_one_line(pool_dir, tmp_path, capsys, words, line):
    venue = tmp_path / "venue.json"
    venue.write_text('{"at": 1}')
    words = [str(venue) if word == "VENUE" else word for word in words]

    code, said = told(capsys, *words, "--embedded", pool_dir)

    assert (code, line in said, "Value error" in said) == (2, True, False), said


def test_a_file_where_audits_need_a_folder_is_named_with_the_cure(pool_dir, tmp_path, capsys):
    folder = tmp_path / "pool"
    shutil.copytree(pool_dir, folder)
    shutil.rmtree(folder / "audits", ignore_errors=True)
    (folder / "audits").write_text("")

    code = main(["check-all-trades", "--deep", "--embedded", str(folder)])

    assert code == 2
    assert "is a file, and audits need a folder there; move it away" in capsys.readouterr().err


def test_an_audit_called_with_two_levels_is_refused(pool_dir):
    with TradePool.embedded(pool_dir) as pool, pytest.raises(InvalidQuery, match="give one of the two"):
        pool.check_all_trades(deep=True, level="standard")
