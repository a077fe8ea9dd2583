"""Pages about new critical findings, to a webhook that may be there; its address stays secret."""

from __future__ import annotations

import logging
import socket

import pytest
from pydantic import SecretStr

from tasks.config import celery_settings
from tests.audit_plants import Scene, opened
from tests.webhooks import SECRET, webhook
from tradepool import TradePool, errors
from tradepool.audit.report import AuditReport, Finding, Severity
from tradepool.audit.reports import paging
from tradepool.audit.reports.kept import KeptReport
from tradepool.audit.reports.paging import message, post, webhook_url
from tradepool.settings import Settings, load_settings


@pytest.fixture
def scene(server, tmp_path, monkeypatch):
    """A pool that sends its pages on the spot."""
    with opened(server, tmp_path / "pool") as (pool, journal):
        monkeypatch.setattr(pool._services.reports, "_pager", None)
        yield Scene(pool, journal, monkeypatch)


@pytest.fixture
def told(scene):
    """Where its pages go."""
    with webhook() as hook:
        reports = scene.pool._services.reports
        reports._settings = reports._settings.model_copy(update={"audit_webhook_url": SecretStr(hook.url)})
        yield hook


def lose(scene, trade_id):
    scene.redis.hdel(scene.records(trade_id), trade_id)


def test_a_new_critical_fault_is_paged_once_with_what_a_person_needs(scene, told, capsys):
    lose(scene, scene.open_id)
    made = scene.pool.check_all_trades(deep=True)
    for level in ("deep", "digest"):
        scene.pool.check_all_trades(level=level)
    scene.pool.check_all_trades(deep=True)

    (page,) = told.pages
    assert page["run_id"] == made.run_id
    assert page["level"] == "deep"
    assert page["new_critical"] == 1
    assert [finding["subject"] for finding in page["findings"]] == [scene.open_id]
    assert "1 new critical findings, 1 in all" in page["text"]
    assert f"missing_in_redis: {scene.open_id}" in page["text"]
    assert "UTC" in page["text"] or "+00:00" in page["text"]
    assert page["report"].endswith(f"-deep-{made.run_id}.json")
    out = capsys.readouterr().out
    assert out.count("new critical faults") == 1
    assert SECRET not in out
    assert len(scene.pool.store.known_critical()) == 1
    assert scene.pool.store.undelivered_pages() == {}


def test_a_page_tells_of_what_is_new_alone(scene, told):
    lose(scene, scene.open_id)
    scene.pool.check_all_trades(deep=True)
    lose(scene, scene.closed_id)
    scene.pool.check_all_trades(deep=True)
    assert [finding["subject"] for finding in told.pages[1]["findings"]] == [scene.closed_id]
    assert "1 new critical findings, 2 in all" in told.pages[1]["text"]


def test_warnings_are_paged_to_nobody(scene, told):
    scene.redis.zadd(scene.keys.user_index(scene.shard, scene.user), {"nobody": 7})
    assert not scene.pool.check_all_trades(deep=True).ok
    assert told.pages == []


def test_a_page_that_was_not_taken_is_told_and_the_next_audit_pages_again(scene, told, capsys):
    told.answers += [500]
    lose(scene, scene.open_id)
    first = scene.pool.check_all_trades(deep=True)

    problem = scene.pool.store.undelivered_pages()[first.run_id]
    assert "HTTP 500" in problem
    assert SECRET not in problem
    assert len(scene.pool.store.known_critical()) == 0
    out = capsys.readouterr().out
    assert "a page could not be delivered" in out
    assert SECRET not in out

    second = scene.pool.check_all_trades(deep=True)
    assert [page["run_id"] for page in told.pages] == [first.run_id, second.run_id]
    assert scene.pool.store.undelivered_pages() == {}
    assert len(scene.pool.store.known_critical()) == 1


def test_what_nobody_could_be_told_of_is_forgotten_when_an_audit_as_deep_finds_nothing(scene, told):
    told.answers += [500]
    record = scene.redis.hget(scene.records(scene.open_id), scene.open_id)
    lose(scene, scene.open_id)
    scene.pool.check_all_trades(deep=True)
    scene.redis.hset(scene.records(scene.open_id), scene.open_id, record)
    scene.pool.check_all_trades()
    assert len(scene.pool.store.undelivered_pages()) == 1
    scene.pool.check_all_trades(deep=True)
    assert scene.pool.store.undelivered_pages() == {}


def test_a_webhook_that_is_away_for_weeks_fills_nothing(scene):
    for number in range(250):
        scene.pool.store.note_undelivered_page(f"run-{number}", "HTTP 500")
    undelivered = scene.pool.store.undelivered_pages()
    assert "run-249" in undelivered
    assert len(undelivered) <= 100


def test_without_a_webhook_a_new_fault_is_in_the_log_once(scene, capsys):
    lose(scene, scene.open_id)
    for _ in range(2):
        scene.pool.check_all_trades(deep=True)
    assert capsys.readouterr().out.count("new critical faults") == 1


def test_what_an_audit_without_a_webhook_logged_is_paged_by_the_next_one_that_has_one(scene, told):
    reports = scene.pool._services.reports
    paging_settings = reports._settings
    lose(scene, scene.open_id)
    reports._settings = paging_settings.model_copy(update={"audit_webhook_url": None})
    scene.pool.check_all_trades(deep=True)
    reports._settings = paging_settings
    for _ in range(2):
        scene.pool.check_all_trades(deep=True)
    assert [page["new_critical"] for page in told.pages] == [1]


def test_a_broker_that_is_away_leaves_the_page_to_the_next_audit(scene, told, monkeypatch):
    class Away:
        def send(self, run_id):
            raise errors.StoreUnavailable(f"the broker cannot be reached to send {run_id}")

    monkeypatch.setattr(scene.pool._services.reports, "_pager", Away())
    lose(scene, scene.open_id)
    made = scene.pool.check_all_trades(deep=True)
    assert scene.pool.store.undelivered_pages().keys() == {made.run_id}
    monkeypatch.setattr(scene.pool._services.reports, "_pager", None)
    scene.pool.check_all_trades(deep=True)
    assert len(told.pages) == 1


def test_a_page_whose_report_is_kept_no_more_is_undelivered(scene, told):
    with pytest.raises(errors.Undelivered, match="kept no more"):
        scene.pool._services.reports.deliver("gone")


def kept(*subjects, detail="as planted"):
    findings = tuple(
        Finding(rule="missing_in_redis", severity=Severity.CRITICAL, subject=subject, detail=detail)
        for subject in subjects
    )
    report = AuditReport(level="deep", started_at=7, duration_s=1, checked={}, findings=findings, run_id="r")
    return KeptReport.of(report, findings)


def test_no_users_text_calls_a_channel_hides_a_link_or_makes_a_line_of_its_own():
    text = message(kept("<!channel>", "<https://x.y|sign in>", "a\n• fine: all"), pool="p", file="f")["text"]
    assert "&lt;!channel&gt;" in text
    assert "<" not in text
    assert "a\\n• fine" in text


def test_a_page_names_the_first_findings_and_how_many_more_there_are():
    page = message(kept(*map(str, range(30)), detail="x" * 9_000), pool="p", file="f")
    assert len(page["findings"]) == paging.FINDINGS_TOLD_MAX
    assert "… and 20 more" in page["text"]
    assert len(page["text"]) < 4_000


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 429, 500, 503])
def test_whatever_is_no_success_is_a_failure_and_nobody_is_led_on(status):
    with webhook(status) as hook, pytest.raises(errors.Undelivered, match=f"HTTP {status}") as raised:
        post(SecretStr(hook.url), {"text": "x"})
    assert len(hook.paths) == 1
    assert_secret_kept(raised.value)


def assert_secret_kept(error):
    seen = set()
    while error is not None and error not in seen:
        seen.add(error)
        assert SECRET not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_a_webhook_that_is_not_there_is_named_by_its_setting_alone(caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(errors.Undelivered, match="Connection refused") as raised:
        post(SecretStr(f"http://127.0.0.1:{free_port()}/{SECRET}"), {"text": "x"})
    assert "TRADEPOOL_AUDIT_WEBHOOK_URL" in str(raised.value)
    assert_secret_kept(raised.value)
    assert SECRET not in caplog.text


def test_a_webhook_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(paging, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}"
        with pytest.raises(errors.Undelivered, match=r"no answer in 0\.05 s") as raised:
            post(SecretStr(url), {"text": "x"})
    assert_secret_kept(raised.value)


def test_what_speaks_no_http_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as strange, webhook() as hook:
        hook.url = f"https://127.0.0.1:{hook.url.split(':')[2]}"
        with pytest.raises(errors.Undelivered) as raised:
            post(SecretStr(hook.url), {"text": "x"})
        strange.close()
    assert_secret_kept(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://h/{SECRET}",
        f"file:///{SECRET}",
        f"http:///{SECRET}",
        f"h/{SECRET}",
        f"https://user:{SECRET}@h/",
        f"https://h/{SECRET} x",
        f"https://h/{SECRET}\n",
        f"https://h:port/{SECRET}",
        f"https://ü/{SECRET}",
        "",
    ],
)
def test_only_an_http_address_is_a_webhook_and_no_error_shows_it(url):
    with pytest.raises(errors.Misconfigured, match="TRADEPOOL_AUDIT_WEBHOOK_URL") as raised:
        webhook_url(Settings(audit_webhook_url=url))
    assert_secret_kept(raised.value)


def test_the_address_may_stand_in_a_file(tmp_path, monkeypatch):
    file = tmp_path / "webhook"
    file.write_text(f"https://h/{SECRET}\n")
    monkeypatch.setenv("TRADEPOOL_AUDIT_WEBHOOK_URL_FILE", str(file))
    settings = load_settings()
    assert webhook_url(settings).get_secret_value() == f"https://h/{SECRET}"
    assert SECRET not in repr(settings)
    both = settings.model_copy(update={"audit_webhook_url": SecretStr("https://h/x")})
    with pytest.raises(errors.Misconfigured, match="not both"):
        webhook_url(both)


def test_neither_celery_nor_a_message_holds_the_address():
    settings = Settings(audit_webhook_url=f"https://h/{SECRET}")
    assert SECRET not in repr(celery_settings(settings))
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


def test_an_address_that_is_none_is_told_when_the_pool_is_opened(scene):
    settings = scene.pool.settings.model_copy(update={"audit_webhook_url": SecretStr(f"h/{SECRET}")})
    with pytest.raises(errors.Misconfigured, match="TRADEPOOL_AUDIT_WEBHOOK_URL") as raised:
        TradePool.connect(settings)
    assert_secret_kept(raised.value)
