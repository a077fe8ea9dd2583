"""A wrong setting is one line that names its variable and what it may be, never what it is."""

from __future__ import annotations

import traceback

import pytest

from tasks.app import PoolApp
from tradepool import TradePool
from tradepool.client.pool_client import PoolClient
from tradepool.errors import Misconfigured
from tradepool.settings import load_settings

HUSH = "hush-hush"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("batch_max", "0", "greater than or equal to 1"),
        ("shard_count", "many", "valid integer"),
        ("durability", "perhaps", "'journal' or 'redis'"),
        ("pnl_backend", "abacus", "auto"),
        ("flower_port", "70000", "65535"),
        ("journal_wait_s", "inf", "finite number"),
        ("visibility_timeout_s", "2", "greater than or equal to 3"),
        ("flower_basic_auth", "operator", "user:password"),
        ("flower_basic_auth", "operator:", "user:password"),
        ("flower_basic_auth", "ann:secret,bob", "user:password"),
    ],
)
def test_the_variable_and_its_limits_are_named(monkeypatch, name, value, told):
    monkeypatch.setenv(f"TRADEPOOL_{name.upper()}", value)
    with pytest.raises(Misconfigured, match=rf"^TRADEPOOL_{name.upper()}: .*{told}.*; correct") as refusal:
        load_settings()
    assert "\n" not in str(refusal.value)


def test_a_setting_given_by_hand_is_named_like_a_variable():
    with pytest.raises(Misconfigured, match=r"^TRADEPOOL_BATCH_MAX: "):
        load_settings(batch_max=0)


@pytest.mark.parametrize(
    "given",
    [
        {"redis_pasword": HUSH},
        {"redis_password": [HUSH]},
        {"redis_url": [f"redis://:{HUSH}@h/0"]},
        {"flower_basic_auth": {"user": HUSH}},
        {"flower_basic_auth": HUSH},
        {"flower_port": f"5555:{HUSH}"},
        {"redis_password_file": [HUSH]},
    ],
)
def test_what_was_given_is_told_nowhere(given):
    (name,) = given
    with pytest.raises(Misconfigured, match=f"^TRADEPOOL_{name.upper()}: ") as refusal:
        load_settings(**given)
    # As a log or `--debug` would show it; the test's own lines name the value as well.
    shown = traceback.TracebackException.from_exception(refusal.value, capture_locals=False)
    assert HUSH not in "".join(shown.format())
    assert refusal.value.__context__ is None


def test_a_mistyped_setting_is_told_so():
    with pytest.raises(Misconfigured, match="TRADEPOOL_REDIS_PASWORD: there is no such setting"):
        load_settings(redis_pasword=HUSH)


def test_a_mistyped_variable_is_a_warning_that_names_the_nearest_and_no_value(monkeypatch):
    monkeypatch.setenv("TRADEPOOL_SERVER_BIN", "server")
    monkeypatch.setenv("TRADEPOOL_REDIS_PASSWORD_FILE", "file")
    load_settings()
    monkeypatch.setenv("TRADEPOOL_REDIS_PASWORD", HUSH)
    words = "TRADEPOOL_REDIS_PASWORD is no setting and has no effect; the nearest is TRADEPOOL_REDIS_PASSWORD"
    with pytest.warns(UserWarning, match=f"^{words}$") as told:
        load_settings()
    assert len(told) == 1


def test_everybody_who_reads_the_environment_tells_it_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("TRADEPOOL_BATCH_MAX", "0")
    readers = (
        TradePool.connect,
        lambda: TradePool.embedded(tmp_path / "pool"),
        lambda: PoolClient.connect(spool=tmp_path / "spool"),
        lambda: PoolApp("worker", set_as_current=False).settings,
    )
    for read in readers:
        with pytest.raises(Misconfigured, match=r"^TRADEPOOL_BATCH_MAX: .*; correct this setting$"):
            read()
    assert not (tmp_path / "spool").exists()


def test_a_device_that_is_not_among_the_devices_is_refused():
    assert load_settings(pnl_devices=2, pnl_device=1).pnl_device == 1
    with pytest.raises(Misconfigured, match=r"TRADEPOOL_PNL_DEVICE: .*there are 2 devices"):
        load_settings(pnl_devices=2, pnl_device=2)


def test_there_are_no_more_devices_than_shards():
    with pytest.raises(Misconfigured, match=r"TRADEPOOL_PNL_DEVICES: .*there are 2 shards"):
        load_settings(shard_count=2, pnl_devices=3)
    with pytest.raises(Misconfigured, match=r"TRADEPOOL_PNL_BACKEND: .*'numba'"):
        load_settings(pnl_backend="CUDA")
