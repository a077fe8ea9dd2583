"""The page of audits: it loads nothing, fits every pool, and tells what it leaves out."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.audit_plants import Scene, opened
from tests.page_parts import Page, read_page
from tradepool.audit.report import AuditReport, Finding, Severity
from tradepool.audit.reports.course import (
    POINTS_MAX,
    History,
    by_rule,
    by_severity,
    durations,
    journal_lag,
    standing,
)
from tradepool.audit.reports.figures import BOOK_PNL, LAG_US
from tradepool.audit.reports.kept import KeptReport
from tradepool.audit.reports.page import page_of

MINUTE_US = 60_000_000
LETTER_WIDTH = 9
"""Of the writing in plots as it is on a narrow screen, about."""
START = 1_763_856_000_000_000
CRITICAL, WARNING = "missing_in_redis", "time_order"
LOADED = {
    "src",
    "srcset",
    "href",
    "xlink:href",
    "action",
    "formaction",
    "poster",
    "background",
    "data",
    "manifest",
}


def kept(minute, level="digest", *rules, duration_s=0.5, **figures):
    findings = tuple(
        Finding(
            rule=rule,
            severity=Severity.CRITICAL if rule == CRITICAL else Severity.WARNING,
            subject=f"t{number}",
            detail="as planted",
        )
        for number, rule in enumerate(rules)
    )
    report = AuditReport(
        level=level,
        started_at=START + minute * MINUTE_US,
        duration_s=duration_s,
        checked={"shards": 2, "records": 1000},
        findings=findings,
        run_id=f"run-{minute}",
        figures=figures,
    )
    return KeptReport.of(report, ())


def page(*reports):
    in_force = {brief.name for brief in standing(reports)}
    history = History(reports, tuple(report for report in reports if report.name in in_force))
    return Page(page_of(history, pool="a pool", now_us=START))


def assert_self_contained(made):
    assert not LOADED & {name for _, name, _ in made.attributes}
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(made.tags)
    assert not re.search(r"url\(|@import|expression\(", made.styles)
    styles = " ".join(value for _, name, value in made.attributes if name == "style")
    assert "url(" not in styles
    assert not [name for _, name, _ in made.attributes if name.startswith("on")]
    assert not re.search(r"https?:|//\w", made.source.replace('xmlns="http://www.w3.org/2000/svg"', ""))


def test_the_page_of_planted_faults_loads_nothing(server, tmp_path, monkeypatch):
    with opened(server, tmp_path / "pool") as (pool, journal):
        scene = Scene(pool, journal, monkeypatch)
        pool.mark_to_market({"BTC/USDT": "107.5"})
        pool.check_all_trades(deep=True)
        pool.redis.hdel(scene.records(scene.open_id), scene.open_id)
        pool.check_all_trades(deep=True)
        pool.check_all_trades(level="standard")
        made = read_page(pool)
    assert_self_contained(made)
    assert made.tags.count("svg") >= 4
    assert "1 critical finding" in made.text
    assert scene.open_id in made.text
    assert "What the journal has is in the store." in made.text
    assert "USDT" in made.text


def test_a_pool_without_reports_has_a_page_that_says_so():
    made = page()
    assert_self_contained(made)
    assert "No audit yet" in made.text
    assert "svg" not in made.tags


def test_plots_begin_with_the_second_report():
    assert "svg" not in page(kept(0)).tags
    made = page(
        kept(0, **{LAG_US: 1500, f"{BOOK_PNL}USDT": "1"}), kept(5, **{LAG_US: 0, f"{BOOK_PNL}USDT": "-2.5"})
    )
    assert_self_contained(made)
    assert made.tags.count("svg") == 4
    labels = {value for tag, name, value in made.attributes if tag == "svg" and name == "aria-label"}
    assert {"Journal lag, ms the oldest commit waits", "Book PnL, USDT"} <= labels


def test_the_last_word_on_a_fault_is_that_of_whoever_looked_at_it():
    deep, digest = kept(0, "deep", CRITICAL), kept(5)
    made = page(deep, digest)
    assert "1 critical finding" in made.text
    assert (
        "deep audit of 2025-11-23 00:00:00 UTC and the digest audit of 2025-11-23 00:05:00 UTC" in made.text
    )
    assert "Everything agrees" in page(deep, digest, kept(9, "deep")).text
    assert "Everything agrees" in page(kept(0, "digest", CRITICAL), kept(5, "deep")).text
    assert "1 warning" in page(kept(0, "deep", CRITICAL), kept(9, "deep", WARNING)).text


def test_a_rule_of_another_release_is_shown_as_unknown():
    assert "A rule that this release does not know." in page(kept(0, "deep", "thought_of_later")).text


def test_what_a_shallow_report_did_not_look_at_stands_as_it_was_found():
    course = [kept(0), kept(5, "deep", CRITICAL, CRITICAL, WARNING), kept(10), kept(15, "deep", WARNING)]
    (critical, warning) = by_rule(course)
    assert [value for _, value in critical.points] == [0, 2, 2, 0]
    assert [value for _, value in warning.points] == [0, 1, 1, 1]
    assert [[value for _, value in one.points] for one in by_severity(course)] == [
        [0, 2, 2, 0],
        [0, 1, 1, 1],
        [0, 0, 0, 0],
    ]


def test_rules_beyond_the_first_are_drawn_as_one():
    names = [f"rule_{number}" for number in range(9)]
    assert [one.name for one in by_rule([kept(0, "deep", *names)])] == [*names[:5], "other rules"]
    assert by_rule([kept(0, "deep", *names)])[-1].last == 4


def test_a_long_course_is_thinned_and_keeps_its_peak():
    course = [kept(minute, **{LAG_US: 9_000_000 if minute == 777 else 1000}) for minute in range(2_000)]
    (lag,) = journal_lag(course)
    assert len(lag.points) <= POINTS_MAX
    assert max(value for _, value in lag.points) == 9_000


def test_what_the_page_says_of_now_is_the_newest_value_however_long_the_course_is():
    course = [kept(minute, "digest", *[CRITICAL][: minute != 999]) for minute in range(1_000)]
    (critical,) = by_rule([kept(-1), *course[:-1], kept(999, "deep")])
    assert len(critical.points) <= POINTS_MAX
    assert critical.last == 0
    assert critical.points[-1][0] == START + 999 * MINUTE_US


@pytest.mark.parametrize("days", [0.001, 0.01, 0.1, 0.9, 1.1, 2, 2.9, 3.1, 30, 400])
def test_the_times_below_a_plot_do_not_run_into_each_other(days):
    (lag, *_) = re.findall(r"<svg.*?</svg>", page(kept(0), kept(int(days * 24 * 60) or 1)).source, re.DOTALL)
    axis = lag[lag.index("axis x") :]
    places = re.findall(r'<text x="([\d.]+)" y="[\d.]+"[^>]*>([^<]+)', axis[: axis.index("series")])
    assert places
    for (x, text), (after, _) in pairwise(places):
        assert float(after) - float(x) > LETTER_WIDTH * len(text)


def test_a_logarithmic_plot_names_its_highest_decade():
    made = page(kept(0, duration_s=0.02), kept(5, "deep", duration_s=95))
    assert {"0.01", "0.1", "1", "10", "100"} <= set(re.findall(r">([\d.]+)</text>", made.source))


def test_durations_are_drawn_by_level():
    course = [kept(0, duration_s=0.01), kept(5, "deep", duration_s=90), kept(10, duration_s=0.02)]
    assert {one.name: one.last for one in durations(course)} == {"digest": 0.02, "deep": 90}


@pytest.mark.parametrize("amount", ["nan", "Infinity", "1e999", "none", "9" * 400, "-0", "0.00000001"])
def test_no_figure_breaks_the_page(amount):
    figures = {f"{BOOK_PNL}USDT": amount, LAG_US: 10**30}
    made = page(kept(0, **figures), kept(5, **figures), kept(10, "deep", duration_s=0, **figures))
    assert "Latest reports" in made.text
