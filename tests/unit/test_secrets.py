"""Passwords stay out of what others can read: Celery's configuration, messages of errors."""

from __future__ import annotations

import pytest
from celery import Celery

from tasks.beat import TickScheduler
from tasks.config import celery_settings
from tradepool.errors import Misconfigured
from tradepool.settings import Settings
from tradepool.store.connection import connect

PASSWORD = "S3CRETPW"
URLS = [
    f"redis://:{PASSWORD}@127.0.0.1:1/0",
    f"rediss://ann:{PASSWORD}@127.0.0.1:1/0",
    f"unix://:{PASSWORD}@/tmp/nobody.sock",
]


def app_of(settings: Settings) -> Celery:
    app = Celery("fresh", set_as_current=False)
    app.config_from_object(celery_settings(settings))
    app.settings = settings
    return app


@pytest.mark.parametrize("url", URLS)
def test_no_setting_of_celery_shows_a_password(url):
    for settings in (Settings(redis_url=url), Settings(redis_url="redis://h/0", broker_url=url)):
        app = app_of(settings)
        assert PASSWORD in app.conf.broker_url
        assert PASSWORD not in str(app.conf.table(with_defaults=True, censored=True))


@pytest.mark.filterwarnings("error::DeprecationWarning")
@pytest.mark.parametrize("url", URLS)
def test_beat_keeps_its_clock_at_the_broker(url):
    for settings in (Settings(redis_url=url), Settings(redis_url="redis://h/0", broker_url=url)):
        app = app_of(settings)
        TickScheduler(app, lazy=True)
        assert app.redbeat_conf.redis_url == url
        assert app.redbeat_conf.redbeat_redis_options["retry_period"] == -1
        assert PASSWORD not in str(app.conf.table(with_defaults=True, censored=True))


@pytest.mark.parametrize("password", ["hush/word", "hush#word", "hush?word"])
def test_a_url_that_cannot_be_read_is_not_repeated(password):
    with pytest.raises(Misconfigured, match="TRADEPOOL_REDIS_URL") as refusal:
        connect(Settings(redis_url=f"redis://:{password}@127.0.0.1:6379/0"))
    assert "hush" not in str(refusal.value)
    assert refusal.value.__suppress_context__
