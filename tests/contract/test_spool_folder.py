"""One folder for the spools of many processes: nobody's commands are lost, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from tests.loose_trades import buy
from tests.waiting import eventually
from tradepool.client import PoolClient, spool_folder
from tradepool.client.confirmation import Finished
from tradepool.client.pending import Pending
from tradepool.client.spool import NewEntry, Spool
from tradepool.client.spool_folder import Siblings, open_spool
from tradepool.errors import Corrupt, Misconfigured, PoolLocked, StoreUnavailable
from tradepool.settings import Settings

HOLDER = """
import sys
from tradepool.client.spool import NewEntry
from tradepool.client.spool_folder import open_spool
spool, _ = open_spool(sys.argv[1], entries_max=1000)
spool.append([NewEntry(f"killed-{n}", "trades", f"t-{n}", None, b"{}") for n in range(int(sys.argv[2]))])
print("kept", flush=True)
sys.stdin.read()
"""

FULL = 2
"""SQLite's number for a sync at the end of each transaction."""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return f"{tmp_path / 'spools'}/"


@pytest.fixture
def nowhere(settings: Settings) -> Settings:
    return settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})


def entry(name: str) -> NewEntry:
    return NewEntry(name, "trades", "t", None, b"{}")


def ids(spool: Spool) -> list[str]:
    return [kept.command_id for kept in spool.entries()]


def leave(folder: str, commands: int) -> None:
    """What a process has left in a slot that nobody holds."""
    with closing(Spool(Path(folder) / "999.spool", entries_max=1000)) as left:
        left.append([entry(f"killed-{number}") for number in range(commands)])


def kill_a_holder(folder: str, commands: int) -> None:
    """A process takes a slot, keeps `commands` in it, and is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder, str(commands)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout.readline() == "kept\n"
        finally:
            holder.send_signal(signal.SIGKILL)


def test_each_process_has_a_slot_and_a_free_one_is_used_again(folder: str):
    opened = [open_spool(folder, entries_max=10)[0] for _ in range(3)]
    assert [path.name for path in sorted(Path(folder).glob("*.spool"))] == [f"00{n}.spool" for n in range(3)]
    opened[1].append([entry("left")])
    opened[1].close()
    again, _ = open_spool(folder, entries_max=10)
    assert ids(again) == ["left"]
    for spool in (opened[0], opened[2], again):
        spool.close()


def test_a_full_folder_says_so(folder: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spool_folder, "SLOTS_MAX", 1)
    only, _ = open_spool(folder, entries_max=10)
    with pytest.raises(PoolLocked, match="another folder"):
        open_spool(folder, entries_max=10)
    only.close()


def test_what_a_killed_process_left_is_moved_in_order_and_once(folder: str):
    own, siblings = open_spool(folder, entries_max=2000)
    kill_a_holder(folder, 700)
    own.append([entry("own")])
    taken = [page for _ in range(3) if (page := siblings.take_over(own, patience_s=0))]
    assert [len(page) for page in taken] == [500, 200]
    assert ids(own) == ["own", *(f"killed-{n}" for n in range(700))]
    assert siblings.take_over(own, patience_s=0) == []
    own.close()


def test_a_slot_is_left_for_a_while_to_the_process_that_is_started_again(
    folder: str, monkeypatch: pytest.MonkeyPatch
):
    now_s = 0.0
    monkeypatch.setattr(spool_folder.time, "monotonic", lambda: now_s)
    own, siblings = open_spool(folder, entries_max=10)
    other, _ = open_spool(folder, entries_max=10)
    other.append([entry("left")])
    assert siblings.take_over(own) == [], "it is held"
    other.close()
    assert siblings.take_over(own) == []
    now_s = spool_folder.PATIENCE_S - 1
    back, _ = open_spool(folder, entries_max=10)
    assert siblings.take_over(own) == [], "held again"
    back.close()
    now_s += spool_folder.PATIENCE_S
    assert siblings.take_over(own) == [], "the time begins anew"
    now_s += spool_folder.PATIENCE_S
    assert [kept.command_id for kept in siblings.take_over(own)] == ["left"]
    own.close()


def test_no_more_is_taken_over_than_there_is_room_for(folder: str):
    own, siblings = open_spool(folder, entries_max=3)
    leave(folder, 5)
    own.append([entry("own")])
    assert len(siblings.take_over(own, patience_s=0)) == 2
    assert siblings.take_over(own, patience_s=0) == []
    own.remove([kept.seq for kept in own.entries()])
    assert [kept.command_id for kept in siblings.take_over(own, patience_s=0)] == [
        f"killed-{n}" for n in (2, 3, 4)
    ]
    own.close()


def test_a_crash_between_the_two_files_leaves_a_command_in_both_and_it_is_kept_once(
    folder: str, monkeypatch: pytest.MonkeyPatch
):
    own, siblings = open_spool(folder, entries_max=10)
    leave(folder, 2)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "remove", crash)
        with pytest.raises(KeyboardInterrupt):
            siblings.take_over(own, patience_s=0)
    assert siblings.take_over(own, patience_s=0) == []
    assert ids(own) == ["killed-0", "killed-1"]
    assert len(own) == 2
    with closing(Spool(Path(folder) / "999.spool", entries_max=10)) as other:
        assert len(other) == 0
    own.close()


def test_a_damaged_spool_of_another_holds_up_nobody_and_is_told_once(folder: str):
    own, siblings = open_spool(folder, entries_max=10)
    (Path(folder) / "001.spool").write_bytes(b"no database" * 1000)
    left = Spool(Path(folder) / "002.spool", entries_max=10)
    left.append([entry("left")])
    left.close()
    with structlog.testing.capture_logs() as logs:
        assert [kept.command_id for kept in siblings.take_over(own, patience_s=0)] == ["left"]
        assert siblings.take_over(own, patience_s=0) == []
    assert [line["event"] for line in logs].count("a spool cannot be taken over") == 1
    own.close()


def test_what_a_command_waits_for_is_told_until_it_has_finished():
    pending = Pending(Spool(None, entries_max=10), resend_s=60)
    pending.give([entry("a")])
    (first,) = pending.schedule.next_batch(10, now_s=0.0)
    assert pending.oldest_sent("trades", waiting_s=3600) is None
    assert pending.oldest_sent("trades", waiting_s=0) == first
    pending.explain(first, "its trade")
    assert pending.lag().problem == "its trade"
    pending.finish([Finished(first, None)], [None])
    assert pending.lag().problem == ""


def test_a_spool_that_is_damaged_is_named(nowhere: Settings, tmp_path: Path):
    file = tmp_path / "bot.spool"
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(Corrupt, match=rf"^the spool {file} is damaged: .*; move the file away$"):
        PoolClient.connect(nowhere, spool=file)


def test_a_client_takes_over_at_its_start_and_while_it_runs(
    folder: str, nowhere: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tradepool.client.sending.LOOK_EVERY_S", 0.05)
    patient = Siblings.take_over
    monkeypatch.setattr(
        Siblings, "take_over", lambda self, spool, patience_s=0.0: patient(self, spool, patience_s=patience_s)
    )
    first = PoolClient.connect(nowhere, spool=folder)
    second = PoolClient.connect(nowhere, spool=folder)
    first.add_trade(buy(trade_id="t-1"))
    first.close(timeout=0)
    eventually(lambda: second.pending() == 1)
    second.close(timeout=0)
    third = PoolClient.connect(nowhere, spool=folder)
    assert third.pending() == 1
    third.close(timeout=0)


def log_of(nowhere: Settings, check: Callable[[PoolClient], None], **options: object) -> list[str]:
    """The log of a client whose broker is away, while `check` is made."""
    with structlog.testing.capture_logs() as logs:
        client = PoolClient.connect(nowhere, **options)
        try:
            check(client)
        finally:
            client.close(timeout=0)
    return [line["event"] for line in logs]


def test_a_bot_learns_that_the_pool_is_behind_before_its_spool_is_full(nowhere: Settings, folder: str):
    def check(client: PoolClient) -> None:
        assert client.lag().commands == 0
        assert client.lag().oldest_s == 0.0
        client.add_trade(buy(trade_id="t-0"))
        eventually(lambda: "BROKER_URL" in client.lag().problem)
        lag = client.lag()
        assert (lag.commands, lag.unsent, lag.room) == (1, 1, 3)
        assert 0 < lag.oldest_s <= client.lag().oldest_s
        client.add_trades([buy(trade_id=f"t-{n}") for n in (1, 2, 3)])
        with pytest.raises(StoreUnavailable, match=r"spool_max .now: .*BROKER_URL"):
            client.add_trade(buy(trade_id="t-4"))

    events = log_of(nowhere, check, spool=folder, spool_max=4)
    assert events.count("the pool is behind") == 1


def test_a_client_whose_broker_is_away_says_so_once(
    nowhere: Settings, folder: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tradepool.client.sending.RETRY_PAUSE_MAX_S", 0.01)
    sent: list[None] = []

    def check(client: PoolClient) -> None:
        send = client._delivery._sender.send_each

        def counted(*args: object) -> list[str]:
            sent.append(None)
            return send(*args)

        monkeypatch.setattr(client._delivery._sender, "send_each", counted)
        client.add_trade(buy(trade_id="t-0"))
        eventually(lambda: len(sent) > 10)

    events = log_of(nowhere, check, spool=folder)
    assert events.count("cannot send") == 1


def test_a_forked_child_is_told_to_connect_a_client_of_its_own(nowhere: Settings, folder: str):
    client = PoolClient.connect(nowhere, spool=folder)
    child = os.fork()
    if child == 0:
        try:
            client.close()
            # What the parent has open is still open.
            client._delivery.pending.spool.entries()
            client.add_trade(buy(trade_id="t-0"))
        except Misconfigured:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    client.add_trade(buy(trade_id="t-1"))
    assert client.pending() == 1
    client.close(timeout=0)


def test_a_child_that_outlives_its_bot_does_not_hold_the_bots_spool(tmp_path: Path):
    bot = Spool(tmp_path / "spool", entries_max=10)
    bot.append([entry("kept")])
    goes_on, ends = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ends)
        os.read(goes_on, 1)
        os._exit(0)
    try:
        with pytest.raises(PoolLocked):
            Spool(tmp_path / "spool", entries_max=10)
        bot.close()
        with closing(Spool(tmp_path / "spool", entries_max=10)) as successor:
            assert ids(successor) == ["kept"]
    finally:
        os.close(ends)
        os.close(goes_on)
        os.waitpid(child, 0)


def test_a_place_in_the_spool_is_given_once_also_by_a_later_process(tmp_path: Path):
    with closing(Spool(tmp_path / "spool", entries_max=10)) as first:
        first.append([entry("a"), entry("b")])
        with pytest.raises(Corrupt):
            first.append([entry("c"), entry("a")])
        given = [*first.append([entry("d")]), *first.entries()]
        first.remove([kept.seq for kept in first.entries()])
    with closing(Spool(tmp_path / "spool", entries_max=10)) as later:
        assert later.entries() == []
        (again,) = later.append([entry("e")])
    assert again.seq > max(kept.seq for kept in given)


def test_a_bot_can_start_and_trade_while_every_server_is_away(nowhere: Settings, tmp_path: Path):
    away = {
        "server": nowhere.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}),
        "cluster": nowhere.model_copy(update={"redis_url": "redis+cluster://127.0.0.1:1"}),
        "sentinel": nowhere.model_copy(update={"redis_url": "redis+sentinel://127.0.0.1:1/pool"}),
    }
    for name, settings in away.items():
        client = PoolClient.connect(settings, spool=tmp_path / name)
        trade_id = client.add_trade(buy(trade_id=f"t-{name}"))
        assert client.confirm([trade_id], timeout=0) == {trade_id: False}
        assert client.lag().commands == 1
        client.close(timeout=0)
    client = PoolClient.connect(away["cluster"], spool=tmp_path / "again")
    assert "cluster cannot be reached" in client.lag().problem
    client.close(timeout=0)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("batch_max", 0),
        ("batch_max", 1.5),
        ("spool_max", -1),
        ("linger_ms", "20"),
        ("linger_ms", float("nan")),
        ("linger_ms", -1),
        ("resend_s", 0),
        ("resend_s", -1),
        ("resend_s", float("inf")),
        ("resend_s", True),
    ],
)
def test_a_client_with_a_number_that_makes_no_sense_is_refused_before_it_opens_anything(
    nowhere: Settings, tmp_path: Path, name: str, wrong: object
):
    spool = tmp_path / "spool.db"
    with pytest.raises(Misconfigured, match=f"^{name}: .*; give a "):
        PoolClient.connect(nowhere, spool=spool, **{name: wrong})
    assert not spool.exists()


def test_what_is_given_after_something_was_let_go_is_synced_again(tmp_path: Path):
    with closing(Spool(tmp_path / "spool", entries_max=10)) as spool:
        (kept,) = spool.append([entry("a")])
        spool.remove([kept.seq])
        assert spool._db.execute("PRAGMA synchronous").fetchone() == (FULL,)
