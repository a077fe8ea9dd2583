"""A page on its way through the fleet: an audit's worker finds, another message tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.conftest import Fleet, running_fleet
from tests.fleet.trades import new_trade
from tests.waiting import eventually
from tests.webhooks import SECRET, Webhook, webhook

RETRIES_END_S = 60.0


@pytest.fixture
def hook() -> Iterator[Webhook]:
    """It fails twice."""
    with webhook(500, 503) as made:
        yield made


@pytest.fixture
def paging_fleet(tmp_path: Path, hook: Webhook) -> Iterator[Fleet]:
    secret = tmp_path / "webhook"
    secret.write_text(hook.url)
    with running_fleet(tmp_path / "pool", visibility_timeout_s=900, audit_webhook_url_file=secret) as fleet:
        fleet.start_workers()
        yield fleet


@pytest.mark.slow
@pytest.mark.usefixtures("server_binary")
def test_a_webhook_that_fails_twice_gets_the_page_the_third_time(paging_fleet: Fleet, hook: Webhook):
    fleet, pool = paging_fleet, paging_fleet.pool
    trade_id = pool.add_trade(new_trade()).trade_id
    keys, shard = pool.store.keys, pool.store.shard_of_trade(trade_id)
    pool.redis.hdel(keys.records(shard, keys.bucket_of(trade_id)), trade_id)

    fleet.call("audit.check_all_trades", deep=True)

    eventually(lambda: len(hook.pages) == 3, RETRIES_END_S)
    eventually(lambda: pool.store.undelivered_pages() == {})
    assert {page["run_id"] for page in hook.pages} == {pool.get_last_audit()["run_id"]}
    assert trade_id in hook.pages[-1]["text"]
    assert len(pool.store.known_critical()) == 1
    written = [path for path in fleet.settings.data_dir.rglob("*") if path.is_file()]
    assert all(SECRET.encode() not in path.read_bytes() for path in written)
    assert all(SECRET not in node.logs() for node in fleet.nodes)
    assert [page["report"] for page in hook.pages if SECRET in str(page)] == []
    assert not any(SECRET.encode() in pool.redis.dump(key) for key in pool.redis.scan_iter("*"))


@pytest.mark.usefixtures("server_binary")
def test_a_page_that_nobody_took_is_critical_and_known_to_health():
    """The last attempt ends in `on_failure`, as Celery calls it."""
    from tasks.app import app  # noqa: PLC0415 - the app of this process, with no pool of its own
    from tasks.paging import ATTEMPTS_MAX, page  # noqa: PLC0415

    given_up = []

    class Reports:
        def give_up(self, run_id: str, problem: Exception) -> None:
            given_up.append((run_id, str(problem)))

    class Services:
        reports = Reports()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(app), "services", Services())
        page.on_failure(RuntimeError("HTTP 500"), "id", ["run-1"], {}, None)
    assert given_up == [("run-1", "HTTP 500")]
    assert page.max_retries == ATTEMPTS_MAX - 1
