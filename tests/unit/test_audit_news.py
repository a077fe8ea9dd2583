"""Which critical findings are new: what a report did not look at is neither gone nor new."""

from __future__ import annotations

import pytest

from tradepool.audit.report import AuditReport, Finding, Severity
from tradepool.audit.reports.news import KNOWN_MAX, VENUE, compare, told_by

RECORD, SHARD, KEY, BALANCE = "missing_in_redis", "digest", "key_value", "venue_balance"


def found(rule, subject="t1", severity=Severity.CRITICAL):
    return Finding(rule=rule, severity=severity, subject=subject, detail="as planted")


class Audits:
    """Audits one after the other; what each tells as new."""

    def __init__(self):
        self.known = {}
        self.at = 0

    def audit(self, level, *findings, at=None, checked=(), told=True, can_page=True):
        self.at += 10
        report = AuditReport(
            level=level,
            started_at=at or self.at,
            duration_s=1,
            checked=dict.fromkeys(checked, 1),
            findings=tuple(sorted(findings)),
            run_id=f"run-{self.at}",
        )
        news = compare(report, self.known, can_page=can_page)
        changes = news if told else news.without_new()
        self.known = {k: v for k, v in (self.known | changes.put).items() if k not in changes.drop}
        return [(finding.rule, finding.subject) for finding in news.new]


@pytest.fixture
def audits():
    return Audits()


def test_a_fault_is_new_once_and_again_when_it_has_come_back(audits):
    assert audits.audit("deep", found(RECORD)) == [(RECORD, "t1")]
    assert audits.audit("deep", found(RECORD)) == []
    assert audits.audit("deep") == []
    assert audits.audit("deep", found(RECORD)) == [(RECORD, "t1")]


@pytest.mark.parametrize("shallower", ["digest", "standard"])
def test_a_shallower_report_neither_forgets_nor_repeats_what_a_deep_one_found(audits, shallower):
    audits.audit("deep", found(RECORD))
    assert audits.audit(shallower) == []
    assert audits.audit("deep", found(RECORD)) == []


def test_a_second_subject_of_a_known_rule_is_new(audits):
    audits.audit("deep", found(RECORD))
    assert audits.audit("deep", found(RECORD), found(RECORD, "t2")) == [(RECORD, "t2")]


def test_what_a_standard_report_found_is_gone_when_the_next_one_does_not_have_it(audits):
    audits.audit("standard", found(RECORD))
    audits.audit("digest")
    assert audits.audit("standard", found(RECORD)) == []
    audits.audit("standard")
    assert audits.audit("deep", found(RECORD)) == [(RECORD, "t1")]


def test_every_report_looks_at_sums_whichever_found_that_they_differ(audits):
    audits.audit("standard", found(SHARD, "shard 03"))
    audits.audit("digest")
    assert audits.audit("digest", found(SHARD, "shard 03")) == [(SHARD, "shard 03")]


def test_a_key_that_a_deep_report_found_is_not_gone_because_a_digest_report_looks_at_others(audits):
    audits.audit("deep", found(KEY, "tp:{00}:c:ann"))
    audits.audit("digest")
    assert audits.audit("deep", found(KEY, "tp:{00}:c:ann")) == []


def test_only_a_report_with_a_venues_figures_forgets_what_they_were_about(audits):
    audits.audit("digest", found(BALANCE, "ann"), checked=[VENUE])
    audits.audit("deep")
    assert audits.audit("digest", found(BALANCE, "ann"), checked=[VENUE]) == []
    audits.audit("digest", checked=[VENUE])
    assert audits.audit("digest", found(BALANCE, "ann"), checked=[VENUE]) == [(BALANCE, "ann")]


def test_a_deep_report_that_began_before_a_fault_was_found_does_not_forget_it(audits):
    audits.audit("standard", found(RECORD), at=1000)
    audits.audit("deep", at=500)
    assert audits.audit("standard", found(RECORD), at=2000) == []


def test_what_nobody_could_be_told_of_is_new_to_the_next_report(audits):
    assert audits.audit("deep", found(RECORD), told=False) == [(RECORD, "t1")]
    assert audits.audit("deep", found(RECORD)) == [(RECORD, "t1")]
    assert audits.audit("deep", found(RECORD)) == []


def test_what_was_only_logged_is_new_once_to_whoever_can_page(audits):
    """A person audits in a shell that knows no webhook, and before and after that beat does."""
    assert audits.audit("deep", found(RECORD)) == [(RECORD, "t1")]
    logged = found(RECORD), found(RECORD, "t2")
    assert audits.audit("deep", *logged, can_page=False) == [(RECORD, "t2")]
    assert audits.audit("deep", *logged, can_page=False) == []
    assert audits.audit("deep", *logged) == [(RECORD, "t2")]
    assert audits.audit("deep", *logged) == audits.audit("deep", *logged, can_page=False) == []
    assert [told_by(f"run-{at}", audits.known) for at in (10, 20, 40)] == [
        [f"{RECORD}\x1ft1"],
        [],
        [f"{RECORD}\x1ft2"],
    ]


def test_warnings_and_notices_page_nobody(audits):
    assert (
        audits.audit(
            "deep", found("time_order", severity=Severity.WARNING), found("x", severity=Severity.NOTICE)
        )
        == []
    )
    assert not audits.known


def test_a_page_that_was_lost_takes_back_what_it_told_and_no_more(audits):
    audits.audit("deep", found(RECORD))
    audits.audit("deep", found(RECORD), found(RECORD, "t2"))
    assert [name.rpartition("\x1f")[2] for name in told_by("run-20", audits.known)] == ["t2"]


def test_any_number_of_faults_is_known_by_so_many_at_most(audits):
    many = [found(RECORD, f"t{number:06}") for number in range(KNOWN_MAX + 5)]
    assert len(audits.audit("deep", *many)) == KNOWN_MAX
    assert audits.audit("deep", *many) == []


def test_what_is_known_of_another_release_is_only_forgotten_by_a_deep_report():
    report = AuditReport(level="standard", started_at=5, duration_s=1, checked={})
    known = {"its_rule\x1ft1": "thorough:nonsense"}
    assert compare(report, known, can_page=True).drop == []
    deep = AuditReport(level="deep", started_at=5, duration_s=1, checked={})
    assert compare(deep, known, can_page=True).drop == ["its_rule\x1ft1"]
