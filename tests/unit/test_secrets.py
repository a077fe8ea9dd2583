"""Passwords stay out of what others can read: Celery's configuration, messages of errors."""

from __future__ import annotations

import pytest
from celery import Celery
from redis.connection import parse_url

from tasks.beat import TickScheduler
from tasks.config import celery_settings
from tradepool.errors import Misconfigured
from tradepool.settings import Settings
from tradepool.store.address import broker_address, store_address
from tradepool.store.connection import connect

PASSWORD = "S3CRETPW"
URLS = [
    f"redis://:{PASSWORD}@127.0.0.1:1/0",
    f"redis://127.0.0.1:1/0?password={PASSWORD}",
    f"rediss://ann:{PASSWORD}@127.0.0.1:1/0",
    f"unix://:{PASSWORD}@/tmp/nobody.sock",
    f"unix:///tmp/nobody.sock?db=0&password={PASSWORD}",
]


def every_way(url: str) -> list[Settings]:
    """The URL as store and broker in one, and as a broker beside the store."""
    return [Settings(redis_url=url), Settings(redis_url="redis://h/0", broker_url=url)]


def app_of(settings: Settings) -> Celery:
    app = Celery("fresh", set_as_current=False)
    app.config_from_object(celery_settings(settings))
    app.settings = settings
    return app


@pytest.mark.parametrize("url", URLS)
def test_no_setting_of_celery_shows_a_password(url):
    for settings in every_way(url):
        app = app_of(settings)
        assert PASSWORD in app.conf.broker_url
        assert PASSWORD not in str(app.conf.table(with_defaults=True, censored=True))
        assert PASSWORD not in app.bugreport()
        assert PASSWORD not in app.connection_for_write().as_uri()


@pytest.mark.filterwarnings("error::DeprecationWarning")
@pytest.mark.parametrize("url", URLS)
def test_beat_keeps_its_clock_at_the_broker(url):
    for settings in every_way(url):
        app = app_of(settings)
        TickScheduler(app, lazy=True)
        clock, given = parse_url(app.redbeat_conf.redis_url), parse_url(url)
        assert {name: clock[name] for name in given} == given
        assert app.redbeat_conf.redbeat_redis_options["retry_period"] == -1
        assert PASSWORD not in str(app.conf.table(with_defaults=True, censored=True))


@pytest.mark.parametrize("password", ["hush/word", "hush#word", "hush?word"])
def test_a_url_that_cannot_be_read_is_not_repeated(password):
    for scheme in ("redis", "redis+cluster", "redis+sentinel"):
        with pytest.raises(Misconfigured, match="TRADEPOOL_REDIS_URL") as refusal:
            connect(Settings(redis_url=f"{scheme}://:{password}@127.0.0.1:6379/0"))
        assert "hush" not in str(refusal.value)
        assert refusal.value.__suppress_context__


def test_settings_and_addresses_do_not_print_a_password(tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    for settings in (
        Settings(redis_password=PASSWORD),
        Settings(redis_password_file=file),
        Settings(redis_url=f"redis://:{PASSWORD}@h/0", redis_username="ann"),
    ):
        address = store_address(settings)
        assert address.login["password"] == PASSWORD
        assert PASSWORD not in repr(address)
    assert PASSWORD not in repr(Settings(redis_password=PASSWORD, broker_password=PASSWORD))


def test_a_password_beside_the_url_takes_its_place_for_celery_too():
    settings = Settings(redis_url="redis://ann:old@h:1/2", redis_password="a/b@c%", redis_username="bob")
    app = app_of(settings)
    with app.connection_for_write() as connection:
        assert (connection.userid, connection.password, connection.virtual_host) == ("bob", "a/b@c%", "2")
    params = app.backend.connparams
    assert (params["username"], params["password"], params["db"]) == ("bob", "a/b@c%", 2)


def test_a_socket_keeps_its_database_and_its_login():
    settings = Settings(redis_url="unix:///tmp/a%20b.sock?db=3", redis_password="a/b")
    app = app_of(settings)
    params = app.backend.connparams
    assert (params["path"], params["password"], params["db"]) == ("/tmp/a b.sock", "a/b", 3)
    assert parse_url(broker_address(settings).redis_url)["db"] == 3


def test_the_brokers_login_is_its_own():
    settings = Settings(redis_password="one", broker_url="redis://h:1/0", broker_password="two")
    assert store_address(settings).login == {"password": "one"}
    assert broker_address(settings).login == {"password": "two"}


@pytest.mark.parametrize("given", ["redis_password_file", "redis_ca_file", "redis_cert_file"])
def test_a_file_that_is_not_there_is_named(given, tmp_path):
    settings = Settings(redis_url="rediss://h/0", **{given: tmp_path / "none"})
    with pytest.raises(Misconfigured, match=f"TRADEPOOL_{given.upper()}.*none"):
        store_address(settings)


def test_a_password_is_given_in_one_way(tmp_path):
    settings = Settings(redis_password="one", redis_password_file=tmp_path / "two")
    with pytest.raises(Misconfigured, match="not both"):
        store_address(settings)


@pytest.mark.parametrize("url", ["redis+cluster://h:1,i:2", "rediss+sentinel://h:1/pool"])
def test_celery_is_not_sent_where_it_cannot_go(url):
    with pytest.raises(Misconfigured, match="TRADEPOOL_BROKER_URL to a single server"):
        celery_settings(Settings(redis_url=url))
    assert app_of(Settings(redis_url=url, broker_url="redis://h:3/0")).conf.broker_url == "redis://h:3/0"
    with pytest.raises(Misconfigured, match="cannot live"):
        celery_settings(Settings(broker_url=url))
