"""Kept reports of real audits: in Redis and in the folder, whatever the disk, the clock or the users do."""

from __future__ import annotations

import json
import shutil
import threading

import msgspec
import pytest

from tests.audit_plants import Scene, opened
from tests.page_parts import read_page
from tradepool import errors
from tradepool.audit.report import AuditReport, Finding, RepairState, RepairStep, Severity
from tradepool.audit.reports import folder as folder_module
from tradepool.audit.reports.figures import BOOK_PNL, LAG_COMMITS, LAG_US, OPEN_TRADES, RECORDS
from tradepool.audit.reports.keeping import Reports
from tradepool.audit.reports.kept import FINDINGS_MAX
from tradepool.clock import now_us
from tradepool.store.keys import Keys

EVIL = "<script>alert(1)</script>[red]\x1b[31m\u202e"


@pytest.fixture
def opened_pool(server, tmp_path):
    with opened(server, tmp_path / "pool") as pair:
        yield pair


@pytest.fixture
def pool(opened_pool):
    return opened_pool[0]


@pytest.fixture
def scene(opened_pool, monkeypatch):
    return Scene(*opened_pool, monkeypatch)


@pytest.fixture
def reports(pool) -> Reports:
    return pool._services.reports


def report(run_id="run-1", level="digest", **fields):
    given = {"started_at": now_us(), "duration_s": 0.5, "checked": {"shards": 2}, "run_id": run_id}
    return AuditReport(level=level, **given | fields)


def critical(subject="t1", detail="as planted"):
    return Finding(rule="missing_in_redis", severity=Severity.CRITICAL, subject=subject, detail=detail)


def files(pool, pattern="*.json"):
    return sorted((pool.settings.data_dir / "audits").glob(pattern))


def warnings(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if "warning" in line]


def test_an_audit_is_kept_in_redis_and_whole_in_a_file(pool, scene):
    made = pool.check_all_trades(deep=True)

    (kept,) = pool.get_audits()
    assert kept == pool.get_last_audit()
    (path,) = files(pool)
    assert json.loads(path.read_bytes()) == kept
    assert kept["run_id"] == made.run_id
    assert path.name.endswith(f"-deep-{made.run_id}.json")
    assert kept["figures"] == made.figures
    assert set(made.to_dict()) <= set(kept)
    assert kept["started"].endswith("+00:00")


def test_a_report_has_the_figures_of_the_pool(pool, scene):
    pool.mark_to_market({"BTC/USDT": "107.5"})
    figures = pool.check_all_trades().figures
    assert figures[RECORDS] == 3
    assert figures[OPEN_TRADES] == 1
    assert figures[LAG_COMMITS] == figures[LAG_US] == 0
    assert figures[f"{BOOK_PNL}USDT"] == "7.50000000"


def test_the_lag_is_how_long_the_oldest_commit_has_waited_for_the_journal(pool, scene):
    scene.journal.close()
    scene.forge(scene.open_id)
    scene.patch.setattr(pool._services.reports._figures, "_now_us", lambda: now_us() + 60_000_000)
    figures = pool._services.reports.keep(report()).figures
    assert figures[LAG_COMMITS] == 1
    assert 60_000_000 <= figures[LAG_US] < 120_000_000


def test_audits_that_end_at_once_keep_all_reports_and_the_page_has_them(pool, reports):
    together = threading.Barrier(8)

    def keep(number):
        together.wait()
        reports.keep(report(f"run-{number}", findings=(critical(f"t{number}"),)))

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    runs = {f"run-{number}" for number in range(8)}
    assert {kept["run_id"] for kept in pool.get_audits()} == runs
    assert {json.loads(path.read_bytes())["run_id"] for path in files(pool)} == runs
    assert all(f"run-{number}" in read_page(pool).text for number in range(8))
    assert files(pool, "*.new") == []


def test_a_page_that_another_audit_has_overtaken_is_written_again(pool, reports, monkeypatch):
    write_page = reports.folder.write_page
    others = iter(["run-2", "run-3"])

    def slow(text, path=None):
        for run_id in others:
            reports.keep(report(run_id, level="deep"))
            break
        return write_page(text, path)

    monkeypatch.setattr(reports.folder, "write_page", slow)
    reports.keep(report(level="deep"))
    assert all(f"run-{number}" in read_page(pool).text for number in (1, 2, 3))


def test_a_quiet_digest_report_leaves_the_page_of_the_last_minutes_as_it_is(pool, reports, monkeypatch):
    reports.keep(report("first"))
    reports.keep(report("run-quiet"))
    assert "run-quiet" not in read_page(pool).text
    reports.keep(report("loud", findings=(critical(),)))
    assert "run-quiet" in read_page(pool).text
    monkeypatch.setattr(reports, "_now_us", lambda: now_us() + 700 * 1_000_000)
    reports.keep(report("run-later"))
    assert "run-later" in read_page(pool).text


def test_a_digest_report_that_ends_a_fault_is_on_the_page_at_once(pool, reports):
    found = Finding(rule="digest", severity=Severity.CRITICAL, subject="shard 00", detail="x")
    reports.keep(report("worse", findings=(found,), started_at=5))
    reports.keep(report("better", started_at=6))
    assert "Everything agrees" in read_page(pool).text


def test_a_report_that_is_kept_again_is_there_once_and_as_it_was(pool, reports):
    reports.keep(report(started_at=7, findings=(critical(),)))
    before = (pool.get_audits(), [path.read_bytes() for path in files(pool)])
    reports.keep(report(started_at=7, findings=(critical(),), duration_s=3))
    assert (pool.get_audits(), [path.read_bytes() for path in files(pool)]) == before
    assert before[0][0]["new_critical"] == 1


def test_so_many_reports_of_each_level_are_kept_as_the_settings_say(pool, reports):
    reports._settings = pool.settings.model_copy(update={"audits_kept": 2})
    for number in range(4):
        reports.keep(report(f"digest-{number}"))
    reports.keep(report("deep-0", level="deep"))

    wanted = ["deep-0", "digest-3", "digest-2"]
    assert [kept["run_id"] for kept in pool.get_audits()] == wanted
    assert [json.loads(path.read_bytes())["run_id"] for path in files(pool)] == wanted[::-1]
    assert [kept["run_id"] for kept in pool.get_audits(1, level="digest")] == ["digest-3"]
    with pytest.raises(errors.InvalidTrade, match="limit"):
        pool.get_audits(0)
    with pytest.raises(errors.InvalidQuery, match="level"):
        pool.get_audits(level="deeper")


def test_what_a_killed_writer_left_is_removed_after_an_hour(pool, reports, monkeypatch):
    reports.keep(report())
    left = pool.settings.data_dir / "audits" / "index.html.abcd.new"
    left.write_text("half a p")
    reports.keep(report("run-2"))
    assert left.exists()
    monkeypatch.setattr(reports, "_now_us", lambda: now_us() + 2 * 3_600_000_000)
    reports.keep(report("run-3"))
    assert not left.exists()


def test_without_a_data_folder_redis_has_the_report_and_one_warning_says_so(pool, reports, capsys):
    shutil.rmtree(pool.settings.data_dir)
    for number in range(3):
        reports.keep(report(f"run-{number}"))
    assert [kept["run_id"] for kept in pool.get_audits()] == ["run-2", "run-1", "run-0"]
    assert not pool.settings.data_dir.exists()
    assert len([line for line in warnings(capsys) if "not kept in the folder" in line]) == 1


@pytest.mark.parametrize("call", ["mkstemp", "fsync", "rename"])
def test_a_disk_that_takes_nothing_loses_no_report_and_no_page(pool, reports, monkeypatch, capsys, call):
    reports.keep(report("before"))
    page = (pool.settings.data_dir / "audits" / "index.html").read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device", f"/random/{now_us()}")

    with monkeypatch.context() as patch:
        place = {
            "mkstemp": (folder_module.tempfile, "mkstemp"),
            "fsync": (folder_module.os, "fsync"),
            "rename": (folder_module.Path, "replace"),
        }[call]
        patch.setattr(*place, full)
        kept = [reports.keep(report(f"run-{number}", findings=(critical(),))) for number in range(3)]

    assert all(one.findings for one in kept)
    assert len(pool.get_audits()) == 4
    assert len([line for line in warnings(capsys) if "not kept in the folder" in line]) == 1
    assert files(pool, "*.new") == []
    assert len(files(pool)) == 1
    if call != "fsync":
        assert (pool.settings.data_dir / "audits" / "index.html").read_bytes() == page


def test_a_report_that_only_the_folder_has_is_on_the_page_as_well(pool, reports):
    reports.keep(report("lost", level="deep", findings=(critical("t-lost"),)))
    pool.redis.delete(Keys.audits)
    assert pool.get_last_audit() is None
    reports.keep(report("next", level="standard"))
    page = read_page(pool)
    assert "lost" in page.text
    assert "t-lost" in page.text


def test_a_server_that_was_filled_anew_or_is_older_gets_back_the_reports_that_say_how_things_stand(
    pool, reports
):
    """Else an alert about what a deep audit found would end with the next digest report."""
    for run_id in ("older", "newest"):
        reports.keep(report(run_id, level="deep", findings=(critical(),)))
    pool.redis.hdel(Keys.audits, pool.store.kept_audits()[-1].field)
    reports.keep(report("after the loss of the last"))
    assert pool.get_audits(1, level="deep")[0]["run_id"] == "newest"
    pool.redis.delete(Keys.audits)
    reports.keep(report("next"))
    assert [kept["run_id"] for kept in pool.get_audits(10)] == ["next", "newest"]
    assert pool.get_audits(1, level="deep")[0]["severities"] == {"critical": 1}


def test_a_server_that_takes_nothing_more_has_the_report_in_the_folder(pool, reports, monkeypatch, capsys):
    def full(*_args, **_kwargs):
        raise errors.StoreUnavailable("out of memory")

    monkeypatch.setattr(pool.store, "keep_audit", full)
    reports.keep(report(findings=(critical(),)))
    assert json.loads(files(pool)[0].read_bytes())["run_id"] == "run-1"
    out = capsys.readouterr().out
    assert "report not kept in Redis" in out
    assert "new critical faults" in out
    assert "run-1" in read_page(pool).text


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_any_number_of_findings_makes_a_small_value_and_a_page_that_says_so(pool, reports, count):
    many = tuple(critical(f"t{number:06}", "x" * 5_000 if number < 9 else "x") for number in range(count))
    steps = tuple(
        RepairStep(action="none", subject=str(number), detail="x", state=RepairState.PLANNED)
        for number in range(500)
    )
    reports.keep(report(findings=many, repairs=steps, undecided=("x" * 9_000,) * 500))

    assert pool.redis.hstrlen(Keys.audits, pool.store.kept_audits()[0].field) < 100_000
    (kept,) = pool.get_audits()
    assert kept["totals"] == {"findings": count, "repairs": 500, "undecided": 500}
    assert kept["counts"] == {"missing_in_redis": count}
    assert kept["severities"] == {"critical": count}
    assert len(kept["findings"]) == FINDINGS_MAX
    assert len(json.loads(files(pool)[0].read_bytes())["findings"]) == count
    page = read_page(pool)
    assert f"The first {FINDINGS_MAX} of {count:,} findings" in page.text
    assert len(page.source) < 200_000


def test_the_worst_findings_are_those_that_are_shown(pool, reports):
    notices = [
        Finding(rule="a_rule", severity=Severity.NOTICE, subject=f"n{number}", detail="")
        for number in range(500)
    ]
    reports.keep(report(findings=(*notices, critical("the one"))))
    assert pool.get_last_audit()["findings"][0]["subject"] == "the one"


def test_what_users_wrote_is_shown_and_does_nothing(pool, reports):
    step = RepairStep(action="none", subject=EVIL, detail=EVIL, state=RepairState.REFUSED)
    found = Finding(rule="index_extra", severity=Severity.WARNING, subject=EVIL, detail=EVIL)
    reports.keep(
        report(findings=(found,), repairs=(step,), undecided=(EVIL,), figures={f"{BOOK_PNL}{EVIL}": EVIL})
    )
    reports.keep(report("run-2", level="deep", figures={f"{BOOK_PNL}{EVIL}": "1"}))
    reports.keep(report("run-3", findings=(found,), repairs=(step,), figures={f"{BOOK_PNL}{EVIL}": "2"}))
    page = read_page(pool)
    assert "script" not in page.tags
    assert "<script>alert(1)</script>[red]\\x1b[31m\\u202e" in page.text
    assert not {"\x1b", "\u202e"} & set(page.source)


def test_text_that_is_no_unicode_is_kept_as_an_escape(pool, reports):
    reports.keep(report(findings=(critical("t\udcff"),)))
    assert pool.get_last_audit()["findings"][0]["subject"] == "t\\udcff"
    assert "t\\udcff" in read_page(pool).text


def test_reports_of_an_earlier_release_read_as_before(pool, reports):
    old = {
        "level": "deep",
        "started_at": 1_700_000_000_000_000,
        "duration_s": 1.5,
        "checked": {"shards": 2},
        "findings": [msgspec.to_builtins(critical())],
        "undecided": [],
        "ok": False,
        "counts": {"missing_in_redis": 1},
    }
    pool.redis.hset(Keys.audits, f"{old['started_at']}:deep:old", json.dumps(old | {"run_id": "old"}))
    kept = pool.get_last_audit()
    assert {name: kept[name] for name in old} == old
    assert kept["severities"] == {"critical": 1}
    assert kept["totals"]["findings"] == 1
    reports.write_page()
    assert "2023-11-14 22:13:20 UTC" in read_page(pool).text


def test_a_report_that_cannot_be_read_is_left_out(pool, reports, capsys):
    pool.redis.hset(Keys.audits, "5:deep:newer", json.dumps({"level": 7}))
    pool.redis.hset(Keys.audits, "6:deep:worse", b"\xff")
    reports.keep(report())
    assert [kept["run_id"] for kept in pool.get_audits()] == ["run-1"]
    assert "a kept report cannot be read" in capsys.readouterr().out


def test_a_run_that_a_message_has_named_stays_in_the_folder(pool, reports):
    assert reports.keep(report("../../x:y/\n")).run_id == "------x-y--"
    assert [kept["run_id"] for kept in pool.get_audits()] == ["------x-y--"]
    assert len(files(pool)) == 1


@pytest.mark.parametrize("key", [Keys.audits, Keys.known_critical])
def test_a_key_of_a_wrong_type_takes_no_audit_with_it(pool, reports, capsys, key):
    pool.redis.set(key, "x")
    assert reports.keep(report(findings=(critical(),))).findings
    assert json.loads(files(pool)[0].read_bytes())["run_id"] == "run-1"
    assert "new critical faults" in capsys.readouterr().out


def test_what_is_no_report_is_not_counted_as_one(pool, reports):
    pool.redis.hset(Keys.audits, mapping={"x": "y", "7:deep": "z", "-1:deep:a": "b"})
    reports.keep(report())
    assert [kept["run_id"] for kept in pool.get_audits()] == ["run-1"]


def test_the_watch_keeps_one_report_where_it_looks_twice(pool, scene):
    keys, shard = pool.store.keys, scene.shard
    bucket = f"{keys.bucket_of(scene.open_id):x}"
    pool.redis.hset(keys.digest(shard), bucket, "0" * 16 + ":1")
    assert pool._services.audit.watch().level == "standard"
    assert [kept["level"] for kept in pool.get_audits()] == ["standard"]
